//! `resource.Quantity`.
