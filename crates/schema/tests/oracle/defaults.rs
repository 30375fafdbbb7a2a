//! What is created is stored as recorded: pruned and defaulted, apart from what a server fills in.

use serde_json::Value;
use stead_schema::{prune, set_defaults};

use crate::recorded;

const THEMES: [&str; 9] = [
    "crud",
    "validation",
    "immutable",
    "list",
    "watch",
    "delete",
    "subresource",
    "protocol",
    "namespace",
];

/// Fields that admission, allocation and the strategies of the server set; JSON pointers.
const OF_THE_SERVER: &[&str] = &[
    "/metadata",
    "/spec/clusterIP",
    "/spec/clusterIPs",
    "/spec/ipFamilies",
    "/spec/ipFamilyPolicy",
    "/spec/serviceAccount",
    "/spec/serviceAccountName",
    "/spec/tolerations",
    "/spec/priority",
    "/spec/preemptionPolicy",
    "/spec/finalizers",
    "/spec/storageClassName",
    "/spec/selector",
    "/spec/taints",
    "/spec/template/metadata/labels",
    "/status",
];

fn without_the_servers(mut object: Value) -> Value {
    for pointer in OF_THE_SERVER {
        let (parent, name) = pointer
            .rsplit_once('/')
            .expect("pointers begin with a slash");
        if let Some(Value::Object(map)) = object.pointer_mut(parent) {
            map.remove(name);
        }
    }
    without_the_account_token(&mut object["spec"]);
    object
}

/// Admission mounts the service account's token into every pod.
fn without_the_account_token(spec: &mut Value) {
    let is_token = |value: &Value| {
        value["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    let drop_tokens = |owner: &mut Value, list: &str| {
        let Some(map) = owner.as_object_mut() else {
            return;
        };
        let Some(Value::Array(elements)) = map.get_mut(list) else {
            return;
        };
        elements.retain(|value| !is_token(value));
        if elements.is_empty() {
            map.remove(list);
        }
    };
    drop_tokens(spec, "volumes");
    for list in ["containers", "initContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            drop_tokens(container, "volumeMounts");
        }
    }
}

#[test]
fn everything_that_is_created_is_stored_as_recorded() {
    let (mut passed, mut failed) = (0, Vec::new());
    for conversation in recorded::conversations(&THEMES) {
        for (at, step) in conversation["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let (request, response) = (&step["request"], &step["response"]);
            let created = request["method"] == "POST"
                && response["status"] == 201
                && request["body"]["kind"] == response["body"]["kind"];
            let text = |name: &str| request["body"][name].as_str().unwrap_or_default();
            if !created || stead_schema::kind(text("apiVersion"), text("kind")).is_none() {
                continue;
            }
            let mut object = request["body"].clone();
            prune(text("apiVersion"), text("kind"), &mut object);
            set_defaults(&mut object);
            let (got, want) = (
                without_the_servers(object),
                without_the_servers(response["body"].clone()),
            );
            if got == want {
                passed += 1;
            } else {
                failed.push(format!(
                    "{} step {at} {}\n want {want}\n got  {got}",
                    conversation["id"],
                    text("kind")
                ));
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{passed} passed, {} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(passed > 40, "only {passed} creations were found");
}
