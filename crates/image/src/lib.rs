//! OCI images on one machine: pulled from registries or loaded from layouts, checked, unpacked once, kept.
//!
//! Nothing of a registry or an archive is believed: each document and each layer is used only after its digest and its
//! size were checked, everything has a limit, and a layer is unpacked by descriptors, so that no path leads out of it.
//!
//! | module | job |
//! |---|---|
//! | [`reference`](mod@reference) | names of images |
//! | [`digest`] | content addresses, and readers that check them |
//! | [`document`] | manifests, indexes and configs |
//! | [`limits`] | how much of anything is taken |
//! | [`tar`], [`unpack`] | from the bytes of a layer to a folder |
//! | [`store`] | what is on this machine: names, documents, layers |
//! | [`source`], [`registry`] | where images come from |
//! | [`users`] | who a container of an image runs as |

pub mod compression;
pub mod digest;
pub mod document;
pub mod limits;
pub mod reference;
pub mod registry;
pub mod source;
pub mod store;
pub mod tar;
pub mod unpack;
pub mod users;

pub use digest::Digest;
pub use document::ImageConfig;
pub use limits::Limits;
pub use reference::ImageName;
pub use store::{Image, Store};
