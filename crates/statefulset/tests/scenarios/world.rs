//! The world of a story: JSON objects, a clock, and just enough of an API server and a kubelet to carry plans out.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use stead_statefulset::{
    Action, Call, Decision, Freshness, Objects, Observed, Ordinal, PatchKind, Set, Step, decide,
    identity,
};

/// Name, then object; a name is unique in its resource.
pub(crate) type Named = BTreeMap<String, Value>;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) set: Value,
    pub(crate) pods: Named,
    pub(crate) claims: Named,
    pub(crate) revisions: Named,
    pub(crate) freshness: Freshness,
    uids: u32,
    versions: u64,
}

impl World {
    pub(crate) fn new() -> World {
        World {
            now: "2026-01-01T12:00:00Z".parse().expect("a time"),
            set: Value::Null,
            pods: Named::new(),
            claims: Named::new(),
            revisions: Named::new(),
            freshness: Freshness::default(),
            uids: 0,
            versions: 100,
        }
    }

    pub(crate) fn observed(&self) -> Observed {
        let list = |objects: &Named| objects.values().cloned().collect::<Vec<_>>();
        let (pods, claims, revisions) =
            (list(&self.pods), list(&self.claims), list(&self.revisions));
        let objects = Objects {
            set: &self.set,
            pods: &pods,
            claims: &claims,
            revisions: &revisions,
        };
        Observed::parse(objects, self.now, self.freshness)
    }

    fn fresh_metadata(&mut self, object: &mut Value) {
        self.uids += 1;
        self.versions += 1;
        object["metadata"]["uid"] = json!(format!("uid-{}", self.uids));
        object["metadata"]["resourceVersion"] = json!(self.versions.to_string());
        object["metadata"]["creationTimestamp"] = json!(self.now.to_string());
    }

    // --- what a story says is there ---

