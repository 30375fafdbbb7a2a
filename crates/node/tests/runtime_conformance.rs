//! The tiers that an ordinary user can have, by the checks that hold for every tier.

#[macro_use]
mod support;

mod processes {
    every_tier! { stead_node::runtime::Tier::Processes }
}

mod rootless {
    every_tier! { stead_node::runtime::Tier::Rootless }
    tiers_with_mounts! { stead_node::runtime::Tier::Rootless }
}
