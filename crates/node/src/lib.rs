//! The node agent: runs pods as containers, with volumes, probes, logs, network and DNS. Knows nothing of Stead but the Kubernetes API.

pub mod runtime;
