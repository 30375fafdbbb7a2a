//! Deliberately broken rules: each must be caught, or the invariants prove nothing.

use crate::api::Careless;
use crate::explore::{Failure, explore};
use crate::matrix::matrix;
use crate::object::{Claim, Deleting, Kind, Life, Owner, Pod};
use crate::op::{Entry, Op, Part};
use crate::view::View;
use crate::world::Strategy;

/// One broken rule, put round the code that ships: before it, what it sees; after it, what is done.
#[derive(Clone, Copy)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// What it does wrong.
    pub sentence: &'static str,
    /// What it takes the world to be.
    pub(crate) view: fn(&mut View),
    /// What it makes of the plan.
    pub(crate) plan: fn(&View, &mut Vec<Entry>),
    /// What its shell does wrong.
    pub(crate) shell: Shell,
    /// The world that must catch it.
    pub(crate) world: &'static str,
    /// It goes unnoticed in the same world when nothing ever goes wrong between controller and API.
    pub through_fault: bool,
}

/// What a controller's shell can do wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shell {
    /// Preconditions left out of calls.
    pub(crate) careless: Careless,
    /// Kinds whose own writes it forgets: it decides although their caches do not show them.
    pub(crate) forgets_writes: &'static [Kind],
    /// A failed round is not repeated.
    pub(crate) gives_up: bool,
    /// A lane goes on after a step of it failed.
    pub(crate) ploughs_on: bool,
    /// The stages are sent even when the prologue failed.
    pub(crate) skips_prologue: bool,
    /// The next stage is sent even when one failed.
    pub(crate) skips_stages: bool,
    /// Events that come while a round is under way are lost.
    pub(crate) deaf_in_rounds: bool,
    /// No timer is set.
    pub(crate) no_timer: bool,
    /// After a restart it does not look at sets that nothing has changed.
    pub(crate) sleeps_after_restart: bool,
}

const SOUND: Shell = Shell {
    careless: Careless {
        uid: false,
        version: false,
    },
    forgets_writes: &[],
    gives_up: false,
    ploughs_on: false,
    skips_prologue: false,
    skips_stages: false,
    deaf_in_rounds: false,
    no_timer: false,
    sleeps_after_restart: false,
};

/// The code that ships, as it is.
pub const SHIPPED: Mutant = Mutant {
    name: "shipped",
    sentence: "nothing",
    view: |_| {},
    plan: |_, _| {},
    shell: SOUND,
    world: "",
    through_fault: false,
};

/// A mutant that sees wrongly.
const fn sees(
    name: &'static str,
    sentence: &'static str,
    world: &'static str,
    view: fn(&mut View),
) -> Mutant {
    Mutant {
        name,
        sentence,
        view,
        world,
        ..SHIPPED
    }
}

/// A mutant that does something else than was decided.
const fn does(
    name: &'static str,
    sentence: &'static str,
    world: &'static str,
    plan: fn(&View, &mut Vec<Entry>),
) -> Mutant {
    Mutant {
        name,
        sentence,
        plan,
        world,
        ..SHIPPED
    }
}

/// A mutant with a broken shell, which only shows when something goes wrong.
const fn shell(
    name: &'static str,
    sentence: &'static str,
    world: &'static str,
    shell: Shell,
) -> Mutant {
    Mutant {
        name,
        sentence,
        shell,
        world,
        through_fault: true,
        ..SHIPPED
    }
}

const EVERY_KIND: &[Kind] = &[Kind::Sets, Kind::Pods, Kind::Claims, Kind::Revisions];

