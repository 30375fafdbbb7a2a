//! Cluster DNS: answers for `cluster.local` from Services and EndpointSlices, forwards the rest.
//!
//! [`zone`] is pure: objects in, answers out. [`Server`] keeps a zone fresh from the API and serves it over UDP and TCP.
//! [`resolv`] makes each pod's resolv.conf, and [`ask`] is the client behind `stead dns`.
//! Never recursive by itself: a name outside the cluster goes to the machine's own resolvers. Caches nothing.

mod ask;
mod feed;
mod forward;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod packet;
pub mod resolv;
mod server;
pub mod zone;

pub use ask::{Answer, AnswerRecord, AskError, ask};
pub use forward::Upstreams;
pub use server::{DnsError, DnsOptions, Server};
pub use zone::{Prefix, Zone};
