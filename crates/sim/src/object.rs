//! What the small API stores: the facts of objects that decide anything, in bytes instead of JSON.

use crate::pass::Pass;

/// Ordinals there can be: 0 to 3.
pub(crate) const ORDINALS: usize = 4;
/// Templates a user can choose from: A, B and C.
pub(crate) const TEMPLATES: usize = 3;

/// How a pod fares, as its status tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    /// No node has it.
    #[default]
    Pending,
    /// A node has it and starts it; its phase is still Pending.
    Bound,
    /// It runs, but is not ready.
    Running,
    /// Ready, not yet for `minReadySeconds`.
    Ready,
    /// Ready for long enough.
    Aged,
    /// Ended for good.
    Failed,
}

/// Who controls an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// Nobody.
    #[default]
    Nobody,
    /// The set with this UID.
    Set(u8),
    /// The pod of the same ordinal with this UID.
    Pod(u8),
    /// Somebody who has nothing to do with the set.
    Stranger,
}

/// A pod of an ordinal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Pod {
    pub(crate) uid: u8,
    pub(crate) revision: u8,
    pub(crate) life: Life,
    pub(crate) terminating: bool,
    pub(crate) owner: Owner,
    /// Somebody took its pod-name label away.
    pub(crate) nameless: bool,
}

/// The one claim of an ordinal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    pub(crate) uid: u8,
    /// Its resourceVersion, up to order.
    pub(crate) version: u8,
    pub(crate) terminating: bool,
    pub(crate) owner: Owner,
}

/// The ControllerRevision of a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Revision {
    pub(crate) uid: u8,
    pub(crate) number: u8,
    pub(crate) owner: Owner,
}

/// How a set is being deleted while it is still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Deleting {
    /// It is not.
    #[default]
    No,
    /// It goes after its dependents.
    Foreground,
    /// It goes after its dependents have been let go.
    Orphan,
}

/// The set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Set {
    pub(crate) uid: u8,
    /// Its resourceVersion, up to order.
    pub(crate) version: u8,
    pub(crate) generation: u8,
    pub(crate) replicas: u8,
    pub(crate) start: u8,
    pub(crate) template: u8,
    pub(crate) partition: u8,
    pub(crate) deleting: Deleting,
    /// What becomes of claims, once the user has edited it; the world's settings until then.
    pub(crate) retention: Option<Retention>,
    pub(crate) status: Status,
}

/// `persistentVolumeClaimRetentionPolicy`, as the user edits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Retention {
    /// `whenDeleted: Delete`.
    pub(crate) delete_with_set: bool,
    /// `whenScaled: Delete`.
    pub(crate) delete_with_pod: bool,
}

/// The set's stored status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Status {
    pub(crate) observed: u8,
    pub(crate) replicas: u8,
    pub(crate) ready: u8,
    pub(crate) available: u8,
    pub(crate) current: u8,
    pub(crate) updated: u8,
    pub(crate) current_revision: Option<u8>,
    pub(crate) update_revision: Option<u8>,
}

pub(crate) type Pods = [Option<Pod>; ORDINALS];
pub(crate) type Claims = [Option<Claim>; ORDINALS];
pub(crate) type Revisions = [Option<Revision>; TEMPLATES];

/// The kinds of objects, each with a watch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Sets,
    Pods,
    Claims,
    Revisions,
}

pub(crate) const KINDS: [Kind; 4] = [Kind::Sets, Kind::Pods, Kind::Claims, Kind::Revisions];

impl Kind {
    /// Its place in a controller's positions.
    pub(crate) fn index(self) -> usize {
        match self {
            Kind::Sets => 0,
            Kind::Pods => 1,
            Kind::Claims => 2,
            Kind::Revisions => 3,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Sets => "sets",
            Kind::Pods => "pods",
            Kind::Claims => "claims",
            Kind::Revisions => "revisions",
        }
    }
}

/// An identity that means nothing but to be the same or another: renumbered by age in every state, so that worlds that
/// differ only in names are one world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    PodUid(usize),
    ClaimUid(usize),
    ClaimVersion(usize),
    RevisionUid(usize),
    SetVersion,
}

/// Kinds of identities there are, for a table by [`Id::index`].
pub(crate) const IDS: usize = 3 * ORDINALS + TEMPLATES + 1;

impl Id {
    pub(crate) fn index(self) -> usize {
        match self {
            Id::PodUid(ordinal) => ordinal,
            Id::ClaimUid(ordinal) => ORDINALS + ordinal,
            Id::ClaimVersion(ordinal) => 2 * ORDINALS + ordinal,
            Id::RevisionUid(template) => 3 * ORDINALS + template,
            Id::SetVersion => 3 * ORDINALS + TEMPLATES,
        }
    }
}

/// Something that mentions identities.
pub(crate) trait Mentions {
    /// Shows every identity mentioned.
    fn ids(&mut self, each: &mut impl FnMut(Id, &mut u8));
}

impl Mentions for Option<Set> {
    fn ids(&mut self, each: &mut impl FnMut(Id, &mut u8)) {
        if let Some(set) = self {
            each(Id::SetVersion, &mut set.version);
        }
    }
}