/// Every broken rule.
pub const MUTANTS: &[Mutant] = &[
    sees(
        "skip-readiness",
        "a pod that runs counts as ready",
        "ordered-create",
        |view| every_pod(view, |pod| pod.life = ready(pod.life)),
    ),
    sees(
        "skip-min-ready",
        "a pod counts as available as soon as it is ready",
        "ordered-min-ready",
        |view| {
            every_pod(view, |pod| {
                pod.life = if pod.life == Life::Ready {
                    Life::Aged
                } else {
                    pod.life
                }
            });
        },
    ),
    sees(
        "replace-too-early",
        "a pod that is being stopped counts as gone",
        "ordered-roll",
        |view| {
            view.pods = view.pods.map(|pod| pod.filter(|pod| !pod.terminating));
        },
    ),
    sees(
        "terminating-counts",
        "a pod that is being stopped counts as available",
        "ordered-roll",
        |view| {
            every_pod(view, |pod| pod.terminating = false);
        },
    ),
    sees(
        "failed-is-fine",
        "a pod that has ended counts as ready",
        "ordered-roll",
        |view| {
            every_pod(view, |pod| {
                pod.life = if pod.life == Life::Failed {
                    Life::Ready
                } else {
                    pod.life
                }
            });
        },
    ),
    sees(
        "partition-low",
        "the partition is one too low",
        "ordered-partition",
        |view| view.set.partition = view.set.partition.saturating_sub(1),
    ),
    sees(
        "partition-high",
        "the partition is one too high",
        "ordered-partition",
        |view| view.set.partition += 1,
    ),
    sees(
        "partition-from-start",
        "the partition counts ordinals, not from ordinals.start",
        "ordered-start-partition",
        |view| {
            view.set.partition = view.set.partition.saturating_sub(view.set.start);
        },
    ),
    sees(
        "budget-high",
        "an update may take one pod more than maxUnavailable",
        "ordered-roll",
        |view| {
            if let Strategy::Rolling(max) = &mut view.settings.strategy {
                *max += 1;
            }
        },
    ),
    sees(
        "budget-forgets-starting",
        "a pod that is starting does not count against maxUnavailable",
        "parallel-roll",
        |view| {
            every_pod(view, |pod| pod.life = ready(pod.life));
        },
    ),
    sees(
        "parallel-always",
        "OrderedReady is taken for Parallel",
        "ordered-create",
        |view| view.settings.parallel = true,
    ),
    sees(
        "ordered-always",
        "Parallel is taken for OrderedReady",
        "parallel-broken",
        |view| view.settings.parallel = false,
    ),
    sees(
        "one-too-many",
        "one replica too many is wanted",
        "ordered-create",
        |view| view.set.replicas += 1,
    ),
    sees(
        "start-forgotten",
        "ordinals.start counts as 0",
        "ordered-start",
        |view| view.set.start = 0,
    ),
    sees(
        "claim-check-dropped",
        "a claim that is being deleted counts as a claim",
        "ordered-claims-lost",
        |view| {
            view.claims = view.claims.map(|claim| {
                claim.map(|claim| Claim {
                    terminating: false,
                    ..claim
                })
            });
        },
    ),
    sees(
        "stale-claim-taken",
        "a claim that goes with an earlier pod counts as free",
        "ordered-claims-scale",
        |view| {
            view.claims = view.claims.map(|claim| {
                claim.map(|claim| Claim {
                    owner: Owner::Nobody,
                    ..claim
                })
            });
        },
    ),
    sees(
        "retain-ignored-on-scale",
        "whenScaled: Retain is taken for Delete",
        "ordered-claims-kept",
        |view| view.settings.delete_with_pod = true,
    ),
    sees(
        "retain-ignored-on-delete",
        "whenDeleted: Retain is taken for Delete",
        "ordered-claims-kept",
        |view| view.settings.delete_with_set = true,
    ),
    sees(
        "on-delete-ignored",
        "OnDelete is taken for RollingUpdate",
        "ordered-on-delete",
        |view| view.settings.strategy = Strategy::Rolling(1),
    ),
    sees(
        "null-rolls-at-once",
        "with rollingUpdate null a missing pod always gets the update revision",
        "ordered-null",
        |view| {
            view.set.status.current = 0;
        },
    ),
    sees(
        "below-partition-updated",
        "a missing pod below the partition gets the update revision",
        "ordered-partition",
        |view| {
            view.set.status.current_revision = Some(view.set.template);
        },
    ),
    sees(
        "deletion-unseen",
        "a set that is being deleted counts as wanted",
        "delete-foreground",
        |view| view.set.deleting = Deleting::No,
    ),
    does(
        "claims-forgotten",
        "no claim is made",
        "ordered-claims-kept",
        |_, plan| plan.retain(|entry| !matches!(entry.op, Op::CreateClaim { .. })),
    ),
    does(
        "pod-before-claim",
        "a pod is made before its claim",
        "ordered-claims-kept",
        |_, plan| {
            swap_ops(
                plan,
                |op| matches!(op, Op::CreateClaim { .. }),
                |op| matches!(op, Op::CreatePod { .. }),
            );
        },
    ),
    does(
        "lowest-goes-first",
        "scale-down takes the lowest condemned pod",
        "ordered-scale",
        |view, plan| {
            redirect(view, plan, |view, ordinal| !view.set.wants(ordinal));
        },
    ),
    does(
        "lowest-updated-first",
        "an update takes the lowest outdated pod",
        "ordered-roll",
        |view, plan| {
            redirect(view, plan, |view, ordinal| {
                view.set.wants(ordinal)
                    && view.pods[ordinal]
                        .is_some_and(|pod| pod.revision != view.set.template && !pod.terminating)
            });
        },
    ),
    does(
        "scale-down-unasked",
        "a condemned pod goes without waiting for the wanted ones",
        "ordered-scale",
        |view, plan| {
            let condemned = (0..view.pods.len())
                .rev()
                .find(|&ordinal| !view.set.wants(ordinal) && view.pods[ordinal].is_some());
            if let (Some(ordinal), false) = (
                condemned,
                plan.iter()
                    .any(|entry| matches!(entry.op, Op::DeletePod { .. })),
            ) {
                add_delete(view, plan, ordinal);
            }
        },
    ),
    does(
        "broken-keep-the-budget",
        "a broken pod of an older revision waits for the budget it uses up itself",
        "parallel-broken",
        |view, plan| {
            plan.retain(|entry| match entry.op {
                Op::DeletePod { ordinal, .. } => {
                    !view.set.wants(usize::from(ordinal))
                        || view.pods[usize::from(ordinal)]
                            .is_some_and(|pod| pod.is_ready() || pod.life == Life::Failed)
                }
                _ => true,
            });
        },
    ),
    does(
        "status-forgotten",
        "the status is never stored",
        "ordered-create",
        |_, plan| plan.retain(|entry| !matches!(entry.op, Op::WriteStatus { .. })),
    ),
    does(
        "promoted-too-early",
        "the update revision becomes the current one at once",
        "ordered-partition",
        |_, plan| {
            for entry in plan {
                if let Op::WriteStatus { status, .. } = &mut entry.op {
                    status.current_revision = status.update_revision;
                }
            }
        },
    ),
    does(
        "revision-unrecorded",
        "no ControllerRevision is made",
        "ordered-create",
        |_, plan| {
            plan.retain(|entry| !matches!(entry.op, Op::CreateRevision { .. }));
        },
    ),
    does(
        "rollback-unrecorded",
        "a template that comes back does not become the newest revision",
        "ordered-rollback",
        |_, plan| {
            plan.retain(|entry| !matches!(entry.op, Op::RenumberRevision { .. }));
        },
    ),
    does(
        "live-revision-dropped",
        "the current revision is deleted while an update is under way",
        "ordered-roll",
        |view, plan| {
            let current = view
                .set
                .status
                .current_revision
                .filter(|current| *current != view.set.template);
            if let Some((template, revision)) =
                current.and_then(|current| Some((current, view.revisions[usize::from(current)]?)))
            {
                plan.push(Entry {
                    part: Part::Closing,
                    wave: 30,
                    lane: 0,
                    op: Op::DeleteRevision {
                        template,
                        uid: revision.uid,
                    },
                });
            }
        },
    ),
    does(
        "label-unrepaired",
        "a pod that lost its name label is left so",
        "ordered-tamper",
        |_, plan| {
            plan.retain(|entry| !matches!(entry.op, Op::UpdatePod { .. }));
        },
    ),
    does(
        "orphans-ignored",
        "orphaned pods are not adopted",
        "delete-orphan",
        |_, plan| plan.retain(|entry| !matches!(entry.op, Op::AdoptPod { .. })),
    ),
    sees(
        "recreate-rolls",
        "Recreate is taken for RollingUpdate",
        "recreate",
        |view| {
            // The group must stay, or the set would be another.
            every_pod(view, |pod| {
                pod.revision = if pod.is_ready() { pod.revision } else { 1 }
            });
            view.pods = view.pods.map(|pod| pod.filter(|pod| !pod.terminating));
        },
    ),
    Mutant {
        through_fault: false,
        ..shell(
            "deaf-in-rounds",
            "events that come while a round is under way are lost",
            "ordered-create",
            Shell {
                deaf_in_rounds: true,
                ..SOUND
            },
        )
    },
    Mutant {
        through_fault: false,
        ..shell(
            "timer-forgotten",
            "no timer is set for minReadySeconds",
            "ordered-min-ready",
            Shell {
                no_timer: true,
                ..SOUND
            },
        )
    },
    shell(
        "uid-forgotten",
        "deletes and patches carry no UID",
        "two-controllers",
        Shell {
            careless: Careless {
                uid: true,
                version: false,
            },
            ..SOUND
        },
    ),
    shell(
        "uid-forgotten-after-restart",
        "deletes and patches carry no UID",
        "set-back",
        Shell {
            careless: Careless {
                uid: true,
                version: false,
            },
            ..SOUND
        },
    ),
    shell(
        "writes-forgotten",
        "own writes are forgotten: it decides in stale views",
        "stale-roll",
        Shell {
            forgets_writes: EVERY_KIND,
            ..SOUND
        },
    ),
    shell(
        "pod-writes-forgotten",
        "own writes of pods are forgotten",
        "stale-roll",
        Shell {
            forgets_writes: &[Kind::Pods],
            ..SOUND
        },
    ),
    shell(
        "claim-writes-forgotten",
        "own writes of claims are forgotten",
        "stale-claims",
        Shell {
            forgets_writes: &[Kind::Claims],
            ..SOUND
        },
    ),
    shell(
        "revision-writes-forgotten",
        "own writes of revisions are forgotten",
        "stale-roll",
        Shell {
            forgets_writes: &[Kind::Revisions],
            ..SOUND
        },
    ),
    shell(
        "gives-up",
        "a round that failed is not repeated",
        "refusals-roll",
        Shell {
            gives_up: true,
            ..SOUND
        },
    ),
    shell(
        "ploughs-on",
        "a lane goes on after one of its steps failed",
        "refusals-claims",
        Shell {
            ploughs_on: true,
            ..SOUND
        },
    ),
    shell(
        "prologue-optional",
        "the stages are sent even when the prologue failed",
        "refusals-roll",
        Shell {
            skips_prologue: true,
            ..SOUND
        },
    ),
    shell(
        "stages-optional",
        "the next stage is sent even when one failed",
        "refusals-claims-scale",
        Shell {
            skips_stages: true,
            ..SOUND
        },
    ),
    shell(
        "sleeps-after-restart",
        "after a restart it waits for something to change",
        "crashes-roll",
        Shell {
            sleeps_after_restart: true,
            ..SOUND
        },
    ),
    does(
        "update-before-its-revision",
        "an update begins before its revision is stored",
        "ordered-roll",
        |_, plan| {
            swap_ops(
                plan,
                |op| matches!(op, Op::CreateRevision { .. }),
                |op| matches!(op, Op::DeletePod { .. }),
            );
        },
    ),
    sees(
        "stranger-overruled",
        "a claim that another controls counts as nobody's",
        "ordered-claims-stranger",
        |view| {
            view.claims = view.claims.map(|claim| {
                claim.map(|claim| Claim {
                    owner: match claim.owner {
                        Owner::Stranger => Owner::Nobody,
                        Owner::Nobody | Owner::Set(_) | Owner::Pod(_) => claim.owner,
                    },
                    ..claim
                })
            });
        },
    ),
    Mutant {
        through_fault: false,
        ..shell(
            "version-forgotten",
            "owners of claims are written over whatever was written meanwhile",
            "ordered-claims-stranger",
            Shell {
                careless: Careless {
                    uid: false,
                    version: true,
                },
                ..SOUND
            },
        )
    },
    sees(
        "retention-edit-missed",
        "a retention policy that the user took back still counts",
        "ordered-claims-spared",
        |view| {
            (view.settings.delete_with_set, view.settings.delete_with_pod) = (true, true);
        },
    ),
    Mutant {
        through_fault: false,
        ..does(
            "pod-goes-before-its-claim",
            "a condemned pod is deleted before its claim is given to it",
            "crashes-claims-scale",
            |_, plan| {
                swap_ops(
                    plan,
                    |op| matches!(op, Op::PatchClaim { .. }),
                    |op| matches!(op, Op::DeletePod { .. }),
                );
            },
        )
    },
];

