//! What a controller sees, and the bridge to the code that ships: a view becomes an `Observed`, a `Decision` becomes calls.
//!
//! Every distinct view is decided once; what is shared between views (a pod, a claim, a set) is parsed once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use stead_statefulset::{
    self as statefulset, Decision, Freshness, Mark, Observed, Owner as Ours, Owners, Step,
};

use crate::object::{
    Claim, Claims, Deleting, Kind, Life, ORDINALS, Owner, Pod, Pods, Revision, Revisions, Set,
    Status, TEMPLATES,
};
use crate::op::{Entry, Op, Part};
use crate::world::{Settings, Strategy};

const NAME: &str = "web";
const NAMESPACE: &str = "default";
/// `minReadySeconds` in worlds that have it.
const MIN_READY_SECONDS: i64 = 30;

/// What a controller sees at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) settings: Settings,
    pub(crate) set: Set,
    pub(crate) pods: Pods,
    pub(crate) claims: Claims,
    pub(crate) revisions: Revisions,
    /// The first kind whose cache does not show the controller's own last write.
    pub(crate) behind: Option<Kind>,
}

/// Parsed facts by what they were made of.
#[derive(Default)]
pub(crate) struct Facts {
    sets: HashMap<(Settings, Set), Arc<statefulset::Set>>,
    pods: HashMap<(bool, usize, Pod), Arc<statefulset::Pod>>,
    claims: HashMap<(usize, Claim), Arc<statefulset::Claim>>,
    revisions: HashMap<(usize, Revision), Arc<statefulset::Revision>>,
    /// Names of the templates' ControllerRevisions, as the code that ships makes them.
    names: Vec<Arc<str>>,
    /// Their data.
    data: Vec<Value>,
    now: Timestamp,
}

impl Facts {
    /// Learns the revisions' names by deciding about a set that has none yet.
    pub(crate) fn new(settings: Settings) -> Facts {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
        let mut facts = Facts {
            now,
            ..Facts::default()
        };
        for template in 0..u8::try_from(TEMPLATES).expect("few templates") {
            let set = Set {
                uid: 1,
                generation: 1,
                template,
                ..Set::default()
            };
            let view = View {
                settings,
                set,
                pods: [None; ORDINALS],
                claims: [None; ORDINALS],
                revisions: [None; TEMPLATES],
                behind: None,
            };
            let seen = facts.observe(&view);
            let decision = statefulset::decide(&seen);
            let made = decision.plan.steps().find_map(|step| match step {
                Step::CreateRevision { revision, .. } => Some(revision.clone()),
                _ => None,
            });
            facts
                .names
                .push(made.expect("a set without revisions gets one"));
            facts.data.push(seen.set.data.value().clone());
        }
        facts
    }

    /// The observation that the shipped code decides about.
    pub(crate) fn observe(&mut self, view: &View) -> Observed {
        let settings = view.settings;
        let set = self.set(settings, view.set);
        let pods: Vec<_> = places(&view.pods)
            .map(|(at, pod)| self.pod(settings.claims, at, pod))
            .collect();
        let claims: Vec<_> = places(&view.claims)
            .map(|(at, claim)| self.claim(settings, at, claim))
            .collect();
        let revisions: Vec<_> = places(&view.revisions)
            .map(|(at, revision)| self.revision(settings, at, revision))
            .collect();
        let mut freshness = Freshness::default();
        let late = Mark { wrote: 2, seen: 1 };
        match view.behind {
            Some(Kind::Sets) => freshness.set = late,
            Some(Kind::Pods) => freshness.pods = late,
            Some(Kind::Claims) => freshness.claims = late,
            Some(Kind::Revisions) => freshness.revisions = late,
            None => {}
        }
        Observed::new(set, pods, claims, revisions, self.now, freshness)
    }

    /// The template is that of this revision.
    pub(crate) fn is_template_of(&self, template: &Value, revision: &str) -> bool {
        *template == template_object(self.template(revision))
    }

    /// A text with the revisions' letters instead of their names.
    pub(crate) fn readable(&self, text: &str) -> String {
        let letters = ["A", "B", "C"];
        self.names
            .iter()
            .zip(letters)
            .fold(text.to_owned(), |text, (name, letter)| {
                text.replace(&**name, letter)
            })
    }

