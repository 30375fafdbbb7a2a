//! A PersistentVolumeClaim as decisions see it: whether it is going, and who owns it.

use std::sync::Arc;

use serde_json::Value;

use super::fields::{Fields, Wrong, name_of};
use super::{Malformed, Resource};
use crate::json::Json;

/// The facts of a claim that decisions read. Size, class and labels are nobody's business here: a claim is taken as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`: a change of owners must not overwrite one that was not seen.
    pub resource_version: Arc<str>,
    /// `metadata.deletionTimestamp` is set: the claim and its data are going.
    pub terminating: bool,
    /// `metadata.ownerReferences`, in their order.
    pub owners: Arc<[OwnerReference]>,
}

/// An owner reference of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerReference {
    /// What the owner is.
    pub role: OwnerRole,
    /// Name of the owner.
    pub name: Arc<str>,
    /// UID of the owner.
    pub uid: Arc<str>,
    /// It controls.
    pub controller: bool,
    /// The reference as it stands, so that a stranger's is kept to the letter.
    pub raw: Json,
}

/// The kinds of owners that retention knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerRole {
    /// A StatefulSet of `apps/v1`.
    AppsSet,
    /// A StatefulSet of `stead.dev/v1`.
    SteadSet,
    /// A pod.
    Pod,
    /// Anything else.
    Stranger,
}

impl OwnerRole {
    pub(crate) fn of(api_version: &str, kind: &str) -> OwnerRole {
        match (api_version, kind) {
            ("apps/v1", "StatefulSet") => OwnerRole::AppsSet,
            ("stead.dev/v1", "StatefulSet") => OwnerRole::SteadSet,
            ("v1", "Pod") => OwnerRole::Pod,
            (_, _) => OwnerRole::Stranger,
        }
    }
}

impl Claim {
    /// Reads a claim's facts from its JSON.
    ///
    /// # Errors
    /// The first field that has a wrong type, or a missing name.
    pub fn parse(claim: &Value) -> Result<Claim, Malformed> {
        facts(claim).map_err(|why| Malformed {
            resource: Resource::Claims,
            name: name_of(claim),
            why,
        })
    }
}

fn facts(claim: &Value) -> Result<Claim, Wrong> {
    let fields = Fields::of(claim);
    let owners = fields.list(&["metadata", "ownerReferences"])?;
    Ok(Claim {
        name: fields.required_text(&["metadata", "name"])?.into(),
        uid: fields.text(&["metadata", "uid"])?.into(),
        resource_version: fields.text(&["metadata", "resourceVersion"])?.into(),
        terminating: fields.has(&["metadata", "deletionTimestamp"]),
        owners: owners
            .iter()
            .map(OwnerReference::parse)
            .collect::<Result<_, Wrong>>()?,
    })
}

impl OwnerReference {
    pub(crate) fn parse(reference: &Value) -> Result<OwnerReference, Wrong> {
        let fields = Fields::of(reference);
        Ok(OwnerReference {
            role: OwnerRole::of(fields.text(&["apiVersion"])?, fields.text(&["kind"])?),
            name: fields.text(&["name"])?.into(),
            uid: fields.text(&["uid"])?.into(),
            controller: fields.at(&["controller"]) == Some(&Value::Bool(true)),
            raw: Json::new(reference.clone()),
        })
    }
}