fn every_pod(view: &mut View, change: impl Fn(&mut Pod)) {
    view.pods.iter_mut().flatten().for_each(change);
}

fn ready(life: Life) -> Life {
    match life {
        Life::Pending | Life::Bound | Life::Running => Life::Ready,
        Life::Ready | Life::Aged | Life::Failed => life,
    }
}

/// Exchanges the first call of one sort with the first of another, if the plan has both.
fn swap_ops(plan: &mut [Entry], one: fn(&Op) -> bool, other: fn(&Op) -> bool) {
    let place = |wanted: fn(&Op) -> bool| plan.iter().position(|entry| wanted(&entry.op));
    if let (Some(one), Some(other)) = (place(one), place(other)) {
        (plan[one].op, plan[other].op) = (plan[other].op, plan[one].op);
    }
}

/// Turns the first delete of such an ordinal to the lowest of them.
fn redirect(view: &View, plan: &mut [Entry], such: fn(&View, usize) -> bool) {
    let lowest =
        (0..view.pods.len()).find(|&ordinal| view.pods[ordinal].is_some() && such(view, ordinal));
    let Some((lowest, pod)) = lowest.and_then(|lowest| Some((lowest, view.pods[lowest]?))) else {
        return;
    };
    for entry in plan {
        if let Op::DeletePod { ordinal, uid } = &mut entry.op
            && such(view, usize::from(*ordinal))
        {
            (*ordinal, *uid) = (lowest as u8, pod.uid);
            return;
        }
    }
}