    /// The decision's plan as calls of the model.
    pub(crate) fn plan(&self, view: &View, decision: &Decision) -> Vec<Entry> {
        let mut entries = Vec::new();
        let plan = &decision.plan;
        let adopts = plan
            .prologue
            .iter()
            .flatten()
            .flatten()
            .any(|step| matches!(step, Step::AdoptPod { .. } | Step::AdoptRevision { .. }));
        let mut wave = 0;
        if adopts {
            entries.push(Entry {
                part: Part::Prologue,
                wave,
                lane: 0,
                op: Op::CheckSet,
            });
            wave += 1;
        }
        let waves = plan
            .prologue
            .iter()
            .map(|it| (Part::Prologue, it))
            .chain(plan.stages.iter().map(|it| (Part::Stages, it)));
        for (part, lanes) in waves {
            for (lane, steps) in (0..).zip(lanes) {
                entries.extend(steps.iter().map(|step| Entry {
                    part,
                    wave,
                    lane,
                    op: self.op(view, step),
                }));
            }
            wave += 1;
        }
        for step in &plan.closing {
            entries.push(Entry {
                part: Part::Closing,
                wave,
                lane: 0,
                op: self.op(view, step),
            });
            wave += 1;
        }
        entries
    }

    fn op(&self, view: &View, step: &Step) -> Op {
        match step {
            Step::AdoptRevision { revision, uid } => Op::AdoptRevision {
                template: self.template(revision),
                uid: number(uid),
            },
            Step::AdoptPod { pod, uid } => Op::AdoptPod {
                ordinal: number(pod),
                uid: number(uid),
            },
            Step::ReleasePod {
                pod,
                uid,
                because: _,
            } => Op::ReleasePod {
                ordinal: number(pod),
                uid: number(uid),
            },
            Step::CreateRevision {
                revision,
                hash: _,
                number,
            } => Op::CreateRevision {
                template: self.template(revision),
                number: small(*number),
            },
            Step::RenumberRevision {
                revision,
                uid,
                from: _,
                to,
            } => Op::RenumberRevision {
                template: self.template(revision),
                uid: number(uid),
                number: small(*to),
            },
            Step::DeleteRevision {
                revision,
                uid,
                limit: _,
            } => Op::DeleteRevision {
                template: self.template(revision),
                uid: number(uid),
            },
            Step::CreateClaim {
                claim,
                ordinal: _,
                template: _,
            } => Op::CreateClaim {
                ordinal: number(claim),
            },
            Step::PatchClaim {
                claim,
                uid,
                resource_version,
                ordinal: _,
                owners,
            } => Op::PatchClaim {
                ordinal: number(claim),
                uid: number(uid),
                version: number(resource_version),
                owner: owner(owners),
            },
            Step::CreatePod {
                pod,
                ordinal: _,
                revision,
                template: _,
            } => Op::CreatePod {
                ordinal: number(pod),
                revision: self.template(revision),
            },
            Step::UpdatePod { pod, uid, .. } => Op::UpdatePod {
                ordinal: number(pod),
                uid: number(uid),
            },
            Step::DeletePod {
                pod,
                uid,
                ordinal: _,
                because: _,
            } => Op::DeletePod {
                ordinal: number(pod),
                uid: number(uid),
            },
            Step::WriteStatus { status } => Op::WriteStatus {
                version: view.set.version,
                status: self.status(status),
            },
        }
    }

    fn status(&self, status: &statefulset::Status) -> Status {
        let revision = |name: &Option<Arc<str>>| name.as_ref().map(|name| self.template(name));
        Status {
            observed: small(status.observed_generation),
            replicas: small(status.replicas),
            ready: small(status.ready_replicas),
            available: small(status.available_replicas),
            current: small(status.current_replicas),
            updated: small(status.updated_replicas),
            current_revision: revision(&status.current_revision),
            update_revision: revision(&status.update_revision),
        }
    }

    /// The template whose ControllerRevision has this name.
    fn template(&self, name: &str) -> u8 {
        let found = self.names.iter().position(|it| **it == *name);
        small(found.expect("a revision of one of the templates"))
    }

    fn set(&mut self, settings: Settings, set: Set) -> Arc<statefulset::Set> {
        let names = &self.names;
        let parsed = self.sets.entry((settings, set)).or_insert_with(|| {
            let mut malformed = Vec::new();
            let parsed =
                statefulset::Set::parse(&set_object(settings, &set, names), &mut malformed);
            assert!(
                malformed.is_empty(),
                "the sets of the worlds are sound: {malformed:?}"
            );
            Arc::new(parsed)
        });
        parsed.clone()
    }

