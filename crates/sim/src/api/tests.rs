//! The model of the API and the embedded API server are told the same random operations and must give the same answers and objects.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use stead_apiserver::{
    Change, Environment, Listing, NoSuchRevision, Outcome, Reply, Request, Stored, Table, User,
    View, handle,
};
use stead_statefulset::{
    self as statefulset, Action, DeleteReason, Ordinal, Owner as Ours, Owners, PatchKind,
    ReleaseReason, Repair, Step, identity,
};

use super::{Careless, Refusal, carry_out, stop_pod};
use crate::object::{Claim, Id, Life, ORDINALS, Owner, Pod, Revision, Set, Status};
use crate::op::Op;
use crate::state::State;
use crate::view::set_object;
use crate::world::World;

/// A UID and a version that no object has.
const STALE: u8 = 15;
const STALE_UID: &str = "11111111-2222-3333-4444-555555555555";

/// The embedded server's objects.
#[derive(Default)]
struct Store {
    revision: RefCell<u64>,
    objects: RefCell<BTreeMap<(Table, String), Arc<Stored>>>,
}

impl View for Store {
    fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    fn get(&self, table: Table, key: &str) -> Option<Arc<Stored>> {
        self.objects.borrow().get(&(table, key.to_owned())).cloned()
    }

    fn list(&self, table: Table, prefix: &str) -> Listing {
        let objects = self.objects.borrow();
        let found = objects
            .iter()
            .filter(|((at, key), _)| *at == table && key.starts_with(prefix));
        Listing {
            revision: self.revision(),
            items: found
                .map(|((_, key), stored)| (key.as_str().into(), stored.clone()))
                .collect(),
        }
    }

    fn list_at(&self, table: Table, prefix: &str, _: u64) -> Result<Listing, NoSuchRevision> {
        Ok(self.list(table, prefix))
    }
}

impl Store {
    fn apply(&self, changes: &[Change]) {
        for change in changes {
            let key = (change.table, change.key.to_string());
            if change.deleted {
                self.objects.borrow_mut().remove(&key);
            } else {
                self.objects.borrow_mut().insert(key, change.object.clone());
            }
            *self.revision.borrow_mut() = change.object.revision;
        }
    }
}

/// Both sides, and who is who.
struct Pair {
    world: World,
    state: State,
    store: Store,
    /// The server's UID of each of the model's sets.
    sets: Vec<String>,
    asked: u64,
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";

impl Pair {
    fn new() -> Pair {
        let world = crate::matrix::matrix()
            .into_iter()
            .find(|world| world.name == "ordered-claims-scale")
            .unwrap();
        let mut pair = Pair {
            world,
            state: State::new(&world),
            store: Store::default(),
            sets: Vec::new(),
            asked: 0,
        };
        pair.must(
            "POST",
            "/api/v1/namespaces",
            &json!({"metadata": {"name": "default"}}),
        );
        pair.must(
            "POST",
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        );
        pair.create_set();
        pair
    }

    fn ask(&mut self, method: &str, path: &str, content_type: &str, body: &Value) -> (u16, Value) {
        let request = Request {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            query: String::new(),
            accept: "application/json".to_owned(),
            content_type: content_type.to_owned(),
            user_agent: "controller/1".to_owned(),
            if_none_match: String::new(),
            body: if body.is_null() {
                Vec::new().into()
            } else {
                body.to_string().into()
            },
            user: User::admin(),
        };
        let environment = Environment {
            service_range: "10.96.0.0/16".to_owned(),
            address: "127.0.0.1:6443".to_owned(),
            token_key: stead_apiserver::TokenKey::generate().unwrap(),
            assume_accounts: true,
        };
        // Each request has a seed and a second of its own: UIDs differ, and times tell.
        self.asked += 1;
        let now =
            Timestamp::from_second(1_700_000_000 + i64::try_from(self.asked).unwrap()).unwrap();
        let Outcome { reply, changes } =
            handle(request, &self.store, &environment, now, self.asked);
        self.store.apply(&changes);
        match reply {
            Reply::Done(response) => (
                response.status().as_u16(),
                serde_json::from_slice(response.body()).unwrap_or_default(),
            ),
            Reply::Watch(_) | Reply::Forward(_) => panic!("nothing here watches"),
        }
    }

    fn must(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let content_type = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let (code, answer) = self.ask(method, path, content_type, body);
        assert!(code < 300, "{method} {path}: {code} {answer}");
        answer
    }

