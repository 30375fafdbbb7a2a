//! Claims and volumes: binds each claim to a volume, makes volumes of the class that is ours, protects what is in use,
//! and gives back what nobody claims any more. A volume is deleted only when its policy says so and its claim is
//! proved gone.

mod rules;

pub(crate) use rules::{NO_PROVISIONER, SELECTED_NODE, annotation, best_match};

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::events::{EventType, Recorder};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, has_finalizer, is_terminating, list, text, uid};

use crate::bind::claims_of;
use crate::informer::{Cache, Change, Kit};
use crate::outcome;

use rules::{CLAIM_PROTECTION, DRIVER, PROVISIONER, VOLUME_PROTECTION, Waits};

/// Claims and volumes under way at once.
const CONCURRENCY: usize = 8;
/// The class of claims that name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// What there is to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    /// A claim: bind it, or say why not.
    Claim(Key),
    /// A volume: its phase, its end.
    Volume(Key),
    /// The claims of a namespace that are to go: those that no pod uses may.
    Unprotect(String),
}

/// Adds the controller to the kit. Where no pod can run (`workloads` is false) no claim is in use.
pub(crate) fn register(kit: &mut Kit, workloads: bool) {
    let queue: Queue<Work> = Queue::new();
    let claims = kit.cache(Resource::CLAIMS);
    let pods = kit.follow(Resource::PODS, on_pod(queue.clone(), claims.clone()));
    let volumes = kit.cache(Resource::VOLUMES);
    kit.follow(Resource::CLAIMS, on_claim(queue.clone(), volumes));
    let volumes = kit.follow(Resource::VOLUMES, on_volume(queue.clone(), claims.clone()));
    let classes = kit.follow(
        Resource::STORAGE_CLASSES,
        on_class(queue.clone(), claims.clone()),
    );
    let client = kit.client("persistent-volume-binder");
    let recorder = kit.recorder("persistentvolume-controller");
    let keeper = Arc::new(Keeper {
        client,
        recorder,
        claims,
        volumes,
        classes,
        pods,
        workloads,
    });
    kit.work(queue, CONCURRENCY, move |work| {
        let keeper = Arc::clone(&keeper);
        async move { outcome::of("claims", &work, keeper.sync(&work).await) }
    });
}

fn on_pod(queue: Queue<Work>, claims: Cache) -> impl Fn(&Change<'_>) {
    move |change| {
        let Some(pod) = change.latest() else { return };
        let namespace = &change.key.namespace;
        let appeared_or_went = change.old.is_none() || change.new.is_none();
        if !appeared_or_went {
            return;
        }
        for claim in claims_of(pod).map(|name| Key::new(namespace, name)) {
            match claims.get(&claim) {
                Some(claim) if is_terminating(&claim) => {
                    queue.add(Work::Unprotect(namespace.clone()))
                }
                // The first consumer, for which claims of some classes wait.
                Some(own) if text(&own, "/status/phase") != "Bound" => {
                    queue.add(Work::Claim(claim))
                }
                Some(_) | None => {}
            }
        }
    }
}

fn on_claim(queue: Queue<Work>, volumes: Cache) -> impl Fn(&Change<'_>) {
    move |change| {
        let volume = |claim: &Value| Key::new("", text(claim, "/spec/volumeName"));
        match change.new {
            Some(claim) if is_terminating(claim) => {
                queue.add(Work::Unprotect(change.key.namespace.clone()))
            }
            Some(_) => queue.add(Work::Claim(change.key.clone())),
            None => {}
        }
        let went = change
            .old
            .filter(|old| change.new.is_none_or(|new| uid(new) != uid(old)));
        for volume in went
            .map(volume)
            .into_iter()
            .filter(|key| !key.name.is_empty())
        {
            queue.add(Work::Volume(volume));
        }
        // A volume that was made for a claim which went before it was bound to it.
        let made = went.map(|old| Key::new("", rules::new_volume_name(old)));
        if let Some(made) = made.filter(|made| volumes.get(made).is_some()) {
            queue.add(Work::Volume(made));
        }
    }
}

