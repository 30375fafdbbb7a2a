//! Garbage collection by owner references: what has lost all its owners goes; what is deleted in the foreground waits
//! for its dependents; what is deleted as an orphan-maker lets them go first.
//!
//! An owner is identified by its UID and counts as gone only when the API itself says so. Every delete carries the UID
//! and the version of what was judged.

mod graph;

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::events::{EventType, KubeEvent, ObjectReference, Recorder};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, has_finalizer, is_terminating, list, text, uid};

use crate::informer::Kit;
use crate::metadata::{Meta, Served};
use crate::outcome;

use graph::{Graph, Work};

/// Objects under way at once. upstream: `--concurrent-gc-syncs`, 20.
const CONCURRENCY: usize = 16;

/// Adds the controller to the kit.
pub(crate) fn register(kit: &mut Kit) {
    let queue: Queue<Work> = Queue::new();
    let graph = Arc::new(Mutex::new(Graph::default()));
    kit.follow_metadata({
        let (graph, queue) = (Arc::clone(&graph), queue.clone());
        Arc::new(move |change| {
            for work in lock(&graph).apply(change) {
                queue.add(work);
            }
        })
    });
    let collector = Arc::new(Collector {
        client: kit.client("generic-garbage-collector"),
        recorder: kit.recorder("garbage-collector-controller"),
        served: kit.served().to_vec(),
        queue: queue.clone(),
        graph,
    });
    kit.work(queue, CONCURRENCY, move |work| {
        let collector = Arc::clone(&collector);
        async move { outcome::of("collect", &work, collector.sync(&work).await) }
    });
}

fn lock(graph: &Mutex<Graph>) -> MutexGuard<'_, Graph> {
    graph
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What is true of one owner of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnerState {
    /// It is there, or it cannot be judged: the object stays.
    Solid,
    /// The API says that it is gone.
    Absent,
    /// It is being deleted in the foreground and waits for this object.
    Waiting,
}

struct Collector {
    client: kube::Client,
    recorder: Recorder,
    served: Vec<Served>,
    queue: Queue<Work>,
    graph: Arc<Mutex<Graph>>,
}

impl Collector {
    async fn sync(&self, work: &Work) -> Result<Outcome, CallError> {
        let (Work::Judge(uid) | Work::Orphan(uid)) = work;
        let Some(meta) = lock(&self.graph).get(uid) else {
            return Ok(Outcome::Done);
        };
        match work {
            Work::Orphan(_) => self.orphan(&meta).await?,
            Work::Judge(_) if meta.terminating && meta.foreground => {
                self.finish_foreground(&meta).await?
            }
            Work::Judge(_) if meta.terminating || meta.owners.is_empty() => {}
            Work::Judge(_) => self.judge(&meta).await?,
        }
        Ok(Outcome::Done)
    }

    /// Lets an object go that waits for its dependents, once none of them blocks it; else sees to them.
    async fn finish_foreground(&self, meta: &Meta) -> Result<(), CallError> {
        let dependents = lock(&self.graph).dependents(&meta.uid);
        let blocks = |dependent: &Arc<Meta>| {
            dependent
                .owners
                .iter()
                .any(|owner| owner.uid == meta.uid && owner.blocks)
        };
        if !dependents.iter().any(blocks) {
            return self.drop_finalizer(meta, "foregroundDeletion").await;
        }
        for dependent in dependents.iter().filter(|dependent| !dependent.terminating) {
            self.queue.add(Work::Judge(dependent.uid.clone()));
        }
        Ok(())
    }

    /// Takes the owner out of all its dependents, then lets it go.
    async fn orphan(&self, meta: &Meta) -> Result<(), CallError> {
        if !(meta.terminating && meta.orphan) {
            return Ok(());
        }
        let dependents = lock(&self.graph).dependents(&meta.uid);
        for dependent in &dependents {
            if let Some(live) = self
                .live(&dependent.resource, &dependent.key, &dependent.uid)
                .await?
            {
                self.remove_owners(&dependent.resource, &live, &[meta.uid.as_str()])
                    .await?;
            }
        }
        self.drop_finalizer(meta, "orphan").await
    }

    /// Deletes an object that has no owner left, and frees one that has of those that are gone.
    async fn judge(&self, meta: &Meta) -> Result<(), CallError> {
        let Some(live) = self.live(&meta.resource, &meta.key, &meta.uid).await? else {
            return Ok(());
        };
        if is_terminating(&live) {
            return Ok(());
        }
        let owners = list(&live, "/metadata/ownerReferences");
        let mut states = Vec::with_capacity(owners.len());
        for owner in owners {
            states.push(self.state_of(owner, meta, &live).await?);
        }
        if states.is_empty() {
            return Ok(());
        }
        if states.contains(&OwnerState::Solid) {
            let gone = owners
                .iter()
                .zip(&states)
                .filter(|(_, state)| **state != OwnerState::Solid);
            let gone: Vec<&str> = gone.map(|(owner, _)| text(owner, "/uid")).collect();
            return self.remove_owners(&meta.resource, &live, &gone).await;
        }
        self.delete(meta, &live, states.contains(&OwnerState::Waiting))
            .await
    }

