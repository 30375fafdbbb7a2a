//! The controllers together over the API server in memory, with a pretend kubelet.

mod sets;
mod town;
