//! Lives of pods, simulated: the pure decisions against containers, probes and clocks that are only arithmetic.

#[path = "pods/lives.rs"]
mod lives;
#[cfg(feature = "oracle-tests")]
#[path = "pods/oracle.rs"]
mod oracle;
#[path = "pods/script.rs"]
mod script;
#[path = "pods/summary.rs"]
mod summary;
#[path = "pods/world.rs"]
mod world;
