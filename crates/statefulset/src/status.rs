//! The status of a set after a decision: counted anew each time, never carried along but for its conditions.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::observed::{Observed, Set};
use crate::replica::Member;
use crate::revision::Revisions;

/// `StatefulSetStatus` without its conditions, which a decision neither reads nor writes: whoever put them there keeps them.
///
/// upstream: up to 1.36 a status write wiped them; since 1.37 they are copied forward.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Status {
    /// Generation of the set that was decided about.
    pub observed_generation: i64,
    /// Pods that exist, terminating ones too.
    pub replicas: u32,
    /// Of these, running and ready.
    pub ready_replicas: u32,
    /// Of these, ready for at least `minReadySeconds`.
    pub available_replicas: u32,
    /// Pods that stay and have the current revision.
    pub current_replicas: u32,
    /// Pods that stay and have the update revision.
    pub updated_replicas: u32,
    /// Name of the revision that the set comes from.
    pub current_revision: Option<Arc<str>>,
    /// Name of the revision that the set goes to.
    pub update_revision: Option<Arc<str>>,
    /// How often a revision's name was taken by other data. `None`: never counted.
    pub collision_count: Option<i32>,
}

impl Status {
    /// Counts these members. upstream: updateStatus, computeReplicaStatus.
    pub(crate) fn count<'a>(
        seen: &Observed,
        revisions: &Revisions,
        members: impl Iterator<Item = &'a Member<'a>>,
    ) -> Status {
        let mut status = Status {
            observed_generation: seen.set.generation,
            current_revision: Some(revisions.current.name.clone()),
            update_revision: Some(revisions.update.name.clone()),
            collision_count: Some(revisions.collision_count),
            ..Status::default()
        };
        members.for_each(|member| status.add(member));
        status
    }

    fn add(&mut self, member: &Member<'_>) {
        let tally =
            |counter: &mut u32, holds: bool| *counter = counter.saturating_add(u32::from(holds));
        let stays = member.created && !member.terminating;
        tally(&mut self.replicas, member.created);
        tally(&mut self.ready_replicas, member.ready);
        tally(
            &mut self.available_replicas,
            member.ready && member.available,
        );
        tally(&mut self.current_replicas, stays && member.current);
        tally(&mut self.updated_replicas, stays && member.updated);
    }

    /// The update revision becomes the current one when every wanted pod has it and is ready.
    ///
    /// upstream: completeUpdate; 1.37 under any strategy. Availability is not asked for (kubernetes#136831).
    pub(crate) fn promote(&mut self, wanted: u32) {
        if self.updated_replicas == wanted
            && self.ready_replicas == wanted
            && self.replicas == wanted
        {
            self.current_replicas = self.updated_replicas;
            self.current_revision = self.update_revision.clone();
        }
    }

    /// Something differs from the stored status that is worth a write. upstream: inconsistentStatus.
    pub(crate) fn differs_from(&self, stored: &Status) -> bool {
        let Self {
            observed_generation,
            replicas,
            ready_replicas,
            available_replicas,
            current_replicas,
            updated_replicas,
            current_revision,
            update_revision,
            collision_count: _, // upstream leaves it out, and it never changes alone.
        } = self;
        *observed_generation > stored.observed_generation
            || *replicas != stored.replicas
            || *ready_replicas != stored.ready_replicas
            || *available_replicas != stored.available_replicas
            || *current_replicas != stored.current_replicas
            || *updated_replicas != stored.updated_replicas
            || *current_revision != stored.current_revision
            || *update_revision != stored.update_revision
    }

    /// The merge patch for the set's `status` subresource; it holds no conditions, so it leaves them alone.
    pub(crate) fn patch(&self, set: &Set) -> Value {
        let Self {
            observed_generation,
            replicas,
            ready_replicas,
            available_replicas,
            current_replicas,
            updated_replicas,
            current_revision,
            update_revision,
            collision_count,
        } = self;
        // What upstream omits when it is zero is taken away here, so that the stored object is the same.
        let omit_zero = |count: &u32| (*count > 0).then_some(*count);
        json!({
            "metadata": {"uid": &*set.uid, "resourceVersion": &*set.resource_version},
            "status": {
                "observedGeneration": observed_generation,
                "replicas": replicas,
                "readyReplicas": omit_zero(ready_replicas),
                "availableReplicas": available_replicas,
                "currentReplicas": omit_zero(current_replicas),
                "updatedReplicas": omit_zero(updated_replicas),
                "currentRevision": current_revision.as_deref(),
                "updateRevision": update_revision.as_deref(),
                "collisionCount": collision_count,
            }
        })
    }
}