    fn pod(&mut self, claims: bool, ordinal: usize, pod: Pod) -> Arc<statefulset::Pod> {
        let (names, now) = (&self.names, self.now);
        let parsed = self.pods.entry((claims, ordinal, pod)).or_insert_with(|| {
            Arc::new(
                statefulset::Pod::parse(&pod_object(ordinal, &pod, names, claims, now))
                    .expect("the pods of the worlds are sound"),
            )
        });
        parsed.clone()
    }

    fn claim(
        &mut self,
        settings: Settings,
        ordinal: usize,
        claim: Claim,
    ) -> Arc<statefulset::Claim> {
        let parsed = self.claims.entry((ordinal, claim)).or_insert_with(|| {
            Arc::new(
                statefulset::Claim::parse(&claim_object(settings, ordinal, &claim))
                    .expect("the claims of the worlds are sound"),
            )
        });
        parsed.clone()
    }

    fn revision(
        &mut self,
        settings: Settings,
        template: usize,
        revision: Revision,
    ) -> Arc<statefulset::Revision> {
        let (names, data) = (&self.names, &self.data);
        let parsed = self
            .revisions
            .entry((template, revision))
            .or_insert_with(|| {
                let object =
                    revision_object(settings, &revision, &names[template], &data[template]);
                Arc::new(
                    statefulset::Revision::parse(&object)
                        .expect("the revisions of the worlds are sound"),
                )
            });
        parsed.clone()
    }
}

fn places<T: Copy, const N: usize>(all: &[Option<T>; N]) -> impl Iterator<Item = (usize, T)> + '_ {
    all.iter()
        .copied()
        .enumerate()
        .filter_map(|(at, one)| one.map(|one| (at, one)))
}

/// The number after the last dash (`web-2`, `pod-2-5`) or the whole of a resourceVersion.
fn number(name: &str) -> u8 {
    let digits = name.rsplit_once('-').map_or(name, |(_, digits)| digits);
    digits
        .parse()
        .expect("names of the worlds end in small numbers")
}

fn small<T: TryInto<u8>>(number: T) -> u8 {
    number
        .try_into()
        .ok()
        .expect("numbers of the worlds are small")
}

fn owner(owners: &Owners) -> Owner {
    match (&*owners.others, &owners.ours) {
        ([], None) => Owner::Nobody,
        ([], Some(Ours::Set { uid, .. })) => Owner::Set(number(uid)),
        ([], Some(Ours::Pod { uid, .. })) => Owner::Pod(number(uid)),
        ([_], None) => Owner::Stranger,
        (_, _) => panic!("a claim of the worlds has one owner at most, not {owners:?}"),
    }
}

fn reference(settings: Settings, owner: Owner, ordinal: usize) -> Value {
    match owner {
        Owner::Nobody => json!([]),
        Owner::Set(uid) => {
            json!([{"apiVersion": api_version(settings), "kind": "StatefulSet", "name": NAME, "uid": format!("set-{uid}"), "controller": true, "blockOwnerDeletion": true}])
        }
        Owner::Pod(uid) => {
            json!([{"apiVersion": "v1", "kind": "Pod", "name": format!("{NAME}-{ordinal}"), "uid": format!("pod-{ordinal}-{uid}"), "controller": true, "blockOwnerDeletion": true}])
        }
        Owner::Stranger => {
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "other-1", "controller": true}])
        }
    }
}

fn api_version(settings: Settings) -> &'static str {
    match settings.strategy {
        Strategy::Recreate => "stead.dev/v1",
        Strategy::Rolling(_) | Strategy::RollingNull | Strategy::OnDelete => "apps/v1",
    }
}

fn template_object(template: u8) -> Value {
    json!({
        "metadata": {"labels": {"app": NAME}},
        "spec": {"containers": [{"name": "main", "image": format!("main:{template}")}]},
    })
}