fn on_volume(queue: Queue<Work>, claims: Cache) -> impl Fn(&Change<'_>) {
    move |change| {
        if change.new.is_some() {
            queue.add(Work::Volume(change.key.clone()));
        }
        match change.latest().and_then(rules::claim_of) {
            Some(claim) => queue.add(Work::Claim(claim)),
            // A free volume may be what somebody waits for.
            None if change.old.is_none() => queue_unbound(&queue, &claims),
            None => {}
        }
    }
}

fn on_class(queue: Queue<Work>, claims: Cache) -> impl Fn(&Change<'_>) {
    move |_| queue_unbound(&queue, &claims)
}

fn queue_unbound(queue: &Queue<Work>, claims: &Cache) {
    for claim in claims
        .all()
        .iter()
        .filter(|claim| text(claim, "/status/phase") != "Bound")
    {
        queue.add(Work::Claim(Key::of(claim)));
    }
}

struct Keeper {
    client: kube::Client,
    recorder: Recorder,
    claims: Cache,
    volumes: Cache,
    classes: Cache,
    pods: Cache,
    workloads: bool,
}

impl Keeper {
    async fn sync(&self, work: &Work) -> Result<Outcome, CallError> {
        match work {
            Work::Claim(key) => match self.claims.get(key) {
                Some(claim) if !is_terminating(&claim) => self.sync_claim(&claim).await?,
                Some(_) | None => {}
            },
            Work::Volume(key) => {
                if let Some(volume) = self.volumes.get(key) {
                    self.sync_volume(&volume).await?;
                }
            }
            Work::Unprotect(namespace) => self.unprotect(namespace).await?,
        }
        Ok(Outcome::Done)
    }

    async fn sync_claim(&self, claim: &Value) -> Result<(), CallError> {
        let named = text(claim, "/spec/volumeName");
        if !named.is_empty() {
            return self.sync_named(claim, named).await;
        }
        let class = Key::new("", text(claim, "/spec/storageClassName"));
        let class = self.classes.get(&class);
        let waits = match class.as_deref() {
            Some(class) if rules::waits_for_consumer(class) && !self.is_wanted(claim) => Waits::Yes,
            Some(_) | None => Waits::No,
        };
        let volumes = self.volumes.all();
        let kept = |volume: &&Value| waits == Waits::No || rules::is_for(volume, claim);
        let candidates = volumes.iter().map(AsRef::as_ref).filter(kept);
        match rules::best_match(claim, candidates) {
            Some(volume) => self.bind(claim, volume).await,
            None => self.provision(claim, waits).await,
        }
    }

    /// A claim that names its volume: by its user, or because it was bound before.
    async fn sync_named(&self, claim: &Value, name: &str) -> Result<(), CallError> {
        let volume = match self.volumes.get(&Key::new("", name)) {
            Some(volume) => Some(Value::clone(&volume)),
            None => self.live(&Resource::VOLUMES, &Key::new("", name)).await?,
        };
        let was_bound = rules::was_bound(claim);
        match volume {
            Some(volume) if rules::claim_of(&volume).is_none() || rules::is_for(&volume, claim) => {
                match rules::why_unsuitable(claim, &volume).filter(|_| !was_bound) {
                    Some(why) => {
                        let message = format!("Cannot bind to requested volume \"{name}\": {why}");
                        self.refuse(claim, EventType::Warning, "VolumeMismatch", &message)
                            .await
                    }
                    None => {
                        self.grow(claim, &volume).await?;
                        self.bind(claim, &volume).await
                    }
                }
            }
            Some(_) if was_bound => {
                self.lose(
                    claim,
                    "ClaimMisbound",
                    "Two claims are bound to the same volume, this one is bound incorrectly",
                )
                .await
            }
            Some(_) => {
                let message = format!("volume \"{name}\" already bound to a different claim.");
                self.recorder
                    .about(claim, EventType::Warning, "FailedBinding", message);
                self.set_pending(claim).await
            }
            None if was_bound => {
                let message =
                    "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
                self.lose(claim, "ClaimLost", message).await
            }
            None => self.set_pending(claim).await,
        }
    }

