//! The API as far as a StatefulSet controller meets it: what a call does to the objects, or why it is refused.
//!
//! Its tests compare it with the embedded API server, call by call.

use crate::object::{Claim, Deleting, Id, Kind, Life, Owner, Pod, Revision};
use crate::op::Op;
use crate::state::State;
use crate::world::World;

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 404.
    NotFound,
    /// 409 AlreadyExists.
    AlreadyExists,
    /// 409 Conflict: another UID, another resourceVersion.
    Conflict,
    /// 422 Invalid: a patch of another UID, a second controlling owner.
    Invalid,
}

/// What a call that was accepted did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// The kind whose cache must show the reply's resourceVersion, and the place of that version in its stream.
    pub(crate) wrote: Option<(Kind, u8)>,
    /// It hit an object of another UID than the one it names.
    pub(crate) strayed: bool,
}

/// Preconditions that a broken controller leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Careless {
    /// Deletes and patches carry no UID.
    pub(crate) uid: bool,
    /// Patches carry no resourceVersion.
    pub(crate) version: bool,
}

const NOTHING: Done = Done {
    wrote: None,
    strayed: false,
};

/// Carries a call of the set `set` out.
pub(crate) fn carry_out(
    state: &mut State,
    world: &World,
    set: u8,
    op: Op,
    careless: Careless,
) -> Result<Done, Refusal> {
    match op {
        Op::CheckSet => match state.sets.now() {
            Some(there) if there.uid == set && there.deleting == Deleting::No => Ok(NOTHING),
            Some(_) => Err(Refusal::Conflict),
            None => Err(Refusal::NotFound),
        },
        Op::AdoptRevision { template, uid } => {
            if is_taken(
                state.revisions.now()[usize::from(template)].map(|it| (it.uid, it.owner)),
                uid,
                set,
            ) {
                return Err(Refusal::Invalid);
            }
            revise(state, world, template, uid, careless, |revision| {
                revision.owner = Owner::Set(set)
            })
        }
        Op::RenumberRevision {
            template,
            uid,
            number,
        } => revise(state, world, template, uid, careless, |revision| {
            revision.number = number
        }),
        Op::CreateRevision { template, number } => {
            create_revision(state, world, set, template, number)
        }
        Op::DeleteRevision { template, uid } => {
            delete_revision(state, world, template, uid, careless)
        }
        Op::AdoptPod { ordinal, uid } => {
            if is_taken(
                state.pods.now()[usize::from(ordinal)].map(|it| (it.uid, it.owner)),
                uid,
                set,
            ) {
                return Err(Refusal::Invalid);
            }
            change_pod(state, world, ordinal, uid, careless, |pod| {
                pod.owner = Owner::Set(set)
            })
        }
        Op::ReleasePod { ordinal, uid } => {
            change_pod(state, world, ordinal, uid, careless, |pod| {
                if pod.owner == Owner::Set(set) {
                    pod.owner = Owner::Nobody;
                }
            })
        }
        Op::UpdatePod { ordinal, uid } => change_pod(state, world, ordinal, uid, careless, |pod| {
            pod.nameless = false
        }),
        Op::CreateClaim { ordinal } => create_claim(state, world, ordinal),
        Op::PatchClaim {
            ordinal,
            uid,
            version,
            owner,
        } => patch_claim(state, world, ordinal, (uid, version), owner, careless),
        Op::CreatePod { ordinal, revision } => create_pod(state, world, set, ordinal, revision),
        Op::DeletePod { ordinal, uid } => delete_pod(state, world, ordinal, uid, careless),
        Op::WriteStatus { version, status } => {
            let Some(mut there) = state.sets.now() else {
                return Err(Refusal::NotFound);
            };
            if there.uid != set || (there.version != version && !careless.version) {
                return Err(Refusal::Conflict);
            }
            if there.status == status {
                return Ok(NOTHING);
            }
            there.status = status;
            there.version = state.fresh(Id::SetVersion);
            state.put_set(world, Some(there));
            Ok(wrote(state, Kind::Sets, false))
        }
    }
}

