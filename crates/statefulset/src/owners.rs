//! The owners that a claim shall have: those of others as they stand, then the set or the pod; written out only when they are sent.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::identity;
use crate::json::Json;
use crate::observed::{Claim, Set};

/// All `ownerReferences` that a claim shall have, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owners {
    /// References to others, to the letter.
    pub others: Box<[Json]>,
    /// The owner that the retention policy gives it. `None`: none of ours, nothing of the set deletes it.
    pub ours: Option<Owner>,
}

/// The owners that the retention policy knows; both control.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The set: the claim goes with it.
    Set {
        /// Name of the set.
        name: Arc<str>,
        /// UID of the set.
        uid: Arc<str>,
    },
    /// The condemned pod: the claim goes with it.
    Pod {
        /// Name of the pod.
        name: Arc<str>,
        /// UID of the pod.
        uid: Arc<str>,
    },
}

impl Owner {
    /// UID of the owner.
    pub fn uid(&self) -> &Arc<str> {
        match self {
            Owner::Set { uid, .. } | Owner::Pod { uid, .. } => uid,
        }
    }

    /// The reference to it. `set` is the one that the decision is about.
    pub(crate) fn reference(&self, set: &Set) -> Value {
        match self {
            Owner::Set { .. } => identity::set_reference(set),
            Owner::Pod { name, uid } => identity::pod_reference(name, uid),
        }
    }
}

impl Owners {
    /// The claim has these owners already, to the letter.
    pub(crate) fn stand_on(&self, claim: &Claim, set: &Set) -> bool {
        let (others, ours) = claim
            .owners
            .split_at(self.others.len().min(claim.owners.len()));
        let same_others = others.iter().map(|owner| &owner.raw).eq(self.others.iter());
        let same_ours = match (ours, &self.ours) {
            ([], None) => true,
            // The UID is asked first, for it nearly always tells.
            ([only], Some(owner)) => {
                only.uid == *owner.uid() && *only.raw.value() == owner.reference(set)
            }
            (_, _) => false,
        };
        same_others && same_ours
    }

    /// The references as they are sent.
    pub fn references(&self, set: &Set) -> Vec<Value> {
        let others = self.others.iter().map(|other| other.value().clone());
        let ours = self.ours.iter().map(|owner| owner.reference(set));
        others.chain(ours).collect()
    }
}

impl fmt::Display for Owners {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { others, ours } = self;
        if others.is_empty() && ours.is_none() {
            return out.write_str("nobody");
        }
        let mut separator = "";
        for other in others {
            let word = |key| other.get(key).and_then(Value::as_str).unwrap_or_default();
            write!(out, "{separator}{} {}", word("kind"), word("name"))?;
            separator = ", ";
        }
        match ours {
            Some(Owner::Set { name, .. }) => write!(out, "{separator}StatefulSet {name}"),
            Some(Owner::Pod { name, .. }) => write!(out, "{separator}Pod {name}"),
            None => Ok(()),
        }
    }
}
