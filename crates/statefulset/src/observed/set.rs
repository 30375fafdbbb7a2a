//! The set as decisions see it: what is wanted, how, and what its stored status says.

use std::sync::Arc;

use serde_json::Value;

use super::fields::{Fields, Wrong, name_of};
use super::{Malformed, Pairs, Place, Pod, Resource, Revision};
use crate::identity::Ordinal;
use crate::json::Json;
use crate::revision;
use crate::status::Status;

/// A StatefulSet, of `apps/v1` or `stead.dev/v1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Set {
    /// `apiVersion`; `apps/v1` where the object carries none, as in lists.
    pub api_version: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`.
    pub resource_version: Arc<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.deletionTimestamp` is set: its pods are the garbage collector's now.
    pub deleting: bool,
    /// `metadata.annotations`, which a new revision inherits (change-cause travels in them).
    pub annotations: Json,
    /// `spec.replicas`.
    pub replicas: u32,
    /// `spec.ordinals.start`.
    pub start: u32,
    /// `spec.selector.matchLabels`, which new claims are labelled with.
    pub match_labels: Json,
    /// `spec.selector`, parsed.
    pub selector: Selector,
    /// `spec.serviceName`.
    pub service_name: Arc<str>,
    /// `spec.template`, raw: a typed round trip would drop unknown fields and change the hash.
    pub template: Json,
    /// A revision's `data` for this template.
    pub data: Json,
    /// The bytes of [`data`](Self::data) as upstream writes them, which name and hash come from.
    pub data_bytes: Arc<str>,
    /// `spec.volumeClaimTemplates`, one a name (of namesakes the last).
    pub claim_templates: Arc<[ClaimTemplate]>,
    /// `spec.podManagementPolicy`.
    pub management: Management,
    /// `spec.updateStrategy`.
    pub strategy: Strategy,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: u32,
    /// `spec.revisionHistoryLimit`; `None` keeps all (a negative limit).
    pub history_limit: Option<u32>,
    /// `spec.persistentVolumeClaimRetentionPolicy`.
    pub retention: RetentionPolicy,
    /// `status` as it is stored.
    pub status: Status,
}

/// One of `spec.volumeClaimTemplates`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimTemplate {
    /// Its name, also that of the pod's volume.
    pub name: Arc<str>,
    /// The template, raw.
    pub object: Json,
}

/// `spec.podManagementPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Management {
    /// One at a time, each waiting for its predecessors. upstream calls it monotonic.
    OrderedReady,
    /// All at once. upstream calls it burst.
    Parallel,
}

/// `spec.updateStrategy`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Outdated pods are replaced, highest ordinal first. `None`: `rollingUpdate` is null, a live path of its own.
    RollingUpdate(Option<Rolling>),
    /// Outdated pods are replaced when somebody deletes them.
    OnDelete,
    /// All outdated pods go before any new one comes (KEP-3541).
    Recreate,
}

/// `spec.updateStrategy.rollingUpdate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rolling {
    /// Pods below this index (counted from `ordinals.start`) keep the current revision.
    pub partition: u32,
    /// How many pods an update may make unavailable.
    pub max_unavailable: MaxUnavailable,
}

/// `maxUnavailable`: a number of pods or a percentage of `replicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaxUnavailable {
    /// So many pods.
    Pods(u32),
    /// So many of a hundred.
    Percent(u32),
}

/// `spec.persistentVolumeClaimRetentionPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetentionPolicy {
    /// What becomes of claims when the set is deleted.
    pub when_deleted: Retention,
    /// What becomes of an ordinal's claims when it leaves the wanted set.
    pub when_scaled: Retention,
}

/// `Retain` or `Delete`; an unknown word keeps data, as upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retention {
    /// Claims stay.
    Retain,
    /// Claims go, by owner reference and garbage collector.
    Delete,
}

/// `spec.selector`: every requirement must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector(Arc<[Requirement]>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Requirement {
    In { key: String, values: Vec<String> },
    NotIn { key: String, values: Vec<String> },
    Exists { key: String },
    DoesNotExist { key: String },
}

