//! The embedded Kubernetes API: store, watch, patch, admission, discovery, authentication. Knows neither StatefulSet decisions nor the node.
//!
//! The heart is [`handle()`], pure: a request, a [`View`] of the objects, the time and a seed give an answer and changes.
//! Round it: one writer thread that commits batches durably before it publishes and answers, a store that readers
//! share, rings of recent events for watches, and a shell for HTTP.

mod admit;
mod alone;
mod apply;
mod auth;
mod authorize;
mod backend;
mod bootstrap;
mod cluster_view;
mod compress;
mod convert;
mod create;
mod decode;
mod delete;
mod discovery;
mod entropy;
mod fields;
mod folder;
mod handle;
mod http;
mod list;
mod negotiate;
mod object;
mod options;
mod patch;
pub mod pki;
pub mod quota;
mod render;
mod request;
mod reviews;
mod ring;
mod selector;
mod server;
mod service;
mod status;
mod store;
mod stream;
mod subresource;
mod table;
mod update;
mod user;
mod watch;
mod writer;

pub use alone::{Alone, AloneOptions, hosts, start_alone};
pub use auth::token::{NoKey, TokenKey};
pub use backend::{Backend, BackendError, Contents, Put};
pub use folder::{OpenError, lock_holder};
pub use handle::{Environment, Operation, Outcome, Reply, Request, handle, perform, prepare};
pub use server::{ApiServer, Options};
pub use service::{ApiService, Body, BoxError, NodeService, full};
pub use store::{Change, Listing, NoSuchRevision, Overlay, Stored, Table, View};
pub use user::User;
pub use watch::Watch;
