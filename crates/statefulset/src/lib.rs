//! What should happen next to a StatefulSet: one pure function, [`decide`], from what was observed to a plan with its reasons.
//!
//! No IO, no async, no clock, no randomness, no logging, no panic. It knows the facts of the API (`stead-schema`) and nothing else of
//! Stead. The controller executes the plan, `plan` and `explain` print it, the simulator explores it: all call this one function.
//!
//! | to | use |
//! |---|---|
//! | say what was seen | [`Observed::parse`] from JSON, or [`Observed::new`] from facts kept parsed ([`Set`], [`Pod`], [`Claim`], [`Revision`]) |
//! | learn what to do | [`decide`] gives a [`Decision`]: a [`Plan`] of [`Step`]s, [`Blocker`]s, [`Status`], `recheck_at` |
//! | carry a step out | [`Step::call`] is its one API call, [`Step::event`] the Kubernetes Event that tells of it |
//! | distrust it | [`check::all`] lists the rules that a decision breaks |
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod blocker;
mod call;
pub mod check;
mod decide;
mod decision;
mod event;
pub mod identity;
mod json;
mod observed;
mod owners;
mod replica;
mod revision;
mod status;
mod step;

pub use blocker::{Blocker, Holder, Retry};
pub use call::{Action, Call, PatchKind};
pub use decide::decide;
pub use decision::{Decision, Lane, Plan, Wave};
pub use event::{EventType, KubeEvent};
pub use identity::Ordinal;
pub use json::Json;
pub use observed::{
    Claim, ClaimTemplate, Controller, Freshness, Malformed, Management, Mark, MaxUnavailable,
    Objects, Observed, OwnerReference, OwnerRole, Pairs, Phase, Place, Pod, Ready, Resource,
    Retention, RetentionPolicy, Revision, Rolling, Set, Strategy,
};
pub use owners::{Owner, Owners};
pub use status::Status;
pub use step::{DeleteReason, ReleaseReason, Repair, Step};
