//! The node agent: runs pods as containers, with volumes, probes, logs, network and DNS. Knows nothing of Stead but the Kubernetes API.

mod action;
mod cgroup;
mod container;
pub mod dns;
mod env;
mod events;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod images;
pub mod leftover;
mod logs;
mod manager;
mod network;
mod node;
pub mod pod;
mod quantity;
pub mod runtime;
mod seccomp;
mod service;
mod shim;
mod sys;
mod volume;
mod worker;

pub use node::{Body, BoxError, Node, NodeOptions, NodeService, StartError, StopError};
pub use shim::shim_main;