    async fn state_of(
        &self,
        owner: &Value,
        meta: &Meta,
        live: &Value,
    ) -> Result<OwnerState, CallError> {
        let (api_version, kind) = (text(owner, "/apiVersion"), text(owner, "/kind"));
        let known = self.served.iter().map(|own| &own.resource);
        let mut known = known.filter(|own| own.api_version() == api_version && own.kind == kind);
        // A kind that is not served: nobody can say whether the owner is there.
        let Some(resource) = known.next() else {
            return Ok(OwnerState::Solid);
        };
        if resource.namespaced && !meta.resource.namespaced {
            self.warn_of_namespace(
                live,
                owner,
                "cluster-scoped objects cannot be owned by namespaced ones",
            );
            return Ok(OwnerState::Solid);
        }
        let namespace = if resource.namespaced {
            meta.key.namespace.as_str()
        } else {
            ""
        };
        let owner_uid = text(owner, "/uid");
        if let Some(own) = lock(&self.graph).get(owner_uid) {
            if own.key.namespace == namespace {
                let waits = own.terminating && own.foreground;
                return Ok(if waits {
                    OwnerState::Waiting
                } else {
                    OwnerState::Solid
                });
            }
            // upstream: an owner in another namespace is as good as none.
            self.warn_of_namespace(
                live,
                owner,
                "the owner does not exist in the object's namespace",
            );
        }
        let key = Key::new(namespace, text(owner, "/name"));
        let found = self.live(resource, &key, owner_uid).await?;
        Ok(match found {
            None => OwnerState::Absent,
            Some(own) if is_terminating(&own) && has_finalizer(&own, "foregroundDeletion") => {
                OwnerState::Waiting
            }
            Some(_) => OwnerState::Solid,
        })
    }

    fn warn_of_namespace(&self, live: &Value, owner: &Value, why: &str) {
        let message = format!("ownerRef {owner}: {why}");
        let about = ObjectReference::of(live);
        self.recorder.record(KubeEvent {
            about,
            event_type: EventType::Warning,
            reason: "OwnerRefInvalidNamespace",
            message,
        });
    }

    async fn delete(&self, meta: &Meta, live: &Value, waited_for: bool) -> Result<(), CallError> {
        let has_dependents = !lock(&self.graph).dependents(&meta.uid).is_empty();
        if waited_for && has_dependents {
            self.break_circles(meta, live).await?;
        }
        let policy = if has_finalizer(live, "orphan") {
            "Orphan"
        } else if has_finalizer(live, "foregroundDeletion") || (waited_for && has_dependents) {
            "Foreground"
        } else {
            "Background"
        };
        let mut request = Request::delete(&meta.resource, &meta.key, &meta.uid);
        request.body["propagationPolicy"] = policy.into();
        // The version too, unless it was changed just above: an owner added meanwhile keeps the object.
        if policy != "Foreground" {
            request.body["preconditions"]["resourceVersion"] =
                live["metadata"]["resourceVersion"].clone();
        }
        match call(&self.client, request).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Objects that own each other would wait for each other: one that is waited for no longer blocks its owners when
    /// a dependent of its own waits too.
    async fn break_circles(&self, meta: &Meta, live: &Value) -> Result<(), CallError> {
        let waits = |dependent: &Arc<Meta>| dependent.terminating && dependent.foreground;
        if !lock(&self.graph).dependents(&meta.uid).iter().any(waits) {
            return Ok(());
        }
        let mut owners = list(live, "/metadata/ownerReferences").to_vec();
        for owner in &mut owners {
            owner["blockOwnerDeletion"] = false.into();
        }
        self.write_owners(&meta.resource, live, &owners).await
    }

    async fn remove_owners(
        &self,
        resource: &Resource,
        live: &Value,
        gone: &[&str],
    ) -> Result<(), CallError> {
        let owners = list(live, "/metadata/ownerReferences");
        let kept: Vec<Value> = owners
            .iter()
            .filter(|owner| !gone.contains(&text(owner, "/uid")))
            .cloned()
            .collect();
        if kept.len() == owners.len() {
            return Ok(());
        }
        self.write_owners(resource, live, &kept).await
    }

    async fn write_owners(
        &self,
        resource: &Resource,
        live: &Value,
        owners: &[Value],
    ) -> Result<(), CallError> {
        self.merge(resource, live, json!({"ownerReferences": owners}))
            .await
    }

    async fn drop_finalizer(&self, meta: &Meta, finalizer: &str) -> Result<(), CallError> {
        let Some(live) = self.live(&meta.resource, &meta.key, &meta.uid).await? else {
            return Ok(());
        };
        if !has_finalizer(&live, finalizer) {
            return Ok(());
        }
        let kept: Vec<&Value> = list(&live, "/metadata/finalizers")
            .iter()
            .filter(|own| *own != finalizer)
            .collect();
        self.merge(&meta.resource, &live, json!({"finalizers": kept}))
            .await
    }

    /// Merges into the metadata of an object that is still the one and the version that was read.
    async fn merge(
        &self,
        resource: &Resource,
        live: &Value,
        mut metadata: Value,
    ) -> Result<(), CallError> {
        metadata["uid"] = uid(live).into();
        metadata["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        let request = Request::patch(
            Method::MergePatch,
            resource,
            &Key::of(live),
            json!({ "metadata": metadata }),
        );
        match call(&self.client, request).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// The object as the API has it, if it is still the one with this UID.
    async fn live(
        &self,
        resource: &Resource,
        key: &Key,
        wanted: &str,
    ) -> Result<Option<Value>, CallError> {
        match call(&self.client, Request::get(resource, key)).await {
            Ok(object) => Ok(Some(object).filter(|object| uid(object) == wanted)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
