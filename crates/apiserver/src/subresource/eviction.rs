//! `eviction`: deletes a pod if its disruption budget allows it.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::decode::Decoded;
use crate::delete::{check_preconditions, options, remove};
use crate::handle::{Outcome, Reply, Scene, answer};
use crate::object;
use crate::selector::label_selector_matches;
use crate::status::Status;
use crate::store::{Change, Stored, Table, View, key_of};

const BUDGETS: Table = ("policy", "poddisruptionbudgets");
/// Names that a budget's status remembers at most while their deletion is not seen yet.
const DISRUPTED_MAX: usize = 2000;

/// Evicts the pod.
pub(crate) fn evict(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let target = &asked.target;
    let body = &asked.body.value;
    let given = object::name(body);
    if !given.is_empty() && given != target.name {
        return Err(Status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let stored = scene
        .view
        .object(("", "pods"), &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found("", "pods", &target.name))?;
    let asked_options = match body.get("deleteOptions") {
        Some(value) if !value.is_null() => Decoded {
            value: value.clone(),
            duplicates: Vec::new(),
        },
        Some(_) | None => Decoded {
            value: json!({}),
            duplicates: Vec::new(),
        },
    };
    let mut options = options(&asked.query, &asked_options)?;
    options.dry_run |= asked.options.dry_run;
    let mut changes = Vec::new();
    if !ignores_budgets(&stored.value()) {
        let spent = spend(
            scene.view,
            &stored,
            &target.namespace,
            &target.name,
            scene.now,
            scene.next_revision(),
        )?;
        changes.extend(spent.filter(|_| !options.dry_run));
    }
    scene.taken = u64::try_from(changes.len()).unwrap_or(0);
    check_preconditions(target.kind, &stored.value(), &options)?;
    let mut pod = stored.clone();
    if !options.dry_run {
        let marked = marked(scene, &stored, &target.namespace);
        pod = marked.object.clone();
        options.revision = options.revision.map(|_| pod.revision.to_string());
        changes.push(marked);
        scene.taken += 1;
    }
    let removed = remove(scene, &pod, &options)?;
    changes.extend(removed.change);
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Outcome {
        reply: Reply::Done(answer(StatusCode::CREATED, &status, asked.format.yaml, &[])),
        changes,
    })
}

/// The pod with the condition that tells why it goes. A write of its own, as upstream: its watchers learn the reason first.
fn marked(scene: &Scene<'_>, stored: &Stored, namespace: &str) -> Change {
    let mut pod = stored.value();
    let revision = scene.next_revision();
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "lastProbeTime": null, "lastTransitionTime": object::time(scene.now),
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
    });
    put_condition(&mut pod, condition);
    object::set_meta(&mut pod, "resourceVersion", revision.to_string());
    let key: Box<str> = key_of(namespace, object::name(&pod)).into();
    Change {
        table: ("", "pods"),
        key,
        object: Arc::new(Stored::new(stored.kind, revision, pod)),
        deleted: false,
    }
}

/// Puts a condition in the place of the one of its type, or at the end.
pub(super) fn put_condition(object: &mut Value, condition: Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    let status = map.entry("status").or_insert_with(|| json!({}));
    let Some(conditions) = status
        .as_object_mut()
        .map(|status| status.entry("conditions").or_insert_with(|| json!([])))
    else {
        return;
    };
    let Some(list) = conditions.as_array_mut() else {
        return;
    };
    match list.iter_mut().find(|one| one["type"] == condition["type"]) {
        Some(place) => *place = condition,
        None => list.push(condition),
    }
}

/// Pods that have ended, have not begun, or are going anyway disturb nobody.
fn ignores_budgets(pod: &Value) -> bool {
    matches!(
        object::text(pod, &["status", "phase"]),
        "Succeeded" | "Failed" | "Pending"
    ) || object::is_terminating(pod)
}

/// Takes one disruption of the pod's budget: the change of the budget, none where the pod has no budget.
fn spend(
    view: &dyn View,
    pod: &Stored,
    namespace: &str,
    name: &str,
    now: Timestamp,
    revision: u64,
) -> Result<Option<Change>, Status> {
    let budgets: Vec<Arc<Stored>> = view
        .list(BUDGETS, &format!("{namespace}/"))
        .items
        .into_iter()
        .map(|(_, stored)| stored)
        .filter(|stored| label_selector_matches(&stored.value()["spec"]["selector"], &pod.labels))
        .collect();
    let budget = match budgets.as_slice() {
        [] => return Ok(None),
        [one] => one,
        [_, _, ..] => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let mut object = budget.value();
    let status = &object["status"];
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let (generation, allowed) = (object::generation(&object), number("disruptionsAllowed"));
    if !is_ready(&pod.value()) && object["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
        return Ok(None);
    }
    let refused = |cause: String, retry: u32| {
        Err(Status::disruption_budget(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            cause,
            retry,
        ))
    };
    let budget_name = object::name(&object).to_owned();
    if number("observedGeneration") < generation {
        return refused(
            format!("The disruption budget {budget_name} is still being processed by the server."),
            10,
        );
    }
    if allowed < 0
        || status["disruptedPods"]
            .as_object()
            .map_or(0, serde_json::Map::len)
            > DISRUPTED_MAX
    {
        return Err(Status::forbidden(
            "policy",
            "poddisruptionbudgets",
            &budget_name,
            "pdb disruptions allowed is negative or its map of disrupted pods is too big",
        ));
    }
    if allowed == 0 {
        return refused(
            format!(
                "The disruption budget {budget_name} needs {} healthy pods and has {} currently",
                number("desiredHealthy"),
                number("currentHealthy")
            ),
            0,
        );
    }
    object["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if !object["status"]["disruptedPods"].is_object() {
        object["status"]["disruptedPods"] = json!({});
    }
    object["status"]["disruptedPods"][name] = object::time(now).into();
    if allowed == 1 {
        insufficient(&mut object, generation, now);
    }
    object::set_meta(&mut object, "resourceVersion", revision.to_string());
    let key: Box<str> = key_of(namespace, &budget_name).into();
    Ok(Some(Change {
        table: BUDGETS,
        key,
        object: Arc::new(Stored::new(budget.kind, revision, object)),
        deleted: false,
    }))
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"].as_array().is_some_and(|list| {
        list.iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    })
}

/// The condition that says that no disruption is allowed any more.
fn insufficient(budget: &mut Value, generation: i64, now: Timestamp) {
    let condition = json!({
        "type": "DisruptionAllowed", "status": "False", "observedGeneration": generation,
        "lastTransitionTime": object::time(now), "reason": "InsufficientPods", "message": "",
    });
    put_condition(budget, condition);
}