/// An object of this UID that another set controls: it cannot have a second controller.
fn is_taken(there: Option<(u8, Owner)>, uid: u8, set: u8) -> bool {
    there.is_some_and(|(its, owner)| {
        its == uid && owner != Owner::Nobody && owner != Owner::Set(set)
    })
}

fn wrote(state: &State, kind: Kind, strayed: bool) -> Done {
    Done {
        wrote: Some((kind, state.newest(kind))),
        strayed,
    }
}

/// Changes a revision of this UID.
fn revise(
    state: &mut State,
    world: &World,
    template: u8,
    uid: u8,
    careless: Careless,
    change: impl Fn(&mut Revision),
) -> Result<Done, Refusal> {
    let mut revisions = state.revisions.now();
    let Some(there) = &mut revisions[usize::from(template)] else {
        return Err(Refusal::NotFound);
    };
    if there.uid != uid && !careless.uid {
        return Err(Refusal::Invalid);
    }
    let (before, strayed) = (*there, there.uid != uid);
    change(there);
    if *there == before {
        return Ok(Done {
            wrote: None,
            strayed,
        });
    }
    state.put_revisions(world, revisions);
    Ok(wrote(state, Kind::Revisions, strayed))
}

fn create_revision(
    state: &mut State,
    world: &World,
    set: u8,
    template: u8,
    number: u8,
) -> Result<Done, Refusal> {
    let mut revisions = state.revisions.now();
    let place = &mut revisions[usize::from(template)];
    if place.is_some() {
        return Err(Refusal::AlreadyExists);
    }
    *place = Some(Revision {
        uid: state.fresh(Id::RevisionUid(usize::from(template))),
        number,
        owner: Owner::Set(set),
    });
    state.put_revisions(world, revisions);
    Ok(wrote(state, Kind::Revisions, false))
}

fn delete_revision(
    state: &mut State,
    world: &World,
    template: u8,
    uid: u8,
    careless: Careless,
) -> Result<Done, Refusal> {
    let mut revisions = state.revisions.now();
    let place = &mut revisions[usize::from(template)];
    let Some(there) = *place else {
        return Err(Refusal::NotFound);
    };
    if there.uid != uid && !careless.uid {
        return Err(Refusal::Conflict);
    }
    *place = None;
    state.put_revisions(world, revisions);
    // The reply is a Status without a resourceVersion.
    Ok(Done {
        wrote: None,
        strayed: there.uid != uid,
    })
}

fn create_claim(state: &mut State, world: &World, ordinal: u8) -> Result<Done, Refusal> {
    let at = usize::from(ordinal);
    let mut claims = state.claims.now();
    if claims[at].is_some() {
        return Err(Refusal::AlreadyExists);
    }
    let (uid, version) = (
        state.fresh(Id::ClaimUid(at)),
        state.fresh(Id::ClaimVersion(at)),
    );
    claims[at] = Some(Claim {
        uid,
        version,
        terminating: false,
        owner: Owner::Nobody,
    });
    state.put_claims(world, claims);
    Ok(wrote(state, Kind::Claims, false))
}

fn patch_claim(
    state: &mut State,
    world: &World,
    ordinal: u8,
    (uid, version): (u8, u8),
    owner: Owner,
    careless: Careless,
) -> Result<Done, Refusal> {
    let at = usize::from(ordinal);
    let mut claims = state.claims.now();
    let Some(there) = &mut claims[at] else {
        return Err(Refusal::NotFound);
    };
    if there.version != version && !careless.version {
        return Err(Refusal::Conflict);
    }
    if there.uid != uid && !careless.uid {
        return Err(Refusal::Invalid);
    }
    let strayed = there.uid != uid;
    if there.owner == owner {
        return Ok(Done {
            wrote: None,
            strayed,
        });
    }
    there.owner = owner;
    there.version = state.fresh(Id::ClaimVersion(at));
    state.put_claims(world, claims);
    Ok(wrote(state, Kind::Claims, strayed))
}

