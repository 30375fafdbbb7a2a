//! The kube-rs shell round the StatefulSet decision: watch, observe, decide, check, execute, report. Never sees the API server or the node.

pub mod call;
pub mod events;
pub mod queue;
pub mod reflect;
pub mod resource;