    /// Makes the volume of a claim that asks for more as large as that: a folder has no size of its own, so it is only
    /// written down. The claim's status follows when the change of the volume comes round.
    async fn grow(&self, claim: &Value, volume: &Value) -> Result<(), CallError> {
        let Some(size) = rules::larger(claim, volume) else {
            return Ok(());
        };
        if text(volume, "/spec/csi/driver") != DRIVER {
            let message = "waiting for an external controller to expand this PVC";
            self.recorder
                .about(claim, EventType::Normal, "ExternalExpanding", message);
            return Ok(());
        }
        let name = text(volume, "/metadata/name");
        let message = format!("External resizer is resizing volume {name}");
        self.recorder
            .about(claim, EventType::Normal, "Resizing", message);
        let patch = json!({"spec": {"capacity": {"storage": size}}});
        self.merge(&Resource::VOLUMES, volume, patch).await?;
        self.recorder.about(
            claim,
            EventType::Normal,
            "VolumeResizeSuccessful",
            "Resize volume succeeded",
        );
        Ok(())
    }

    /// Writes what is still missing of the binding, the volume's side first.
    async fn bind(&self, claim: &Value, volume: &Value) -> Result<(), CallError> {
        let (claim_key, volume_key) = (Key::of(claim), Key::of(volume));
        if let Some(patch) = rules::bind_volume(volume, claim) {
            self.merge(&Resource::VOLUMES, volume, patch).await?;
        }
        if let Some(patch) = rules::bind_claim(claim, volume) {
            let request = Request::patch(Method::MergePatch, &Resource::CLAIMS, &claim_key, patch);
            call(&self.client, request).await?;
        }
        let claim_status = rules::bound_status(claim, volume).map(|status| {
            let patch = json!({"metadata": {"uid": uid(claim)}, "status": status});
            Request::patch(Method::MergePatch, &Resource::CLAIMS, &claim_key, patch).on("status")
        });
        let volume_status =
            (text(volume, "/status/phase") != "Bound").then(|| volume_phase(&volume_key, "Bound"));
        let (claim_done, volume_done) =
            futures::join!(self.maybe(claim_status), self.maybe(volume_status));
        claim_done.and(volume_done)
    }

    async fn maybe(&self, request: Option<Request>) -> Result<(), CallError> {
        match request {
            Some(request) => call(&self.client, request).await.map(drop),
            None => Ok(()),
        }
    }

    /// Makes a volume for a claim, or says why none comes.
    async fn provision(&self, claim: &Value, waits: Waits) -> Result<(), CallError> {
        let Some(name) = claim
            .pointer("/spec/storageClassName")
            .and_then(Value::as_str)
        else {
            return self.give_default_class(claim).await;
        };
        if name.is_empty() {
            return self.wait_without_class(claim).await;
        }
        let Some(class) = self.classes.get(&Key::new("", name)) else {
            let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
            return self
                .refuse(claim, EventType::Warning, "ProvisioningFailed", &message)
                .await;
        };
        if waits == Waits::Yes {
            let message = "waiting for first consumer to be created before binding";
            return self
                .refuse(claim, EventType::Normal, "WaitForFirstConsumer", message)
                .await;
        }
        let provisioner = text(&class, "/provisioner");
        if provisioner == NO_PROVISIONER {
            let message = format!(
                "storageclass.storage.k8s.io \"{name}\" has no provisioner, and no volume of it is free"
            );
            return self
                .refuse(claim, EventType::Normal, "FailedBinding", &message)
                .await;
        }
        if provisioner != PROVISIONER {
            return self.wait_for_stranger(claim, provisioner).await;
        }
        if let Some(why) = rules::why_impossible(claim, &class) {
            let message = format!("failed to provision volume with StorageClass \"{name}\": {why}");
            return self
                .refuse(claim, EventType::Warning, "ProvisioningFailed", &message)
                .await;
        }
        self.make(claim, &class).await
    }

