//! Taints by condition: writes on a node what its conditions and its cordon ask for, and takes off what they no longer do.

use std::sync::Arc;

use serde_json::{Value, json};
use stead_controller::call::{CallError, Method, Request, call};
use stead_controller::queue::{Outcome, Queue};
use stead_controller::resource::{Key, Resource, list};

use crate::bind::taints;
use crate::informer::{Change, Kit};
use crate::outcome;

/// Adds the controller to the kit.
pub(crate) fn register(kit: &mut Kit) {
    let queue: Queue<Key> = Queue::new();
    let nodes = kit.follow(Resource::NODES, {
        let queue = queue.clone();
        move |change: &Change<'_>| {
            if change.new.is_some_and(is_wrong) {
                queue.add(change.key.clone());
            }
        }
    });
    let client = Arc::new(kit.client("node-lifecycle-controller"));
    kit.work(queue, 1, move |key| {
        let (client, nodes) = (Arc::clone(&client), nodes.clone());
        async move {
            let done = match nodes.get(&key).filter(|node| is_wrong(node)) {
                Some(node) => write(&client, &node).await,
                None => Ok(()),
            };
            outcome::of("node-taints", &key, done.map(|()| Outcome::Done))
        }
    });
}

fn is_wrong(node: &Value) -> bool {
    taints::wanted(node) != list(node, "/spec/taints")
}

/// Writes the taints if the node is still as it was seen.
async fn write(client: &kube::Client, node: &Value) -> Result<(), CallError> {
    let seen = &node["metadata"]["resourceVersion"];
    let wanted = taints::wanted(node);
    let taints = if wanted.is_empty() {
        Value::Null
    } else {
        Value::from(wanted)
    };
    let patch = json!({"metadata": {"resourceVersion": seen}, "spec": {"taints": taints}});
    let request = Request::patch(Method::MergePatch, &Resource::NODES, &Key::of(node), patch);
    call(client, request).await.map(drop)
}