impl Set {
    /// Reads a set. Total: what is wrong is added to `malformed` and stands at its default, and [`decide`](crate::decide) then does nothing.
    pub fn parse(object: &Value, malformed: &mut Vec<Malformed>) -> Set {
        let mut read = Reading {
            fields: Fields::of(object),
            wrong: Vec::new(),
        };
        let set = read.set();
        let complaint = |why| Malformed {
            resource: Resource::StatefulSets,
            name: name_of(object),
            why,
        };
        malformed.extend(read.wrong.into_iter().map(complaint));
        set
    }

    /// The pod, claim or revision is controlled by this very set (by UID; a namesake is a stranger).
    pub fn controls(&self, controller: Option<&super::Controller>) -> bool {
        controller.is_some_and(|controller| controller.uid == self.uid)
    }

    /// The ordinal is one of those wanted. upstream: podInOrdinalRange.
    pub fn wants(&self, ordinal: Ordinal) -> bool {
        ordinal
            .0
            .checked_sub(self.start)
            .is_some_and(|index| index < self.replicas)
    }

    /// The set's wanted ordinals, ascending.
    pub fn ordinals(&self) -> impl DoubleEndedIterator<Item = Ordinal> + use<> {
        (self.start..self.start.saturating_add(self.replicas)).map(Ordinal)
    }

    pub(crate) fn is_parallel(&self) -> bool {
        self.management == Management::Parallel
    }

    pub(super) fn is_concerned_by_pod(&self, pod: &Pod) -> bool {
        pod.is_member_of(&self.name) || self.controls(pod.controller.as_ref())
    }

    /// The place of the claim of this name; `None` where it is not one of the set's.
    pub fn place_of_claim(&self, name: &str) -> Option<Place> {
        self.claim_templates
            .iter()
            .zip(0..)
            .find_map(|(template, index)| {
                let ordinal = crate::identity::ordinal_of_claim(name, &template.name, &self.name)?;
                Some(Place {
                    ordinal,
                    template: index,
                })
            })
    }

    fn has_revision_name(&self, name: &str) -> bool {
        name.starts_with(&*crate::identity::revision_name(&self.name, ""))
    }

    pub(super) fn is_concerned_by_malformed(&self, malformed: &Malformed) -> bool {
        let name = &*malformed.name;
        match malformed.resource {
            Resource::StatefulSets => true,
            Resource::Pods => crate::identity::parent_and_ordinal(name)
                .is_some_and(|(parent, _)| *parent == *self.name),
            Resource::Claims => self.place_of_claim(name).is_some(),
            Resource::Revisions => self.has_revision_name(name),
        }
    }

    pub(super) fn is_concerned_by_revision(&self, revision: &Revision) -> bool {
        self.controls(revision.controller.as_ref())
            || self.selector.matches(&revision.labels)
            || self.has_revision_name(&revision.name)
    }
}

impl Selector {
    /// The labels satisfy every requirement. A selector without requirements matches nothing, for it never was valid.
    pub fn matches(&self, labels: &Pairs) -> bool {
        !self.0.is_empty() && self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &Pairs) -> bool {
        match self {
            Requirement::In { key, values } => labels
                .get(key)
                .is_some_and(|value| values.iter().any(|it| it == value)),
            Requirement::NotIn { key, values } => labels
                .get(key)
                .is_none_or(|value| values.iter().all(|it| it != value)),
            Requirement::Exists { key } => labels.get(key).is_some(),
            Requirement::DoesNotExist { key } => labels.get(key).is_none(),
        }
    }
}

impl MaxUnavailable {
    /// Pods that may be unavailable: percentages rounded down, at least one. upstream: getStatefulSetMaxUnavailable.
    pub fn of(self, replicas: u32) -> u32 {
        let pods = match self {
            MaxUnavailable::Pods(pods) => u64::from(pods),
            MaxUnavailable::Percent(percent) => u64::from(percent)
                .saturating_mul(u64::from(replicas))
                .checked_div(100)
                .unwrap_or_default(),
        };
        u32::try_from(pods).unwrap_or(u32::MAX).max(1)
    }
}

/// One pass over a set's fields that collects every complaint instead of stopping at the first.
struct Reading<'a> {
    fields: Fields<'a>,
    wrong: Vec<Wrong>,
}

