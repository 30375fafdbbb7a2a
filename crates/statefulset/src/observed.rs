//! What was seen of one set and its surroundings, parsed once at the edge: after this no decision meets raw JSON by surprise.

mod claim;
mod fields;
mod pairs;
mod pod;
mod revision;
mod set;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

pub use claim::{Claim, OwnerReference, OwnerRole};
pub use pairs::Pairs;
pub use pod::{Controller, Phase, Pod, Ready};
pub use revision::Revision;
pub use set::{
    ClaimTemplate, Management, MaxUnavailable, Retention, RetentionPolicy, Rolling, Set, Strategy,
};

use crate::identity::Ordinal;

/// Everything that a decision about one set reads. Canonical (equal worlds compare and hash equal) and cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    /// The set: its spec, its metadata and the status that is stored.
    pub set: Arc<Set>,
    /// The namespace's pods that matter here, by name: owned by the set, or bearing a name of its pods, whoever owns them.
    pub pods: BTreeMap<Arc<str>, Arc<Pod>>,
    /// The namespace's claims that bear the name of one of the set's claims, by their place.
    pub claims: BTreeMap<Place, Arc<Claim>>,
    /// The namespace's ControllerRevisions: owned by the set, matched by its selector, or bearing a name that a new one could take.
    pub revisions: BTreeMap<Arc<str>, Arc<Revision>>,
    /// The instant of the decision.
    pub now: Timestamp,
    /// Read-your-writes: how far the caches have come, and how far they must have.
    pub freshness: Freshness,
    /// Objects that could not be understood. One is enough to stop the set.
    pub malformed: Vec<Malformed>,
}

/// The JSON objects of one namespace, as listed or as watched.
///
/// Hand in all that may be relevant, or simply all there are: what does not concern the set is left out here, by the rules in
/// [`Observed`]'s fields.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    /// The StatefulSet.
    pub set: &'a Value,
    /// Pods of its namespace.
    pub pods: &'a [Value],
    /// PersistentVolumeClaims of its namespace.
    pub claims: &'a [Value],
    /// ControllerRevisions of its namespace.
    pub revisions: &'a [Value],
}

impl Observed {
    /// Parses and chooses what concerns the set. Total: an odd object becomes a [`Malformed`], never an error.
    pub fn parse(objects: Objects<'_>, now: Timestamp, freshness: Freshness) -> Observed {
        let mut malformed = Vec::new();
        let set = Set::parse(objects.set, &mut malformed);
        let pods = parsed(objects.pods, Pod::parse, &mut malformed);
        let claims = parsed(objects.claims, Claim::parse, &mut malformed);
        let revisions = parsed(objects.revisions, Revision::parse, &mut malformed);
        let mut seen = Observed::new(Arc::new(set), pods, claims, revisions, now, freshness);
        seen.note_malformed(malformed);
        seen
    }

    /// Adds what could not be parsed, as far as it may concern the set by its name. Such an object stops the set: whether it holds
    /// an identity, data or a revision cannot be known.
    pub fn note_malformed(&mut self, malformed: impl IntoIterator<Item = Malformed>) {
        let set = self.set.clone();
        self.malformed.extend(
            malformed
                .into_iter()
                .filter(|odd| set.is_concerned_by_malformed(odd)),
        );
        self.malformed.sort();
    }

    /// Chooses what concerns the set among objects that were parsed before; for a cache that keeps facts instead of JSON.
    pub fn new(
        set: Arc<Set>,
        pods: impl IntoIterator<Item = Arc<Pod>>,
        claims: impl IntoIterator<Item = Arc<Claim>>,
        revisions: impl IntoIterator<Item = Arc<Revision>>,
        now: Timestamp,
        freshness: Freshness,
    ) -> Observed {
        let pods = pods.into_iter().filter(|pod| set.is_concerned_by_pod(pod));
        let placed = |claim: Arc<Claim>| Some((set.place_of_claim(&claim.name)?, claim));
        let mut claims: Vec<_> = claims.into_iter().filter_map(placed).collect();
        // Sorted first, a map is built in one go.
        claims.sort_unstable_by_key(|(place, _)| *place);
        let revisions = revisions
            .into_iter()
            .filter(|revision| set.is_concerned_by_revision(revision));
        Observed {
            pods: pods.map(|pod| (pod.name.clone(), pod)).collect(),
            claims: claims.into_iter().collect(),
            revisions: revisions
                .map(|revision| (revision.name.clone(), revision))
                .collect(),
            set,
            now,
            freshness,
            malformed: Vec::new(),
        }
    }