    fn get(&mut self, path: &str) -> Option<Value> {
        let (code, answer) = self.ask("GET", path, "", &Value::Null);
        (code == 200).then_some(answer)
    }

    fn create_set(&mut self) {
        let uid = u8::try_from(self.sets.len() + 1).unwrap();
        let fresh = Set {
            uid,
            version: self.state.fresh(Id::SetVersion),
            generation: 1,
            replicas: 2,
            ..Set::default()
        };
        self.state.put_set(&self.world, Some(fresh));
        let mut object = set_object(self.world.settings, &fresh, &[]);
        for ours in ["uid", "resourceVersion", "generation"] {
            object["metadata"].as_object_mut().unwrap().remove(ours);
        }
        let made = self.must("POST", SETS, &object);
        self.sets.push(text(&made["metadata"]["uid"]));
    }

    /// The server's set as steps are called for; the last one that there was, when there is none.
    fn parsed_set(&mut self) -> statefulset::Set {
        let object = self.get(&format!("{SETS}/web")).unwrap_or_else(|| {
            let last = Set {
                uid: 1,
                ..Set::default()
            };
            let mut object = set_object(self.world.settings, &last, &[]);
            object["metadata"]["uid"] = json!(self.sets.last().unwrap());
            object
        });
        let mut malformed = Vec::new();
        let set = statefulset::Set::parse(&object, &mut malformed);
        assert!(malformed.is_empty(), "{malformed:?}");
        set
    }

    fn uid_at(&mut self, path: &str) -> Arc<str> {
        self.get(path).map_or_else(
            || STALE_UID.into(),
            |object| text(&object["metadata"]["uid"]).into(),
        )
    }

    /// Tells both sides one call of a controller and compares the answers; true where it was accepted.
    fn call(&mut self, op: Op) -> bool {
        let set = self.parsed_set();
        let acting = u8::try_from(self.sets.len()).unwrap();
        let step = self.step(op, &set);
        let call = step.call(&set);
        let plural = call.resource.plural();
        let folder = [PODS, CLAIMS, REVISIONS, SETS]
            .into_iter()
            .find(|folder| folder.ends_with(plural))
            .unwrap();
        let path = format!("{folder}/{}", call.name);
        let (code, answer) = match &call.action {
            Action::Create { object } => self.ask("POST", folder, "application/json", object),
            Action::Patch {
                kind,
                subresource,
                patch,
            } => {
                let content_type = match kind {
                    PatchKind::Merge => "application/merge-patch+json",
                    PatchKind::Strategic => "application/strategic-merge-patch+json",
                };
                let path =
                    subresource.map_or(path.clone(), |subresource| format!("{path}/{subresource}"));
                self.ask("PATCH", &path, content_type, patch)
            }
            Action::Delete { uid } => self.ask(
                "DELETE",
                &path,
                "application/json",
                &json!({"preconditions": {"uid": &**uid}}),
            ),
        };
        let model = carry_out(
            &mut self.state,
            &self.world,
            acting,
            op,
            Careless::default(),
        );
        let expected = match model {
            Ok(_) => (200, ""),
            Err(Refusal::NotFound) => (404, "NotFound"),
            Err(Refusal::AlreadyExists) => (409, "AlreadyExists"),
            Err(Refusal::Conflict) => (409, "Conflict"),
            Err(Refusal::Invalid) => (422, "Invalid"),
        };
        let reason = if code < 300 {
            ""
        } else {
            answer["reason"].as_str().unwrap_or_default()
        };
        assert_eq!(
            (if code < 300 { 200 } else { code }, reason),
            expected,
            "{step}: {answer}"
        );
        model.is_ok()
    }

