//! Images as their users meet them: pulled from a registry on loopback, loaded from files, unpacked whatever they say.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

#[path = "images/pull.rs"]
mod pull;
#[path = "images/support/mod.rs"]
mod support;
#[path = "images/unpack.rs"]
mod unpack;
