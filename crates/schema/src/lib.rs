//! The facts of the Kubernetes API as one table: defaulting, type validation, patch merge keys, field sets, protobuf numbers.
//!
//! Pure: no IO, no clock, no randomness; knows no other crate of Stead. Objects are `serde_json::Value`. Everything
//! here is total: any JSON, any bytes are answered with a value or an error, never with a panic.
//!
//! | question | answer |
//! |---|---|
//! | which kinds and resources are there? | [`kinds`], [`kind`], [`resource`], [`groups`], [`columns`] |
//! | what would kube-apiserver persist for this object? | [`prune`], then [`set_defaults`] |
//! | is every field known and of its type? | [`check_types`] |
//! | what does this strategic merge patch make of it? | [`strategic_merge`] |
//! | what does this protobuf body say? | [`protobuf::decode`] |
//! | who owns which field? | [`fields`] |
//! | what does kubectl need to know? | [`openapi_v3`], [`openapi_v3_paths`] |

mod check;
mod defaults;
pub mod fields;
mod kinds;
mod merge;
mod openapi;
pub mod protobuf;
mod prune;
pub mod quantity;
mod table;
#[cfg(test)]
mod testing;
mod times;

pub use check::{Finding, Findings, check_types};
pub use defaults::{set_defaults, set_pod_template_defaults};
pub use kinds::{
    Column, Group, Kind, Subresource, columns, group_versions, groups, kind, kinds, resource,
};
pub use merge::{PatchError, strategic_merge};
pub use openapi::{openapi_v3, openapi_v3_of, openapi_v3_paths};
pub use prune::prune;