impl Mentions for Pods {
    fn ids(&mut self, each: &mut impl FnMut(Id, &mut u8)) {
        for (ordinal, pod) in self.iter_mut().enumerate() {
            if let Some(pod) = pod {
                each(Id::PodUid(ordinal), &mut pod.uid);
            }
        }
    }
}

impl Mentions for Claims {
    fn ids(&mut self, each: &mut impl FnMut(Id, &mut u8)) {
        for (ordinal, claim) in self.iter_mut().enumerate() {
            if let Some(claim) = claim {
                each(Id::ClaimUid(ordinal), &mut claim.uid);
                each(Id::ClaimVersion(ordinal), &mut claim.version);
                claim.owner.ids(ordinal, each);
            }
        }
    }
}

impl Mentions for Revisions {
    fn ids(&mut self, each: &mut impl FnMut(Id, &mut u8)) {
        for (template, revision) in self.iter_mut().enumerate() {
            if let Some(revision) = revision {
                each(Id::RevisionUid(template), &mut revision.uid);
            }
        }
    }
}

impl Owner {
    pub(crate) fn ids(&mut self, ordinal: usize, each: &mut impl FnMut(Id, &mut u8)) {
        match self {
            Owner::Pod(uid) => each(Id::PodUid(ordinal), uid),
            Owner::Nobody | Owner::Set(_) | Owner::Stranger => {}
        }
    }

    pub(crate) fn pass(&mut self, pass: &mut impl Pass) {
        let (mut code, mut uid) = match *self {
            Owner::Nobody => (0, 0),
            Owner::Set(uid) => (1, uid),
            Owner::Pod(uid) => (2, uid),
            Owner::Stranger => (3, 0),
        };
        pass.bits(&mut code, 2);
        if code == 1 || code == 2 {
            pass.bits(&mut uid, 4);
        }
        *self = match code {
            0 => Owner::Nobody,
            1 => Owner::Set(uid),
            2 => Owner::Pod(uid),
            _ => Owner::Stranger,
        };
    }
}

impl Pod {
    pub(crate) fn is_ready(&self) -> bool {
        match self.life {
            Life::Ready | Life::Aged => true,
            Life::Pending | Life::Bound | Life::Running | Life::Failed => false,
        }
    }

    pub(crate) fn pass(&mut self, pass: &mut impl Pass) {
        pass.bits(&mut self.uid, 4);
        pass.bits(&mut self.revision, 2);
        let mut life = match self.life {
            Life::Pending => 0,
            Life::Running => 1,
            Life::Ready => 2,
            Life::Aged => 3,
            Life::Failed => 4,
            Life::Bound => 5,
        };
        pass.bits(&mut life, 3);
        self.life = match life {
            0 => Life::Pending,
            1 => Life::Running,
            2 => Life::Ready,
            3 => Life::Aged,
            4 => Life::Failed,
            _ => Life::Bound,
        };
        pass.flag(&mut self.terminating);
        pass.flag(&mut self.nameless);
        self.owner.pass(pass);
    }
}

impl Claim {
    pub(crate) fn pass(&mut self, pass: &mut impl Pass) {
        pass.bits(&mut self.uid, 4);
        pass.bits(&mut self.version, 4);
        pass.flag(&mut self.terminating);
        self.owner.pass(pass);
    }
}

impl Revision {
    pub(crate) fn pass(&mut self, pass: &mut impl Pass) {
        pass.bits(&mut self.uid, 4);
        pass.bits(&mut self.number, 4);
        self.owner.pass(pass);
    }
}

impl Status {
    pub(crate) fn pass(&mut self, pass: &mut impl Pass) {
        let Self {
            observed,
            replicas,
            ready,
            available,
            current,
            updated,
            current_revision,
            update_revision,
        } = self;
        pass.bits(observed, 4);
        for count in [replicas, ready, available, current, updated] {
            pass.bits(count, 3);
        }
        for revision in [current_revision, update_revision] {
            pass.option(revision, |template, pass| pass.bits(template, 2));
        }
    }
}

impl Set {
    pub(crate) fn pass(&mut self, pass: &mut impl Pass) {
        pass.bits(&mut self.uid, 2);
        pass.bits(&mut self.version, 4);
        pass.bits(&mut self.generation, 4);
        pass.bits(&mut self.replicas, 3);
        pass.bits(&mut self.start, 2);
        pass.bits(&mut self.template, 2);
        pass.bits(&mut self.partition, 3);
        let mut deleting = match self.deleting {
            Deleting::No => 0,
            Deleting::Foreground => 1,
            Deleting::Orphan => 2,
        };
        pass.bits(&mut deleting, 2);
        self.deleting = match deleting {
            0 => Deleting::No,
            1 => Deleting::Foreground,
            _ => Deleting::Orphan,
        };
        pass.option(&mut self.retention, |retention, pass| {
            pass.flag(&mut retention.delete_with_set);
            pass.flag(&mut retention.delete_with_pod);
        });
        self.status.pass(pass);
    }

    /// The ordinal is wanted.
    pub(crate) fn wants(&self, ordinal: usize) -> bool {
        self.ordinals().contains(&ordinal)
    }

    /// The wanted ordinals.
    pub(crate) fn ordinals(&self) -> std::ops::Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.replicas)
    }
}