    /// The template of a revision letter: the letter is the image's tag.
    pub(crate) fn template(letter: &str) -> Value {
        let mut template = json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": format!("app:{letter}")}]}
        });
        stead_schema::set_pod_template_defaults(&mut template);
        template
    }

    /// The name of the revision of a letter, as the set would name it if it stood alone.
    pub(crate) fn revision_name(&self, letter: &str) -> String {
        let mut set = self.set.clone();
        set["spec"]["template"] = World::template(letter);
        set["status"] = json!({});
        set["metadata"]["deletionTimestamp"] = Value::Null;
        set["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
        set["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        let objects = Objects {
            set: &set,
            pods: &[],
            claims: &[],
            revisions: &[],
        };
        let decision = decide(&Observed::parse(objects, self.now, Freshness::default()));
        let name = decision.plan.steps().find_map(|step| match step {
            Step::CreateRevision { revision, .. } => Some(revision.to_string()),
            _ => None,
        });
        name.expect("a set without revisions makes one")
    }

    /// Makes sure that the revision of the letter exists; numbers follow the letters.
    pub(crate) fn ensure_revision(&mut self, letter: &str) -> String {
        let name = self.revision_name(letter);
        if !self.revisions.contains_key(&name) {
            let number = letter
                .bytes()
                .next()
                .map_or(1, |byte| i64::from(byte.saturating_sub(b'A')) + 1);
            let mut template = World::template(letter);
            template["$patch"] = json!("replace");
            let mut revision = json!({
                "metadata": {"name": name, "labels": {"app": "web"}, "ownerReferences": [self.set_reference()]},
                "data": {"spec": {"template": template}},
                "revision": number,
            });
            self.fresh_metadata(&mut revision);
            self.revisions.insert(name.clone(), revision);
        }
        name
    }

    pub(crate) fn set_reference(&self) -> Value {
        identity::set_reference(&self.parsed_set())
    }

    fn parsed_set(&self) -> Set {
        Set::parse(&self.set, &mut Vec::new())
    }

    /// Makes sure that the pod exists, as the set would have made it at this revision, and with its claims.
    pub(crate) fn ensure_pod(&mut self, name: &str, letter: &str) -> &mut Value {
        if !self.pods.contains_key(name) {
            let set = self.parsed_set();
            let ordinal = identity::parent_and_ordinal(name)
                .and_then(|(_, ordinal)| ordinal)
                .unwrap_or(Ordinal(0));
            let revision = self.ensure_revision(letter);
            let mut pod = identity::new_pod(&set, &World::template(letter), &revision, ordinal);
            pod["metadata"]["name"] = json!(name);
            self.fresh_metadata(&mut pod);
            for template in set.claim_templates.iter() {
                let claim = identity::claim_name(&template.name, &set.name, ordinal);
                self.ensure_claim(&claim);
            }
            self.pods.insert(name.to_owned(), pod);
        }
        self.pods.get_mut(name).expect("it was just made")
    }

    /// Makes sure that the claim exists; owned by the set where the retention policy has it so.
    pub(crate) fn ensure_claim(&mut self, name: &str) -> &mut Value {
        if !self.claims.contains_key(name) {
            let owned =
                self.set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete";
            let owners = if owned {
                json!([self.set_reference()])
            } else {
                json!([])
            };
            let mut claim = json!({"metadata": {"name": name, "ownerReferences": owners}});
            self.fresh_metadata(&mut claim);
            self.claims.insert(name.to_owned(), claim);
        }
        self.claims.get_mut(name).expect("it was just made")
    }

    /// Gives the pod a phase and a Ready condition.
    pub(crate) fn report(&mut self, name: &str, phase: &str, ready_for: Option<SignedDuration>) {
        let since = ready_for.map(|duration| self.now - duration);
        let Some(pod) = self.pods.get_mut(name) else {
            return;
        };
        let conditions = match since {
            Some(since) => {
                json!([{"type": "Ready", "status": "True", "lastTransitionTime": since.to_string()}])
            }
            None => json!([{"type": "Ready", "status": "False"}]),
        };
        pod["status"] = if phase.is_empty() {
            json!({})
        } else {
            json!({"phase": phase, "conditions": conditions})
        };
    }

    // --- an API server ---

    /// Carries the plan out, every step with success.
    pub(crate) fn carry_out(&mut self, seen: &Observed, decision: &Decision) {
        for step in decision.plan.steps() {
            self.answer(step.call(&seen.set));
        }
    }

    fn answer(&mut self, call: Call) {
        let Call {
            resource,
            name,
            action,
        } = call;
        let (resource, name) = (resource.plural(), name.to_string());
        match action {
            Action::Create { mut object } => {
                self.fresh_metadata(&mut object);
                if resource == "pods" {
                    object["status"] = json!({"phase": "Pending"});
                }
                let before = self.objects(resource).insert(name.clone(), object);
                assert!(
                    before.is_none(),
                    "a create would have been refused: {name} is there"
                );
            }
            Action::Delete { uid } => {
                let now = self.now.to_string();
                let object = self
                    .objects(resource)
                    .get_mut(&name)
                    .expect("a delete would have been answered NotFound");
                assert_eq!(
                    object["metadata"]["uid"], *uid,
                    "a delete would have been refused"
                );
                object["metadata"]["deletionTimestamp"] = json!(now);
                if resource != "pods" {
                    self.objects(resource).remove(&name);
                }
            }
            Action::Patch {
                kind,
                subresource: _,
                patch,
            } => {
                let version = self.versions + 1;
                self.versions = version;
                let object = if resource == "statefulsets" {
                    &mut self.set
                } else {
                    self.objects(resource)
                        .get_mut(&name)
                        .expect("a patch would have been answered NotFound")
                };
                preconditions_hold(object, &patch);
                match kind {
                    PatchKind::Merge => merge(object, &patch),
                    PatchKind::Strategic => patch_owners(object, &patch),
                }
                object["metadata"]["resourceVersion"] = json!(version.to_string());
            }
        }
    }

    fn objects(&mut self, resource: &str) -> &mut Named {
        match resource {
            "pods" => &mut self.pods,
            "persistentvolumeclaims" => &mut self.claims,
            "controllerrevisions" => &mut self.revisions,
            other => panic!("no objects of {other} here"),
        }
    }

    // --- a kubelet and a garbage collector ---

    /// Pods that are being deleted go, with the claims they own; all others become ready.
    pub(crate) fn tick(&mut self) {
        let going = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string();
        let gone: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| going(pod))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            let pod = self.pods.remove(&name).unwrap_or_default();
            self.claims
                .retain(|_, claim| !owned_by(claim, &pod["metadata"]["uid"]));
        }
        let starting = |pod: &Value| pod["status"]["phase"] == "Pending";
        let names: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| starting(pod))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.report(&name, "Running", Some(SignedDuration::ZERO));
        }
    }
}

fn owned_by(object: &Value, uid: &Value) -> bool {
    object["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid))
}

fn preconditions_hold(object: &Value, patch: &Value) {
    for field in ["uid", "resourceVersion"] {
        let wanted = &patch["metadata"][field];
        assert!(
            wanted.is_null() || *wanted == object["metadata"][field],
            "a patch would have been refused: {field}"
        );
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().map(|object| object.remove(key));
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

fn patch_owners(object: &mut Value, patch: &Value) {
    let patched = patch["metadata"]["ownerReferences"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut owners = object["metadata"]["ownerReferences"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for owner in patched {
        owners.retain(|there| there["uid"] != owner["uid"]);
        if owner["$patch"] != "delete" {
            owners.push(owner);
        }
    }
    object["metadata"]["ownerReferences"] = json!(owners);
}