    /// The step that this call is of: what the model calls stale has a UID or version that nothing has.
    #[expect(clippy::too_many_lines, reason = "one arm a call")]
    fn step(&mut self, op: Op, set: &statefulset::Set) -> Step {
        let pod = |ordinal: u8| identity::pod_name("web", Ordinal(u32::from(ordinal)));
        let claim = |ordinal: u8| identity::claim_name("data", "web", Ordinal(u32::from(ordinal)));
        let uid = |pair: &mut Pair, path: String, uid: u8| {
            if uid == STALE {
                STALE_UID.into()
            } else {
                pair.uid_at(&path)
            }
        };
        let pod_uid = |pair: &mut Pair, ordinal: u8, model: u8| {
            uid(pair, format!("{PODS}/{}", pod(ordinal)), model)
        };
        let revision_uid = |pair: &mut Pair, template: u8, model: u8| {
            uid(pair, format!("{REVISIONS}/{}", revision(template)), model)
        };
        match op {
            Op::CheckSet => unreachable!("a read is not compared"),
            Op::AdoptRevision { template, uid } => Step::AdoptRevision {
                revision: revision(template),
                uid: revision_uid(self, template, uid),
            },
            Op::CreateRevision { template, number } => Step::CreateRevision {
                revision: revision(template),
                hash: "x".into(),
                number: i64::from(number),
            },
            Op::RenumberRevision {
                template,
                uid,
                number,
            } => Step::RenumberRevision {
                revision: revision(template),
                uid: revision_uid(self, template, uid),
                from: 0,
                to: i64::from(number),
            },
            Op::DeleteRevision { template, uid } => Step::DeleteRevision {
                revision: revision(template),
                uid: revision_uid(self, template, uid),
                limit: 0,
            },
            Op::AdoptPod { ordinal, uid } => Step::AdoptPod {
                pod: pod(ordinal),
                uid: pod_uid(self, ordinal, uid),
            },
            Op::ReleasePod { ordinal, uid } => Step::ReleasePod {
                pod: pod(ordinal),
                uid: pod_uid(self, ordinal, uid),
                because: ReleaseReason::SelectorMismatch,
            },
            Op::CreateClaim { ordinal } => Step::CreateClaim {
                claim: claim(ordinal),
                ordinal: Ordinal(u32::from(ordinal)),
                template: "data".into(),
            },
            Op::PatchClaim {
                ordinal,
                uid: model,
                version,
                owner,
            } => {
                let path = format!("{CLAIMS}/{}", claim(ordinal));
                let there = self.get(&path);
                let seen = there.map_or_else(
                    || "1".to_owned(),
                    |there| text(&there["metadata"]["resourceVersion"]),
                );
                let ours = match owner {
                    Owner::Nobody | Owner::Stranger => None,
                    Owner::Set(_) => Some(Ours::Set {
                        name: set.name.clone(),
                        uid: set.uid.clone(),
                    }),
                    Owner::Pod(uid) => Some(Ours::Pod {
                        name: pod(ordinal),
                        uid: pod_uid(self, ordinal, uid),
                    }),
                };
                Step::PatchClaim {
                    claim: claim(ordinal),
                    uid: uid(self, path, model),
                    resource_version: if version == STALE {
                        "1".into()
                    } else {
                        seen.into()
                    },
                    ordinal: Ordinal(u32::from(ordinal)),
                    owners: Owners {
                        ours,
                        ..Owners::default()
                    },
                }
            }
            Op::CreatePod {
                ordinal,
                revision: template,
            } => Step::CreatePod {
                pod: pod(ordinal),
                ordinal: Ordinal(u32::from(ordinal)),
                revision: revision(template),
                template: set.template.clone(),
            },
            Op::UpdatePod { ordinal, uid } => Step::UpdatePod {
                pod: pod(ordinal),
                uid: pod_uid(self, ordinal, uid),
                ordinal: Ordinal(u32::from(ordinal)),
                because: Repair {
                    identity: true,
                    storage: false,
                },
                volumes: None,
            },
            Op::DeletePod { ordinal, uid } => Step::DeletePod {
                pod: pod(ordinal),
                uid: pod_uid(self, ordinal, uid),
                ordinal: Ordinal(u32::from(ordinal)),
                because: DeleteReason::Condemned,
            },
            Op::WriteStatus { version: _, status } => Step::WriteStatus {
                status: shipped_status(status),
            },
        }
    }