    async fn make(&self, claim: &Value, class: &Value) -> Result<(), CallError> {
        let volume = match call(
            &self.client,
            Request::create(&Resource::VOLUMES, rules::new_volume(claim, class)),
        )
        .await
        {
            Ok(volume) => volume,
            // Made in an earlier turn whose answer was lost: the name holds the claim's UID.
            Err(error) if error.is_already_exists() => {
                call(
                    &self.client,
                    Request::get(
                        &Resource::VOLUMES,
                        &Key::new("", rules::new_volume_name(claim)),
                    ),
                )
                .await?
            }
            Err(error) => return Err(error),
        };
        self.bind(claim, &volume).await?;
        let message = format!(
            "Successfully provisioned volume {}",
            text(&volume, "/metadata/name")
        );
        self.recorder
            .about(claim, EventType::Normal, "ProvisioningSucceeded", message);
        Ok(())
    }

    /// A claim made before there was a default class gets the one that is there now. upstream: retroactive default.
    async fn give_default_class(&self, claim: &Value) -> Result<(), CallError> {
        let classes = self.classes.all();
        let default = classes
            .iter()
            .find(|class| rules::annotation(class, DEFAULT_CLASS) == "true");
        let Some(class) = default else {
            return self.wait_without_class(claim).await;
        };
        let patch = json!({"metadata": {"uid": uid(claim)}, "spec": {"storageClassName": text(class, "/metadata/name")}});
        let request = Request::patch(
            Method::MergePatch,
            &Resource::CLAIMS,
            &Key::of(claim),
            patch,
        );
        call(&self.client, request).await.map(drop)
    }

    async fn wait_without_class(&self, claim: &Value) -> Result<(), CallError> {
        let message = "no persistent volumes available for this claim and no storage class is set";
        self.refuse(claim, EventType::Normal, "FailedBinding", message)
            .await
    }

    async fn wait_for_stranger(&self, claim: &Value, provisioner: &str) -> Result<(), CallError> {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        self.refuse(claim, EventType::Normal, "ExternalProvisioning", &message)
            .await
    }

    async fn refuse(
        &self,
        claim: &Value,
        event: EventType,
        reason: &'static str,
        message: &str,
    ) -> Result<(), CallError> {
        self.recorder.about(claim, event, reason, message);
        self.set_pending(claim).await
    }

    async fn set_pending(&self, claim: &Value) -> Result<(), CallError> {
        self.set_claim_phase(claim, "Pending").await
    }

    async fn lose(
        &self,
        claim: &Value,
        reason: &'static str,
        message: &str,
    ) -> Result<(), CallError> {
        if text(claim, "/status/phase") != "Lost" {
            self.recorder
                .about(claim, EventType::Warning, reason, message);
        }
        self.set_claim_phase(claim, "Lost").await
    }