/// The set as the API has it.
pub(crate) fn set_object(settings: Settings, set: &Set, names: &[Arc<str>]) -> Value {
    let policy = |delete: bool| if delete { "Delete" } else { "Retain" };
    let strategy = match settings.strategy {
        Strategy::Rolling(max) => {
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": set.partition, "maxUnavailable": max}})
        }
        Strategy::RollingNull => json!({"type": "RollingUpdate"}),
        Strategy::OnDelete => json!({"type": "OnDelete"}),
        Strategy::Recreate => json!({"type": "Recreate"}),
    };
    let claims = if settings.claims {
        json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}])
    } else {
        json!([])
    };
    let mut metadata = json!({
        "name": NAME, "namespace": NAMESPACE, "uid": format!("set-{}", set.uid),
        "resourceVersion": set.version.to_string(), "generation": set.generation,
    });
    if set.deleting != Deleting::No {
        metadata["deletionTimestamp"] = json!("2026-01-01T12:00:00Z");
    }
    let Status {
        observed,
        replicas,
        ready,
        available,
        current,
        updated,
        current_revision,
        update_revision,
    } = set.status;
    let name =
        |template: Option<u8>| template.map(|template| names[usize::from(template)].to_string());
    let mut status = json!({"replicas": replicas, "readyReplicas": ready, "availableReplicas": available, "currentReplicas": current, "updatedReplicas": updated});
    if observed > 0 {
        status["observedGeneration"] = json!(observed);
        status["collisionCount"] = json!(0);
    }
    for (field, revision) in [
        ("currentRevision", current_revision),
        ("updateRevision", update_revision),
    ] {
        if let Some(name) = name(revision) {
            status[field] = json!(name);
        }
    }
    json!({
        "apiVersion": api_version(settings), "kind": "StatefulSet", "metadata": metadata,
        "spec": {
            "replicas": set.replicas,
            "ordinals": {"start": set.start},
            "selector": {"matchLabels": {"app": NAME}},
            "serviceName": NAME,
            "podManagementPolicy": if settings.parallel { "Parallel" } else { "OrderedReady" },
            "updateStrategy": strategy,
            "minReadySeconds": if settings.min_ready { MIN_READY_SECONDS } else { 0 },
            "revisionHistoryLimit": settings.history,
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": policy(settings.delete_with_set), "whenScaled": policy(settings.delete_with_pod)},
            "template": template_object(set.template),
            "volumeClaimTemplates": claims,
        },
        "status": status,
    })
}

fn pod_object(
    ordinal: usize,
    pod: &Pod,
    names: &[Arc<str>],
    claims: bool,
    now: Timestamp,
) -> Value {
    let name = format!("{NAME}-{ordinal}");
    let mut labels = json!({
        "app": NAME,
        "apps.kubernetes.io/pod-index": ordinal.to_string(),
        "controller-revision-hash": &*names[usize::from(pod.revision)],
    });
    if !pod.nameless {
        labels["statefulset.kubernetes.io/pod-name"] = json!(name);
    }
    let mut metadata = json!({"name": name, "namespace": NAMESPACE, "uid": format!("pod-{ordinal}-{}", pod.uid), "labels": labels});
    metadata["ownerReferences"] = match pod.owner {
        // Worlds whose sets are of another group have the reference's apiVersion of that group; only the UID is read of it.
        Owner::Set(uid) => {
            json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": NAME, "uid": format!("set-{uid}"), "controller": true, "blockOwnerDeletion": true}])
        }
        Owner::Nobody | Owner::Pod(_) | Owner::Stranger => json!([]),
    };
    if pod.terminating {
        metadata["deletionTimestamp"] = json!(now.to_string());
    }
    let ready = |since: Timestamp| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since.to_string()}]);
    let long_ago = now - jiff::SignedDuration::from_hours(1);
    let status = match pod.life {
        Life::Pending | Life::Bound => json!({"phase": "Pending"}),
        Life::Running => {
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]})
        }
        Life::Ready => json!({"phase": "Running", "conditions": ready(now)}),
        Life::Aged => json!({"phase": "Running", "conditions": ready(long_ago)}),
        Life::Failed => {
            json!({"phase": "Failed", "conditions": [{"type": "Ready", "status": "False"}]})
        }
    };
    let volumes = if claims {
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{NAME}-{ordinal}")}}])
    } else {
        json!([])
    };
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"volumes": volumes}, "status": status})
}

fn claim_object(settings: Settings, ordinal: usize, claim: &Claim) -> Value {
    let mut metadata = json!({
        "name": format!("data-{NAME}-{ordinal}"), "namespace": NAMESPACE,
        "uid": format!("claim-{ordinal}-{}", claim.uid), "resourceVersion": claim.version.to_string(),
        "ownerReferences": reference(settings, claim.owner, ordinal),
    });
    if claim.terminating {
        metadata["deletionTimestamp"] = json!("2026-01-01T12:00:00Z");
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata})
}

fn revision_object(settings: Settings, revision: &Revision, name: &str, data: &Value) -> Value {
    let hash = name.rsplit_once('-').map_or(name, |(_, hash)| hash);
    json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": format!("revision-{}", revision.uid),
            "labels": {"app": NAME, "controller.kubernetes.io/hash": hash},
            "ownerReferences": reference(settings, revision.owner, 0),
        },
        "data": data,
        "revision": revision.number,
    })
}
