//! Every small world of a StatefulSet, walked through with the code that ships.
//!
//! One thread holds a whole cluster: a compact model of the API, its watches, the controller round the shipped `decide`, kubelet,
//! user and garbage collector. [`explore`] visits every state that the world's bounds allow, faults included, checks the rules of
//! [`check`] in each, and then that from each of them the set comes home once the faults stop.
#![forbid(unsafe_code)]

mod act;
mod api;
pub mod check;
mod explore;
mod matrix;
mod mutant;
mod object;
mod op;
mod pass;
pub mod rest;
mod state;
mod view;
mod world;

pub use explore::{Failure, Report, explore};
pub use matrix::{large, matrix};
pub use mutant::{Hunt, MUTANTS, Mutant, SHIPPED, hunt};
pub use world::World;
