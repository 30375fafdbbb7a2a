//! The containers tier, by the checks that hold for every tier. Needs root with the right to mount.
//!
//! `cargo test -p stead-node --features root-tests --test root_runtime`; without root it fails, it does not skip.

#[macro_use]
mod support;

mod containers {
    every_tier! { stead_node::runtime::Tier::Containers }
    tiers_with_mounts! { stead_node::runtime::Tier::Containers }
}
