//! The recorded oracle against the pure functions: what a real API server stored, merged, decoded and said of owners.
//!
//! Behind the feature `oracle-tests`, for the recordings are no part of the project; without their folder it fails.

mod defaults;
mod managed_fields;
mod protobuf;
mod recorded;
mod strategic_merge;
