//! The stead binary: the only composition root. Nothing may depend on it.
fn main() {}
