//! Replays the recorded strategic merge patches against the pure functions: prune, default, merge.

use serde_json::{Value, json};
use stead_schema::{prune, set_defaults, strategic_merge};

use crate::recorded;

/// What of an object the patches of the theme can change.
fn compared(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let kept = ["labels", "annotations", "finalizers"].map(|name| (name, metadata[name].clone()));
    let owners = metadata["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|owner| owner["name"].clone());
    json!({"spec": object["spec"], "metadata": kept.into_iter().collect::<std::collections::BTreeMap<_, _>>(), "owners": owners.collect::<Vec<_>>()})
}

fn normal(mut object: Value) -> Value {
    prune("apps/v1", "StatefulSet", &mut object);
    set_defaults(&mut object);
    object
}

#[test]
fn every_recorded_patch_gives_the_recorded_object() {
    let (mut passed, mut failed) = (0, Vec::new());
    for conversation in recorded::conversations(&["strategic-merge"]) {
        let mut live = Value::Null;
        for (at, step) in conversation["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let request = &step["request"];
            match request["method"].as_str() {
                Some("POST") if request["body"]["kind"] == "StatefulSet" => {
                    live = normal(request["body"].clone())
                }
                Some("PATCH") => {
                    let merged = strategic_merge("apps/v1", "StatefulSet", &live, &request["body"]);
                    let status = step["response"]["status"].as_u64().unwrap_or_default();
                    let body = &step["response"]["body"];
                    let right = match (&merged, status) {
                        (Ok(merged), 200) => compared(&normal(merged.clone())) == compared(body),
                        (Ok(_), 422) => true,
                        (Err(error), code) => u64::from(error.upstream_code()) == code,
                        (Ok(_), _) => false,
                    };
                    if right {
                        passed += 1;
                    } else {
                        let got = merged
                            .as_ref()
                            .map(|merged| compared(&normal(merged.clone())).to_string());
                        failed.push(format!(
                            "{} step {at}: {}\n want {status} {}\n got  {got:?}",
                            conversation["id"],
                            request["body"],
                            compared(body)
                        ));
                    }
                    if let (200, Ok(merged)) = (status, merged) {
                        live = normal(merged);
                    }
                }
                Some(_) | None => {}
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{passed} passed, {} failed; the first:\n{}",
        failed.len(),
        failed[0]
    );
    assert!(passed > 300, "only {passed} patches were found");
}