    async fn set_claim_phase(&self, claim: &Value, phase: &str) -> Result<(), CallError> {
        if text(claim, "/status/phase") == phase {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": uid(claim)}, "status": {"phase": phase}});
        let request = Request::patch(
            Method::MergePatch,
            &Resource::CLAIMS,
            &Key::of(claim),
            patch,
        )
        .on("status");
        call(&self.client, request).await.map(drop)
    }

    /// Whether a pod that uses the claim has a node, or would have one but for this claim.
    fn is_wanted(&self, claim: &Value) -> bool {
        let Key { namespace, name } = Key::of(claim);
        let placed = |pod: &Value| !text(pod, "/spec/nodeName").is_empty();
        let pods = self.pods.list(&namespace);
        let mut pods = pods.iter();
        !rules::annotation(claim, SELECTED_NODE).is_empty()
            || pods.any(|pod| placed(pod) && claims_of(pod).any(|used| used == name))
    }

    async fn sync_volume(&self, volume: &Value) -> Result<(), CallError> {
        let Some(claim) = rules::claim_of(volume) else {
            return self.settle(volume, "Available").await;
        };
        let kept_for = text(volume, "/spec/claimRef/uid");
        if kept_for.is_empty() {
            return self.settle(volume, "Available").await;
        }
        let is_same = |claim: &Value| uid(claim) == kept_for;
        if self.claims.get(&claim).is_some_and(|claim| is_same(&claim)) {
            // Bound, or about to be: the claim's own turn writes the phase.
            return Ok(());
        }
        // The cache may be behind; data goes only when the API itself says that the claim is gone.
        if self
            .live(&Resource::CLAIMS, &claim)
            .await?
            .is_some_and(|claim| is_same(&claim))
        {
            return Ok(());
        }
        if text(volume, "/status/phase") != "Failed" {
            self.settle(volume, "Released").await?;
        }
        self.reclaim(volume).await
    }

    /// Sets the phase of a volume that no claim holds, and lets it go when it is to go.
    async fn settle(&self, volume: &Value, phase: &str) -> Result<(), CallError> {
        if is_terminating(volume) {
            return self
                .drop_finalizer(&Resource::VOLUMES, volume, VOLUME_PROTECTION)
                .await;
        }
        if text(volume, "/status/phase") == phase {
            return Ok(());
        }
        call(&self.client, volume_phase(&Key::of(volume), phase))
            .await
            .map(drop)
    }

    async fn reclaim(&self, volume: &Value) -> Result<(), CallError> {
        if is_terminating(volume) || text(volume, "/spec/persistentVolumeReclaimPolicy") != "Delete"
        {
            return Ok(());
        }
        if text(volume, "/spec/csi/driver") != DRIVER {
            let name = text(volume, "/metadata/name");
            let message = format!(
                "error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched: \
                 delete the PersistentVolume and what it stands for by hand"
            );
            self.recorder
                .about(volume, EventType::Warning, "VolumeFailedDelete", message);
            return self.settle(volume, "Failed").await;
        }
        let request = Request::delete(&Resource::VOLUMES, &Key::of(volume), uid(volume));
        match call(&self.client, request).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Lets those claims of a namespace go that are to go and that no pod uses.
    async fn unprotect(&self, namespace: &str) -> Result<(), CallError> {
        let going: Vec<Arc<Value>> = self.claims.list(namespace);
        let going = going
            .into_iter()
            .filter(|claim| is_terminating(claim) && has_finalizer(claim, CLAIM_PROTECTION));
        let used = used_claims(self.pods.list(namespace).iter().map(AsRef::as_ref));
        let unused = |used: &BTreeSet<String>, claim: &Value| {
            !self.workloads || !used.contains(text(claim, "/metadata/name"))
        };
        let candidates: Vec<_> = going.filter(|claim| unused(&used, claim)).collect();
        if candidates.is_empty() {
            return Ok(());
        }
        // One live list for all of them: a pod that the cache does not show yet counts too.
        let pods = call(
            &self.client,
            Request::list(&Resource::PODS, Some(namespace)),
        )
        .await?;
        let used = used_claims(list(&pods, "/items").iter());
        let free = candidates.iter().filter(|claim| unused(&used, claim));
        let resource = Resource::CLAIMS;
        let done = free.map(|claim| self.drop_finalizer(&resource, claim, CLAIM_PROTECTION));
        futures::future::join_all(done).await.into_iter().collect()
    }

    async fn drop_finalizer(
        &self,
        resource: &Resource,
        object: &Value,
        finalizer: &str,
    ) -> Result<(), CallError> {
        if !has_finalizer(object, finalizer) {
            return Ok(());
        }
        let kept: Vec<&Value> = list(object, "/metadata/finalizers")
            .iter()
            .filter(|own| *own != finalizer)
            .collect();
        match self
            .merge(resource, object, json!({"metadata": {"finalizers": kept}}))
            .await
        {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Merges a patch into an object if it is still as we know it.
    async fn merge(
        &self,
        resource: &Resource,
        object: &Value,
        mut patch: Value,
    ) -> Result<(), CallError> {
        patch["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
        call(
            &self.client,
            Request::patch(Method::MergePatch, resource, &Key::of(object), patch),
        )
        .await
        .map(drop)
    }

    async fn live(&self, resource: &Resource, key: &Key) -> Result<Option<Value>, CallError> {
        match call(&self.client, Request::get(resource, key)).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn volume_phase(key: &Key, phase: &str) -> Request {
    Request::patch(
        Method::MergePatch,
        &Resource::VOLUMES,
        key,
        json!({"status": {"phase": phase}}),
    )
    .on("status")
}

/// Names of the claims that pods on a node use. upstream: a pod that is not bound yet does not count: the node would
/// not start it on a claim that is being deleted.
fn used_claims<'a>(pods: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    let bound = pods.filter(|pod| !text(pod, "/spec/nodeName").is_empty());
    bound
        .flat_map(|pod| claims_of(pod).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}
