//! The node agent: runs pods as containers, with volumes, probes, logs, network and DNS. Knows nothing of Stead but the Kubernetes API.

pub mod dns;
mod node;
pub mod pod;
mod quantity;
pub mod runtime;
mod shim;
mod sys;

pub use node::{Body, BoxError, Node, NodeOptions, NodeService, StartError, StopError};
pub use shim::shim_main;