impl Reading<'_> {
    fn set(&mut self) -> Set {
        let fields = self.fields;
        let template = Json::new(
            fields
                .at(&["spec", "template"])
                .cloned()
                .unwrap_or_default(),
        );
        if !template.is_object() {
            self.wrong.push("spec.template is not an object".into());
        }
        let data = revision::data_of(&template);
        Set {
            api_version: or(self.checked(fields.text(&["apiVersion"])), "apps/v1"),
            namespace: self
                .checked(fields.required_text(&["metadata", "namespace"]))
                .into(),
            name: self
                .checked(fields.required_text(&["metadata", "name"]))
                .into(),
            uid: self
                .checked(fields.required_text(&["metadata", "uid"]))
                .into(),
            resource_version: self
                .checked(fields.text(&["metadata", "resourceVersion"]))
                .into(),
            generation: self
                .checked(fields.number(&["metadata", "generation"]))
                .unwrap_or_default(),
            deleting: fields.has(&["metadata", "deletionTimestamp"]),
            annotations: self.object(&["metadata", "annotations"]),
            replicas: self.checked(fields.count(&["spec", "replicas"], 1)),
            start: self.checked(fields.count(&["spec", "ordinals", "start"], 0)),
            match_labels: self.object(&["spec", "selector", "matchLabels"]),
            selector: self.selector(),
            service_name: self.checked(fields.text(&["spec", "serviceName"])).into(),
            template,
            data_bytes: revision::bytes_of(&data).into(),
            data: Json::new(data),
            claim_templates: self.claim_templates(),
            management: self.management(),
            strategy: self.strategy(),
            min_ready_seconds: self.checked(fields.count(&["spec", "minReadySeconds"], 0)),
            history_limit: self.history_limit(),
            retention: self.retention(),
            status: self.status(),
        }
    }

    fn checked<T: Default>(&mut self, read: Result<T, Wrong>) -> T {
        read.unwrap_or_else(|wrong| {
            self.wrong.push(wrong);
            T::default()
        })
    }

    fn object(&mut self, path: &[&str]) -> Json {
        match self.fields.at(path) {
            None => Json::new(Value::Object(Default::default())),
            Some(value) => {
                if !value.is_object() {
                    self.wrong
                        .push(format!("{} is not an object", path.join(".")).into());
                }
                Json::new(value.clone())
            }
        }
    }

    fn selector(&mut self) -> Selector {
        let parsed = selector(self.fields);
        let selector = self.checked(parsed);
        if selector.0.is_empty() {
            self.wrong.push("spec.selector has no requirement".into());
        }
        selector
    }

    fn claim_templates(&mut self) -> Arc<[ClaimTemplate]> {
        let list = self.checked(self.fields.list(&["spec", "volumeClaimTemplates"]));
        let mut templates: Vec<ClaimTemplate> = Vec::with_capacity(list.len());
        for object in list {
            let name: Arc<str> = self
                .checked(Fields::of(object).required_text(&["metadata", "name"]))
                .into();
            // upstream keeps them in a map by name: of namesakes the last one counts.
            templates.retain(|earlier| earlier.name != name);
            templates.push(ClaimTemplate {
                name,
                object: Json::new(object.clone()),
            });
        }
        templates.into()
    }

    fn management(&mut self) -> Management {
        match self.checked(self.fields.text(&["spec", "podManagementPolicy"])) {
            "" | "OrderedReady" => Management::OrderedReady,
            "Parallel" => Management::Parallel,
            other => {
                self.wrong
                    .push(format!("spec.podManagementPolicy is {other:?}").into());
                Management::OrderedReady
            }
        }
    }

    fn strategy(&mut self) -> Strategy {
        match self.checked(self.fields.text(&["spec", "updateStrategy", "type"])) {
            "" | "RollingUpdate" => Strategy::RollingUpdate(self.rolling()),
            "OnDelete" => Strategy::OnDelete,
            "Recreate" => Strategy::Recreate,
            other => {
                self.wrong
                    .push(format!("spec.updateStrategy.type is {other:?}").into());
                Strategy::OnDelete
            }
        }
    }

    fn rolling(&mut self) -> Option<Rolling> {
        const ROLLING: [&str; 3] = ["spec", "updateStrategy", "rollingUpdate"];
        self.fields.at(&ROLLING)?;
        let partition = self.checked(
            self.fields
                .count(&["spec", "updateStrategy", "rollingUpdate", "partition"], 0),
        );
        let raw = self
            .fields
            .at(&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]);
        let max_unavailable = match raw.map_or(Some(MaxUnavailable::Pods(1)), max_unavailable) {
            Some(value) => value,
            None => {
                self.wrong.push("spec.updateStrategy.rollingUpdate.maxUnavailable is neither a count nor a percentage".into());
                MaxUnavailable::Pods(1)
            }
        };
        Some(Rolling {
            partition,
            max_unavailable,
        })
    }

    fn history_limit(&mut self) -> Option<u32> {
        let limit = self
            .checked(self.fields.number(&["spec", "revisionHistoryLimit"]))
            .unwrap_or(10);
        u32::try_from(limit).ok()
    }

    fn retention(&mut self) -> RetentionPolicy {
        const POLICY: &str = "persistentVolumeClaimRetentionPolicy";
        let mut word = |field| match self.checked(self.fields.text(&["spec", POLICY, field])) {
            "Delete" => Retention::Delete,
            _ => Retention::Retain,
        };
        RetentionPolicy {
            when_deleted: word("whenDeleted"),
            when_scaled: word("whenScaled"),
        }
    }

    /// A counter of the stored status. Whatever it says, it is only compared with what is counted anew.
    fn tally(&mut self, field: &str) -> u32 {
        let stored = self
            .checked(self.fields.number(&["status", field]))
            .unwrap_or_default();
        u32::try_from(stored).unwrap_or_default()
    }

    fn status(&mut self) -> Status {
        let fields = self.fields;
        let optional = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        Status {
            observed_generation: self
                .checked(fields.number(&["status", "observedGeneration"]))
                .unwrap_or_default(),
            replicas: self.tally("replicas"),
            ready_replicas: self.tally("readyReplicas"),
            available_replicas: self.tally("availableReplicas"),
            current_replicas: self.tally("currentReplicas"),
            updated_replicas: self.tally("updatedReplicas"),
            current_revision: optional(self.checked(fields.text(&["status", "currentRevision"]))),
            update_revision: optional(self.checked(fields.text(&["status", "updateRevision"]))),
            collision_count: self
                .checked(fields.number(&["status", "collisionCount"]))
                .and_then(|count| i32::try_from(count).ok()),
        }
    }
}