    /// The server's objects are the model's.
    fn compare(
        &mut self,
        before: &State,
        before_store: &BTreeMap<String, (String, String)>,
    ) -> BTreeMap<String, (String, String)> {
        let mut identities = BTreeMap::new();
        let set = self.get(&format!("{SETS}/web"));
        let model = self.state.sets.now();
        assert_eq!(set.is_some(), model.is_some(), "the set");
        if let (Some(object), Some(model)) = (&set, model) {
            let parsed = self.parsed_set();
            assert_eq!(parsed.status, shipped_status(model.status), "the status");
            assert_eq!(
                (parsed.replicas, parsed.generation),
                (u32::from(model.replicas), i64::from(model.generation)),
                "the set"
            );
            let was = before.sets.now().map(|was| (was.uid, was.version));
            same_change(
                "web",
                was,
                Some((model.uid, model.version)),
                object,
                before_store,
                &mut identities,
                true,
            );
        }
        for ordinal in 0..ORDINALS {
            self.compare_pod(ordinal, before, before_store, &mut identities);
            self.compare_claim(ordinal, before, before_store, &mut identities);
        }
        for template in 0..2 {
            let name = revision(template);
            let object = self.get(&format!("{REVISIONS}/{name}"));
            let at = usize::from(template);
            let model = self.state.revisions.now()[at];
            let server = object
                .as_ref()
                .map(|object| (object["revision"].as_i64(), self.owner(object, 0)));
            assert_eq!(
                server,
                model.map(|Revision { number, owner, .. }| (Some(i64::from(number)), owner)),
                "{name}"
            );
            if let (Some(object), Some(model)) = (&object, model) {
                let was = before.revisions.now()[at].map(|was| (was.uid, 0));
                same_change(
                    &name,
                    was,
                    Some((model.uid, 0)),
                    object,
                    before_store,
                    &mut identities,
                    false,
                );
            }
        }
        identities
    }

    fn compare_pod(
        &mut self,
        ordinal: usize,
        before: &State,
        before_store: &BTreeMap<String, (String, String)>,
        identities: &mut BTreeMap<String, (String, String)>,
    ) {
        let name = format!("web-{ordinal}");
        let object = self.get(&format!("{PODS}/{name}"));
        let model = self.state.pods.now()[ordinal];
        let server = object.as_ref().map(|object| {
            let metadata = &object["metadata"];
            Pod {
                uid: 0,
                revision: u8::from(metadata["labels"]["controller-revision-hash"] == *revision(1)),
                life: life(object),
                terminating: !metadata["deletionTimestamp"].is_null(),
                owner: self.owner(object, ordinal),
                nameless: metadata["labels"]["statefulset.kubernetes.io/pod-name"].is_null(),
            }
        });
        assert_eq!(server, model.map(|model| Pod { uid: 0, ..model }), "{name}");
        if let (Some(object), Some(model)) = (&object, model) {
            let was = before.pods.now()[ordinal].map(|was| (was.uid, 0));
            same_change(
                &name,
                was,
                Some((model.uid, 0)),
                object,
                before_store,
                identities,
                false,
            );
        }
    }

    fn compare_claim(
        &mut self,
        ordinal: usize,
        before: &State,
        before_store: &BTreeMap<String, (String, String)>,
        identities: &mut BTreeMap<String, (String, String)>,
    ) {
        let name = format!("data-web-{ordinal}");
        let object = self.get(&format!("{CLAIMS}/{name}"));
        let model = self.state.claims.now()[ordinal];
        let server = object.as_ref().map(|object| self.owner(object, ordinal));
        let kept = model.map(|Claim { owner, .. }| match owner {
            // Whose pod it is, the owner's UID says on either side by being the one that is there, or another.
            Owner::Pod(uid) if self.state.pods.now()[ordinal].is_none_or(|pod| pod.uid != uid) => {
                Owner::Pod(STALE)
            }
            Owner::Pod(_) => Owner::Pod(0),
            Owner::Nobody | Owner::Set(_) | Owner::Stranger => owner,
        });
        assert_eq!(server, kept, "{name}");
        if let (Some(object), Some(model)) = (&object, model) {
            let was = before.claims.now()[ordinal].map(|was| (was.uid, was.version));
            same_change(
                &name,
                was,
                Some((model.uid, model.version)),
                object,
                before_store,
                identities,
                true,
            );
        }
    }

