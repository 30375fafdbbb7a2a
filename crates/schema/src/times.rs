//! RFC 3339 times as Go writes them.