fn or(text: &str, default: &str) -> Arc<str> {
    if text.is_empty() {
        default.into()
    } else {
        text.into()
    }
}

fn max_unavailable(value: &Value) -> Option<MaxUnavailable> {
    if let Some(pods) = value.as_u64() {
        return u32::try_from(pods).ok().map(MaxUnavailable::Pods);
    }
    let percent = value.as_str()?.strip_suffix('%')?.parse().ok()?;
    Some(MaxUnavailable::Percent(percent))
}

fn selector(fields: Fields<'_>) -> Result<Selector, Wrong> {
    let mut requirements = Vec::new();
    if let Some(labels) = fields
        .at(&["spec", "selector", "matchLabels"])
        .and_then(Value::as_object)
    {
        for (key, value) in labels {
            let value = value
                .as_str()
                .ok_or_else(|| format!("spec.selector.matchLabels[{key}] is not a string"))?;
            requirements.push(Requirement::In {
                key: key.clone(),
                values: vec![value.to_owned()],
            });
        }
    }
    for expression in fields.list(&["spec", "selector", "matchExpressions"])? {
        requirements.push(requirement(Fields::of(expression))?);
    }
    Ok(Selector(requirements.into()))
}

fn requirement(fields: Fields<'_>) -> Result<Requirement, Wrong> {
    let key = fields.required_text(&["key"])?.to_owned();
    let values = fields
        .list(&["values"])?
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    match fields.text(&["operator"])? {
        "In" => Ok(Requirement::In { key, values }),
        "NotIn" => Ok(Requirement::NotIn { key, values }),
        "Exists" => Ok(Requirement::Exists { key }),
        "DoesNotExist" => Ok(Requirement::DoesNotExist { key }),
        other => Err(format!("spec.selector.matchExpressions has the operator {other:?}").into()),
    }
}