    /// The claims of an ordinal that there are, in the order of their templates.
    pub fn claims_of(&self, ordinal: Ordinal) -> impl Iterator<Item = &Arc<Claim>> {
        self.placed_claims_of(ordinal).map(|(_, claim)| claim)
    }

    /// The same, each with its place.
    pub(crate) fn placed_claims_of(
        &self,
        ordinal: Ordinal,
    ) -> impl Iterator<Item = (Place, &Arc<Claim>)> {
        let first = Place {
            ordinal,
            template: 0,
        };
        let last = Place {
            ordinal,
            template: u32::MAX,
        };
        self.claims
            .range(first..=last)
            .map(|(place, claim)| (*place, claim))
    }
}

/// Whose claim it is: the ordinal's, from a claim template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The ordinal.
    pub ordinal: Ordinal,
    /// Index in [`Set::claim_templates`].
    pub template: u32,
}

fn parsed<T>(
    objects: &[Value],
    parse: fn(&Value) -> Result<T, Malformed>,
    malformed: &mut Vec<Malformed>,
) -> Vec<Arc<T>> {
    let mut good = Vec::with_capacity(objects.len());
    for object in objects {
        match parse(object) {
            Ok(object) => good.push(Arc::new(object)),
            Err(odd) => malformed.push(odd),
        }
    }
    good
}

/// An object that does not have the shape its kind has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Malformed {
    /// Which list the object came from.
    pub resource: Resource,
    /// Its name, as far as it has one.
    pub name: Arc<str>,
    /// The field and what is wrong with it.
    pub why: Arc<str>,
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resource,
            name,
            why,
        } = self;
        write!(out, "{}/{name}: {why}", resource.plural())
    }
}

/// The kinds of objects that a StatefulSet controller reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `statefulsets`, of the set's own group.
    StatefulSets,
    /// `pods`.
    Pods,
    /// `persistentvolumeclaims`.
    Claims,
    /// `controllerrevisions` of `apps/v1`.
    Revisions,
}

impl Resource {
    /// The resource's name in a URL.
    pub fn plural(self) -> &'static str {
        match self {
            Resource::StatefulSets => "statefulsets",
            Resource::Pods => "pods",
            Resource::Claims => "persistentvolumeclaims",
            Resource::Revisions => "controllerrevisions",
        }
    }
}

/// For each cache, the newest write of our own for this set and the newest change that the cache has shown.
///
/// A decision taken before the cache shows our own writes would repeat them (create what exists, delete a successor), so
/// [`decide`](crate::decide) waits instead. upstream: KEP-5647, which leaves out revisions and deletes; the marks here are for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Freshness {
    /// The set, whose status we write.
    pub set: Mark,
    /// Pods.
    pub pods: Mark,
    /// PersistentVolumeClaims.
    pub claims: Mark,
    /// ControllerRevisions.
    pub revisions: Mark,
}

impl Freshness {
    /// The first cache that does not yet show what we wrote.
    pub fn behind(&self) -> Option<(Resource, Mark)> {
        let Self {
            set,
            pods,
            claims,
            revisions,
        } = *self;
        let marks = [
            (Resource::StatefulSets, set),
            (Resource::Pods, pods),
            (Resource::Claims, claims),
            (Resource::Revisions, revisions),
        ];
        marks.into_iter().find(|(_, mark)| mark.seen < mark.wrote)
    }
}

/// Two resourceVersions of one resource; both 0 where nothing was written, and where a version is no number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The newest resourceVersion that an answer to one of our own writes (creates, patches, deletes) carried.
    pub wrote: u64,
    /// The newest resourceVersion that the cache has seen: of an event, a bookmark or a list.
    pub seen: u64,
}
