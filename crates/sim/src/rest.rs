//! Where a set can come to rest once the faults have stopped and the user has nothing more to say: a closed list.
//!
//! Each is convergence, or names the human act it waits for and where Kubernetes itself rests in the same way.

use crate::check::is_done;
use crate::view::View;
use crate::world::World;

/// One way to rest.
pub struct Resting {
    /// Its name in the matrix.
    pub name: &'static str,
    /// What it is, and the human act that ends it.
    pub sentence: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// Whether a rest is of this way: its world, what the controller sees, the blockers' names.
    is: fn(&World, &View, &[&str]) -> bool,
}

/// Every way to rest; the first that fits names a rest.
pub const RESTS: &[Resting] = &[
    Resting { name: "converged", sentence: "every wanted ordinal has an available pod of the template, nothing else is there", source: "the contract", is: |_, view, _| is_done(view) },
];

/// The way of a rest with a set; `None` for one that is not listed.
pub(crate) fn of(world: &World, view: &View, reasons: &[&str]) -> Option<&'static Resting> {
    RESTS.iter().find(|rest| (rest.is)(world, view, reasons))
}

/// The way of a rest without a set: the user deleted it, and the garbage collector has nothing left to do.
pub const GONE: Resting = Resting {
    name: "deleted",
    sentence: "the set was deleted; what it owned went with it, what policy or the user kept stays",
    source: "the contract",
    is: |_, _, _| false,
};
