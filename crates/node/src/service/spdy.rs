//! SPDY/3.1, the server's side of it: what kubectl speaks for port forwarding, and older clients for everything.
//!
//! The client opens every stream. There is no flow control beyond that of the connection, as in the libraries that
//! speak it: a stream whose bytes nobody takes holds up its connection.

pub(super) mod dictionary;
pub(super) mod frame;
pub(super) mod headers;
mod session;

pub(super) use session::{Piece, Session, Stream, Writer};
