//! The controllers together over the API server in memory, with a pretend kubelet.

mod binding;
mod claims;
mod collection;
mod many;
mod namespaces;
mod services;
mod sets;
mod stopping;
mod town;
mod whole;
