//! Resource quotas: writes in each quota's status what is used of it.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use stead_apiserver::quota::{self, Amounts};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, list, uid};

use crate::informer::{Cache, Change, Kit};
use crate::metadata::{MetaChange, Served};
use crate::outcome;

/// Quotas under way at once.
const CONCURRENCY: usize = 2;

/// Adds the controller to the kit, if the API serves quotas.
pub(crate) fn register(kit: &mut Kit) {
    let served = kit.served().to_vec();
    let Some(quotas) = served
        .iter()
        .find(|own| own.resource.kind == "ResourceQuota")
    else {
        return;
    };
    let resource = Resource::clone(&quotas.resource);
    let queue: Queue<Key> = Queue::new();
    let quotas = kit.follow(resource.clone(), {
        let queue = queue.clone();
        let spec = |quota: &Value| quota.get("spec").cloned();
        move |change: &Change<'_>| {
            if change.old.and_then(spec) != change.new.and_then(spec) {
                queue.add(change.key.clone());
            }
        }
    });
    // What comes and goes is counted, whatever it is; of pods and claims also what becomes of them.
    kit.follow_metadata(Arc::new({
        let (queue, quotas) = (queue.clone(), quotas.clone());
        move |change: &MetaChange<'_>| {
            if let (Some(one), None) | (None, Some(one)) = (change.old, change.new) {
                name_all(&queue, &quotas, &one.key.namespace);
            }
        }
    }));
    for changing in [Resource::PODS, Resource::CLAIMS, Resource::SERVICES] {
        let (queue, quotas) = (queue.clone(), quotas.clone());
        kit.follow(changing, move |change: &Change<'_>| {
            let counts = |own: &Value| {
                let kept = ["/status/phase", "/spec/resources", "/spec/type"];
                kept.map(|pointer| own.pointer(pointer).cloned())
            };
            if change.old.map(counts) != change.new.map(counts) {
                name_all(&queue, &quotas, &change.key.namespace);
            }
        });
    }
    let keeper = Arc::new(Keeper {
        client: kit.client("resourcequota-controller"),
        resource,
        quotas,
        served,
    });
    kit.work(queue, CONCURRENCY, move |key| {
        let keeper = Arc::clone(&keeper);
        async move { outcome::of("quotas", &key, keeper.sync(&key).await) }
    });
}

fn name_all(queue: &Queue<Key>, quotas: &Cache, namespace: &str) {
    for quota in quotas.list(namespace) {
        queue.add(Key::of(&quota));
    }
}

struct Keeper {
    client: kube::Client,
    resource: Resource,
    quotas: Cache,
    served: Vec<Served>,
}

impl Keeper {
    async fn sync(&self, key: &Key) -> Result<Outcome, CallError> {
        let Some(own) = self.quotas.get(key) else {
            return Ok(Outcome::Done);
        };
        let used = self.used(&own, &key.namespace).await?;
        let status = json!({"hard": own.pointer("/spec/hard"), "used": shown(&used)});
        if own.get("status") == Some(&status) {
            return Ok(Outcome::Done);
        }
        // Amounts that are no longer limited must go: the status is replaced, not merged.
        let mut new = Value::clone(&own);
        new["status"] = status;
        new["metadata"]["uid"] = uid(&own).into();
        let request = Request::patch(Method::Put, &self.resource, key, new);
        call(&self.client, request.on("status")).await?;
        Ok(Outcome::Done)
    }

    /// What is used, counted from the objects as the API has them now.
    async fn used(&self, own: &Value, namespace: &str) -> Result<Amounts, CallError> {
        let mut used = Amounts::new();
        for (group, plural) in quota::counted(own) {
            let mut served = self.served.iter().map(|served| &served.resource);
            let Some(resource) = served.find(|own| own.group == group && own.plural == plural)
            else {
                continue;
            };
            let all = call(&self.client, Request::list(resource, Some(namespace))).await?;
            let about = |object: &&Value| quota::is_about(own, &group, &plural, object);
            for object in list(&all, "/items").iter().filter(about) {
                quota::add(&mut used, &quota::taken(&group, &plural, object));
            }
        }
        Ok(quota::limited(own, &used))
    }
}

fn shown(amounts: &Amounts) -> Map<String, Value> {
    let shown = amounts.iter();
    shown
        .map(|(name, amount)| (name.clone(), amount.to_string().into()))
        .collect()
}
