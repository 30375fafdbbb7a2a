//! Where a set can come to rest once the faults have stopped and the user has nothing more to say: a closed list.
//!
//! Each is convergence, or names the human act it waits for and where Kubernetes itself rests in the same way.

use crate::check::{available_at, is_done};
use crate::object::Life;
use crate::view::View;
use crate::world::{Strategy, World};

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
    Resting {
        name: "converged",
        sentence: "every wanted ordinal has an available pod of the template, nothing else is there, and the status says so",
        source: "the contract",
        is: |_, view, _| is_done(view),
    },
    Resting {
        name: "partition",
        sentence: "pods below the partition keep their revision until somebody lowers it",
        source: "upstream 3.8: stage D ends at the partition",
        is: |_, view, reasons| {
            reasons == ["Partition"]
                && is_all_available(view)
                && is_rolled_down_to(view, view.set.partition)
        },
    },
    Resting {
        name: "on-delete",
        sentence: "outdated pods stay until somebody deletes them",
        source: "upstream 3.8: OnDelete stops before stage D",
        is: |_, view, reasons| {
            reasons == ["OnDelete"]
                && view.settings.strategy == Strategy::OnDelete
                && is_all_available(view)
        },
    },
    Resting {
        name: "broken pod, in order",
        sentence: "a pod that never gets ready holds up an OrderedReady set, even when its template is mended: somebody deletes the pod",
        source: "upstream 3.16: kubernetes#67250, #60164",
        is: |world, view, reasons| {
            !is_mended_by_itself(view) && reasons == ["NotReady"] && has_broken_pod(world, view)
        },
    },
    Resting {
        name: "broken template",
        sentence: "the template's pods never get ready: somebody mends the template, then the set comes through by itself",
        source: "upstream 3.9, 3.9b: Parallel and Recreate replace broken pods, but only outdated ones",
        is: |world, view, reasons| {
            let waits = reasons
                .iter()
                .all(|reason| ["NotReady", "BudgetSpent"].contains(reason));
            is_mended_by_itself(view)
                && waits
                && world.broken.contains(&view.set.template)
                && has_broken_pod(world, view)
        },
    },
    Resting {
        name: "condemned waits",
        sentence: "of two pods that are to go neither is healthy, and each scale-down step wants the lower one well: somebody deletes it",
        source: "upstream 3.7: kubernetes#36333, #57865",
        is: |world, view, reasons| {
            !view.settings.parallel && reasons == ["CondemnedWaits"] && has_broken_pod(world, view)
        },
    },
    Resting {
        name: "claim in deletion",
        sentence: "a pod was bound to a node when its claim was deleted, and keeps the claim from going: somebody deletes the pod",
        source: "upstream 2.3 and kubernetes.io/pvc-protection: the kubelet does not start a pod on a claim in deletion",
        is: |_, view, reasons| {
            reasons.contains(&"ClaimTerminating") && has_pod_on_leaving_claim(view)
        },
    },
];

fn is_all_available(view: &View) -> bool {
    view.set
        .ordinals()
        .all(|ordinal| available_at(view, ordinal))
}

/// No pod from the partition up is outdated.
fn is_rolled_down_to(view: &View, partition: u8) -> bool {
    let mut above = view.set.ordinals().skip(usize::from(partition));
    above.all(|ordinal| view.pods[ordinal].is_some_and(|pod| pod.revision == view.set.template))
}

/// A set that replaces the broken pods of an older template.
fn is_mended_by_itself(view: &View) -> bool {
    view.settings.parallel || view.settings.strategy == Strategy::Recreate
}

fn has_broken_pod(world: &World, view: &View) -> bool {
    view.pods
        .iter()
        .flatten()
        .any(|pod| pod.life == Life::Running && world.broken.contains(&pod.revision))
}

fn has_pod_on_leaving_claim(view: &View) -> bool {
    let mut pairs = view.pods.iter().zip(&view.claims);
    pairs.any(|(pod, claim)| {
        pod.is_some_and(|pod| pod.life == Life::Bound)
            && claim.is_some_and(|claim| claim.terminating)
    })
}

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
