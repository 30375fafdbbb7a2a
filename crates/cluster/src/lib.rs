//! The one-machine cluster: composes API server, controller and node, with the few small controllers a cluster needs. Each of those meets the rest only through the API.

mod balancer;
mod bind;
mod bootstrap;
mod claims;
mod cluster;
mod collect;
mod controllers;
mod disruption;
mod endpoints;
mod evict;
mod informer;
mod metadata;
mod namespaces;
mod node_taints;
mod outcome;
mod quotas;
mod ranges;
mod selector;
mod stop;

pub use balancer::{IsHeld, Machine};
pub use cluster::{About, Cluster, Options, StartError};
pub use controllers::Controllers;
pub use informer::Clients;
pub use ranges::RangeError;
pub use stop::{StopEvent, StopKept, StopWhat, stop_all};