fn create_pod(
    state: &mut State,
    world: &World,
    set: u8,
    ordinal: u8,
    revision: u8,
) -> Result<Done, Refusal> {
    let at = usize::from(ordinal);
    let mut pods = state.pods.now();
    if pods[at].is_some() {
        return Err(Refusal::AlreadyExists);
    }
    pods[at] = Some(Pod {
        uid: state.fresh(Id::PodUid(at)),
        revision,
        owner: Owner::Set(set),
        ..Pod::default()
    });
    state.put_pods(world, pods);
    Ok(wrote(state, Kind::Pods, false))
}

fn change_pod(
    state: &mut State,
    world: &World,
    ordinal: u8,
    uid: u8,
    careless: Careless,
    change: impl Fn(&mut Pod),
) -> Result<Done, Refusal> {
    let mut pods = state.pods.now();
    let Some(there) = &mut pods[usize::from(ordinal)] else {
        return Err(Refusal::NotFound);
    };
    if there.uid != uid && !careless.uid {
        return Err(Refusal::Invalid);
    }
    let (before, strayed) = (*there, there.uid != uid);
    change(there);
    if *there == before {
        return Ok(last_change_of(state, ordinal, strayed));
    }
    state.put_pods(world, pods);
    Ok(wrote(state, Kind::Pods, strayed))
}

fn delete_pod(
    state: &mut State,
    world: &World,
    ordinal: u8,
    uid: u8,
    careless: Careless,
) -> Result<Done, Refusal> {
    let Some(there) = state.pods.now()[usize::from(ordinal)] else {
        return Err(Refusal::NotFound);
    };
    if there.uid != uid && !careless.uid {
        return Err(Refusal::Conflict);
    }
    let strayed = there.uid != uid;
    if there.terminating {
        return Ok(last_change_of(state, ordinal, strayed));
    }
    stop_pod(state, world, usize::from(ordinal));
    Ok(wrote(state, Kind::Pods, strayed))
}

/// A write that changed nothing is answered with the version of the object's last change.
fn last_change_of(state: &State, ordinal: u8, strayed: bool) -> Done {
    let at = usize::from(ordinal);
    let places = (1..=state.newest(Kind::Pods)).rev();
    let mut changes =
        places.filter(|&place| state.pods.then(place)[at] != state.pods.then(place - 1)[at]);
    Done {
        wrote: changes.next().map(|place| (Kind::Pods, place)),
        strayed,
    }
}

/// A graceful delete of a pod that is there: one that has ended or that no node has goes at once, others when their node says so.
pub(crate) fn stop_pod(state: &mut State, world: &World, ordinal: usize) {
    let mut pods = state.pods.now();
    if !pods[ordinal].is_some_and(|pod| is_on_node(pod.life)) {
        pods[ordinal] = None;
    } else if let Some(pod) = &mut pods[ordinal] {
        pod.terminating = true;
    }
    state.put_pods(world, pods);
}

/// A delete of a claim: it stays while a pod has it (finalizer kubernetes.io/pvc-protection).
pub(crate) fn delete_claim(state: &mut State, world: &World, ordinal: usize) {
    let mut claims = state.claims.now();
    if is_claim_in_use(state, ordinal) {
        let version = state.fresh(Id::ClaimVersion(ordinal));
        if let Some(claim) = &mut claims[ordinal] {
            (claim.terminating, claim.version) = (true, version);
        }
    } else {
        claims[ordinal] = None;
    }
    state.put_claims(world, claims);
}

/// A pod that a node has, and that has not ended, mounts the claim.
pub(crate) fn is_claim_in_use(state: &State, ordinal: usize) -> bool {
    state.pods.now()[ordinal].is_some_and(|pod| is_on_node(pod.life))
}

fn is_on_node(life: Life) -> bool {
    match life {
        Life::Bound | Life::Running | Life::Ready | Life::Aged => true,
        Life::Pending | Life::Failed => false,
    }
}

#[cfg(test)]
mod tests;