/// Adds a delete before the closing.
fn add_delete(view: &View, plan: &mut Vec<Entry>, ordinal: usize) {
    let Some(pod) = view.pods[ordinal] else {
        return;
    };
    let at = plan
        .iter()
        .position(|entry| entry.part == Part::Closing)
        .unwrap_or(plan.len());
    plan.insert(
        at,
        Entry {
            part: Part::Stages,
            wave: 20,
            lane: 0,
            op: Op::DeletePod {
                ordinal: ordinal as u8,
                uid: pod.uid,
            },
        },
    );
}

/// How a mutant fared.
pub struct Hunt {
    /// It was caught, and where faults are what shows it, went unnoticed without.
    pub caught: bool,
    /// In words.
    pub verdict: String,
    /// The shortest way to where it was caught.
    pub failure: Option<Failure>,
}

/// Lets a mutant loose in its world.
pub fn hunt(mutant: &Mutant) -> Hunt {
    let Some(world) = matrix()
        .into_iter()
        .find(|world| world.name == mutant.world)
    else {
        return Hunt {
            caught: false,
            verdict: format!("there is no world {}", mutant.world),
            failure: None,
        };
    };
    let report = explore(&world, mutant);
    let Some(failure) = report.failure else {
        let verdict = format!(
            "NOT CAUGHT in world {} ({} states)",
            world.name, report.states
        );
        return Hunt {
            caught: false,
            verdict,
            failure: None,
        };
    };
    let mut verdict = format!(
        "caught in world {} after {} states: {}: {}",
        world.name, report.states, failure.violation.rule, failure.violation.what
    );
    let mut caught = true;
    if mutant.through_fault {
        let calm = explore(&world.without_faults(), mutant);
        caught = calm.failure.is_none();
        verdict += if caught {
            "; without faults nothing shows"
        } else {
            "; but it shows WITHOUT A FAULT as well"
        };
    }
    Hunt {
        caught,
        verdict,
        failure: Some(failure),
    }
}
