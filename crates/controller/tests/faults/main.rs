//! The controller against the embedded API server behind a proxy that makes trouble: what is sent is what is judged.

mod caches;
mod order;
mod proxy;
mod refusals;
mod rivals;
mod world;