    fn owner(&self, object: &Value, ordinal: usize) -> Owner {
        let owners = object["metadata"]["ownerReferences"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let Some(owner) = owners.first() else {
            return Owner::Nobody;
        };
        assert_eq!(owners.len(), 1, "{object}");
        let uid = text(&owner["uid"]);
        if owner["kind"] == "Pod" {
            let key = format!("default/web-{ordinal}");
            let there = self
                .store
                .objects
                .borrow()
                .iter()
                .find(|((table, at), _)| table.1 == "pods" && *at == key)
                .map(|(_, stored)| text(&stored.value()["metadata"]["uid"]));
            return Owner::Pod(if there == Some(uid) { 0 } else { STALE });
        }
        let at = self
            .sets
            .iter()
            .position(|known| *known == uid)
            .expect("a set that there was");
        Owner::Set(u8::try_from(at + 1).unwrap())
    }

    /// What kubelet and user do to both sides; false where it does not apply.
    fn interfere(&mut self, ordinal: usize, choice: u64) {
        let name = format!("{PODS}/web-{ordinal}");
        let mut pods = self.state.pods.now();
        let Some(pod) = &mut pods[ordinal] else {
            return;
        };
        let ready = |status: &str| json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        match choice {
            0 if pod.life == Life::Pending => {
                pod.life = Life::Bound;
                self.must(
                    "POST",
                    &format!("{name}/binding"),
                    &json!({"target": {"kind": "Node", "name": "here"}}),
                );
            }
            1 if matches!(pod.life, Life::Bound | Life::Running) => {
                pod.life = Life::Ready;
                self.must("PATCH", &format!("{name}/status"), &ready("True"));
            }
            2 if pod.life == Life::Ready => {
                pod.life = Life::Running;
                self.must("PATCH", &format!("{name}/status"), &ready("False"));
            }
            3 if pod.life != Life::Failed && pod.life != Life::Pending => {
                pod.life = Life::Failed;
                self.must(
                    "PATCH",
                    &format!("{name}/status"),
                    &json!({"status": {"phase": "Failed", "conditions": null}}),
                );
            }
            4 if pod.terminating => {
                pods[ordinal] = None;
                self.must("DELETE", &name, &json!({"gracePeriodSeconds": 0}));
            }
            5 if !pod.terminating => {
                self.must("DELETE", &name, &Value::Null);
                stop_pod(&mut self.state, &self.world, ordinal);
                return;
            }
            6 if !pod.nameless => {
                pod.nameless = true;
                self.must(
                    "PATCH",
                    &name,
                    &json!({"metadata": {"labels": {"statefulset.kubernetes.io/pod-name": null}}}),
                );
            }
            _ => return,
        }
        self.state.put_pods(&self.world, pods);
    }

    fn edit_set(&mut self, choice: u64) {
        let Some(set) = self.state.sets.now() else {
            if self.sets.len() < 3 {
                self.create_set();
            }
            return;
        };
        if choice == 0 {
            self.must("DELETE", &format!("{SETS}/web"), &Value::Null);
            self.state.put_set(&self.world, None);
            return;
        }
        let replicas = (set.replicas + 1) % 4;
        self.must(
            "PATCH",
            &format!("{SETS}/web"),
            &json!({"spec": {"replicas": replicas}}),
        );
        let version = self.state.fresh(Id::SetVersion);
        // Only a set's last fifteen versions have a number.
        self.state.put_set(
            &self.world,
            Some(Set {
                replicas,
                version: version % STALE,
                generation: set.generation + 1,
                ..set
            }),
        );
    }
}

/// An object is the same one, or at the same version, on one side exactly when it is on the other.
fn same_change(
    name: &str,
    was: Option<(u8, u8)>,
    is: Option<(u8, u8)>,
    object: &Value,
    before: &BTreeMap<String, (String, String)>,
    after: &mut BTreeMap<String, (String, String)>,
    versions: bool,
) {
    let now = (
        text(&object["metadata"]["uid"]),
        text(&object["metadata"]["resourceVersion"]),
    );
    if let (Some(was), Some(is), Some(before)) = (was, is, before.get(name)) {
        // A new object may have a number that an earlier one had; one that was there before may not.
        if before.0 == now.0 {
            assert_eq!(was.0, is.0, "{name}: the UID");
            assert!(
                !versions || (was.1 == is.1) == (before.1 == now.1),
                "{name}: the version: {was:?} {is:?}, {before:?} {now:?}"
            );
        }
    }
    after.insert(name.to_owned(), now);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn revision(template: u8) -> Arc<str> {
    ["web-a", "web-b"][usize::from(template)].into()
}

fn life(pod: &Value) -> Life {
    let ready = pod["status"]["conditions"].as_array().is_some_and(|all| {
        all.iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    });
    match pod["status"]["phase"].as_str() {
        Some("Failed") => Life::Failed,
        Some("Running") if ready => Life::Ready,
        Some("Running") => Life::Running,
        _ if pod["spec"]["nodeName"].is_string() => Life::Bound,
        _ => Life::Pending,
    }
}

fn shipped_status(status: Status) -> statefulset::Status {
    let Status {
        observed,
        replicas,
        ready,
        available,
        current,
        updated,
        current_revision,
        update_revision,
    } = status;
    statefulset::Status {
        observed_generation: i64::from(observed),
        replicas: u32::from(replicas),
        ready_replicas: u32::from(ready),
        available_replicas: u32::from(available),
        current_replicas: u32::from(current),
        updated_replicas: u32::from(updated),
        current_revision: current_revision.map(revision),
        update_revision: update_revision.map(revision),
        collision_count: None,
    }
}

/// A small generator of numbers: the seed is the run. (Knuth's multiplier.)
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn small(&mut self, bound: u8) -> u8 {
        u8::try_from(self.below(u64::from(bound))).unwrap()
    }

    /// This one, or now and then one that nothing has.
    fn or_stale(&mut self, right: Option<u8>) -> u8 {
        if self.below(5) == 0 {
            STALE
        } else {
            right.unwrap_or(STALE)
        }
    }
}

fn random_call(state: &State, chance: &mut Chance, acting: u8) -> Op {
    let (ordinal, template) = (chance.small(3), chance.small(2));
    let at = usize::from(ordinal);
    let pod = state.pods.now()[at].map(|pod| pod.uid);
    let claim = state.claims.now()[at];
    let revision = state.revisions.now()[usize::from(template)].map(|revision| revision.uid);
    let set = state.sets.now();
    match chance.below(13) {
        0 => Op::AdoptRevision {
            template,
            uid: chance.or_stale(revision),
        },
        1 => Op::AdoptPod {
            ordinal,
            uid: chance.or_stale(pod),
        },
        2 => Op::ReleasePod {
            ordinal,
            uid: chance.or_stale(pod),
        },
        3 => Op::CreateRevision {
            template,
            number: 1 + chance.small(3),
        },
        4 => Op::RenumberRevision {
            template,
            uid: chance.or_stale(revision),
            number: 1 + chance.small(3),
        },
        5 => Op::DeleteRevision {
            template,
            uid: chance.or_stale(revision),
        },
        6 => Op::CreateClaim { ordinal },
        7 => Op::PatchClaim {
            ordinal,
            uid: chance.or_stale(claim.map(|claim| claim.uid)),
            version: chance.or_stale(claim.map(|claim| claim.version)),
            owner: match chance.below(3) {
                0 => Owner::Nobody,
                1 => Owner::Set(acting),
                _ => Owner::Pod(chance.or_stale(pod)),
            },
        },
        8 | 9 => Op::CreatePod {
            ordinal,
            revision: template,
        },
        10 => Op::UpdatePod {
            ordinal,
            uid: chance.or_stale(pod),
        },
        11 => Op::DeletePod {
            ordinal,
            uid: chance.or_stale(pod),
        },
        _ => {
            let status = Status {
                observed: 1,
                replicas: chance.small(3),
                current_revision: Some(template),
                ..Status::default()
            };
            Op::WriteStatus {
                version: set.map_or(STALE, |set| set.version),
                status,
            }
        }
    }
}

#[test]
fn the_model_answers_as_the_embedded_server_does() {
    let mut met: BTreeMap<(String, bool), usize> = BTreeMap::new();
    for seed in 0..40 {
        let mut chance = Chance(seed);
        let mut pair = Pair::new();
        let mut identities = BTreeMap::new();
        for _ in 0..150 {
            let before = pair.state;
            match chance.below(10) {
                0 if chance.below(4) == 0 => pair.edit_set(chance.below(3)),
                1..=4 => pair.interfere(usize::from(chance.small(3)), chance.below(7)),
                _ => {
                    let acting = u8::try_from(pair.sets.len()).unwrap();
                    let op = random_call(&pair.state, &mut chance, acting);
                    let name = format!("{op:?}")
                        .split(' ')
                        .next()
                        .unwrap_or_default()
                        .to_owned();
                    *met.entry((name, pair.call(op))).or_default() += 1;
                }
            }
            identities = pair.compare(&before, &identities);
        }
    }
    // Twelve calls there are, and each was accepted and refused often enough to mean something.
    assert_eq!(met.len(), 24, "{met:?}");
    assert!(met.values().all(|times| *times >= 5), "{met:?}");
}
