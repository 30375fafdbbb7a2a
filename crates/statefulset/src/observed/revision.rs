//! A ControllerRevision as decisions see it: a numbered template that was once the set's.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::fields::{Fields, Wrong, name_of};
use super::pod::{controller, labels};
use super::{Controller, Malformed, Pairs, Resource};
use crate::identity::HASH_LABEL;
use crate::json::Json;

/// The facts of a ControllerRevision that decisions read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// `metadata.name`, which is also the value of its pods' revision label.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `revision`: the highest is the newest.
    pub number: i64,
    /// `metadata.creationTimestamp`: settles the order of equal numbers.
    pub created: Option<Timestamp>,
    /// `metadata.labels`.
    pub labels: Pairs,
    /// The owner reference that controls, if any.
    pub controller: Option<Controller>,
    /// `data`: `{"spec":{"template":{..,"$patch":"replace"}}}`.
    pub data: Json,
}

impl Revision {
    /// Reads a revision's facts from its JSON.
    ///
    /// # Errors
    /// The first field that has a wrong type, or a missing name.
    pub fn parse(revision: &Value) -> Result<Revision, Malformed> {
        facts(revision).map_err(|why| Malformed {
            resource: Resource::Revisions,
            name: name_of(revision),
            why,
        })
    }

    /// The hash label where it is a number, which upstream compares before it compares data. upstream: EqualRevision.
    pub(crate) fn numeric_hash(&self) -> Option<i32> {
        self.labels.get(HASH_LABEL)?.parse().ok()
    }
}

fn facts(revision: &Value) -> Result<Revision, Wrong> {
    let fields = Fields::of(revision);
    Ok(Revision {
        name: fields.required_text(&["metadata", "name"])?.into(),
        uid: fields.text(&["metadata", "uid"])?.into(),
        number: fields.number(&["revision"])?.unwrap_or_default(),
        created: fields.time(&["metadata", "creationTimestamp"])?,
        labels: labels(fields)?,
        controller: controller(fields)?,
        data: Json::new(fields.at(&["data"]).cloned().unwrap_or_default()),
    })
}
