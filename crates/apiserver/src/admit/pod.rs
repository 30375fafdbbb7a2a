//! Pods: what the server fills in at birth, what little may change later, how long a pod is given to end.
//!
//! Upstream: `pkg/registry/core/pod/strategy.go`, `ValidatePodCreate` and `ValidatePodUpdate`.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::pod_spec::{Place, all_containers};
use super::read::{dig, get, has, int, list, map_mut, object_mut, put, semantically_equal, text};
use super::strategy::{Generation, Strategy};
use super::{
    Context, Refusal, metadata, pod_spec, pod_spec_scheduling, pod_status, pod_warnings, qos,
    syntax,
};

pub(crate) const RULES: Strategy = Strategy {
    first_status: |pod| json!({"phase": "Pending", "qosClass": qos::class(get(pod, "spec"))}),
    prepare,
    check: check_created,
    prepare_update,
    check_update,
    prepare_status: pod_status::prepare,
    check_status: pod_status::check,
    warnings: |pod| pod_warnings::of_pod(pod),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn prepare(pod: &mut Value, _: &Context<'_>) -> Result<(), Refusal> {
    least_grace(pod);
    if !list(get(pod, "spec"), "schedulingGates").is_empty() {
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
            "lastTransitionTime": null, "message": "Scheduling is blocked due to non-empty scheduling gates",
        });
        map_mut(pod, "status").insert("conditions".to_owned(), json!([condition]));
    }
    Ok(())
}

fn prepare_update(_: &Value, new: &mut Value, _: &Context<'_>) -> Result<(), Refusal> {
    least_grace(new);
    Ok(())
}

/// A negative grace period means the shortest one.
fn least_grace(pod: &mut Value) {
    if int(get(pod, "spec"), "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        map_mut(pod, "spec").insert("terminationGracePeriodSeconds".to_owned(), 1.into());
    }
}

/// The rules of a whole pod's spec.
pub(crate) fn check_spec(pod: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(pod, "spec"), Path::root("spec"));
    pod_spec::check(spec, Place::Pod, &at, wrong);
    if text(spec, "serviceAccountName").is_empty() {
        no_token_without_account(spec, &at.field("volumes"), wrong);
    }
    for (field, index, container) in all_containers(spec) {
        let image = text(container, "image");
        if image.trim() != image {
            wrong.invalid(
                &at.field(field).index(index).field("image"),
                image,
                "must not have leading or trailing whitespace",
            );
        }
    }
}

fn no_token_without_account(spec: &Value, at: &Path, wrong: &mut Causes) {
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        for (number, source) in list(get(volume, "projected"), "sources").iter().enumerate() {
            if has(source, "serviceAccountToken") {
                let at = at
                    .index(index)
                    .field("projected")
                    .field("sources")
                    .index(number)
                    .field("serviceAccountToken");
                wrong.forbidden(
                    &at,
                    "must not be specified when serviceAccountName is not set",
                );
            }
        }
    }
}

fn check_created(pod: &Value, wrong: &mut Causes) {
    check_spec(pod, wrong);
    let (spec, at) = (get(pod, "spec"), Path::root("spec"));
    if !list(spec, "ephemeralContainers").is_empty() {
        wrong.forbidden(&at.field("ephemeralContainers"), "cannot be set on create");
    }
    if !list(spec, "schedulingGates").is_empty() && !text(spec, "nodeName").is_empty() {
        wrong.forbidden(
            &at.field("nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        );
    }
}

fn check_update(old: &Value, new: &Value, wrong: &mut Causes) {
    metadata::check(new, true, syntax::dns1123_subdomain, wrong);
    check_spec(new, wrong);
    let (was, is, at) = (get(old, "spec"), get(new, "spec"), Path::root("spec"));
    for field in ["containers", "initContainers"] {
        if list(was, field).len() != list(is, field).len() {
            wrong.forbidden(
                &at.field(field),
                "pod updates may not add or remove containers",
            );
            return;
        }
    }
    if !deadline(was, is, &at.field("activeDeadlineSeconds"), wrong) {
        return;
    }
    only_more_tolerations(was, is, &at.field("tolerations"), wrong);
    only_fewer_gates(was, is, &at.field("schedulingGates"), wrong);
    if semantically_equal(was, is) {
        return;
    }
    if qos::of_pod(old) != qos::class(is) {
        wrong.invalid(
            &Path::root("metadata"),
            text(get(new, "status"), "qosClass"),
            "Pod QoS is immutable",
        );
    }
    if !semantically_equal(&with_old_changeables(was, is), was) {
        wrong.forbidden(&at, FROZEN);
    }
}

/// A deadline may come or come nearer, never go or move away. Answers whether the rest is worth looking at.
fn deadline(was: &Value, is: &Value, at: &Path, wrong: &mut Causes) -> bool {
    match (
        int(was, "activeDeadlineSeconds"),
        int(is, "activeDeadlineSeconds"),
    ) {
        (_, Some(now)) if !(0..=i64::from(i32::MAX)).contains(&now) => {
            wrong.invalid(
                at,
                now,
                &syntax::in_range(now, 0, i64::from(i32::MAX)).concat(),
            );
            false
        }
        (Some(before), Some(now)) if before < now => {
            wrong.invalid(at, now, "must be less than or equal to previous value");
            false
        }
        (Some(_), None) => {
            wrong.invalid(
                at,
                Value::Null,
                "must not update from a positive integer to nil value",
            );
            true
        }
        (Some(_) | None, _) => true,
    }
}

fn only_more_tolerations(was: &Value, is: &Value, at: &Path, wrong: &mut Causes) {
    let without_seconds = |toleration: &Value| {
        let mut bare = toleration.clone();
        put(&mut bare, "tolerationSeconds", Value::Null);
        bare
    };
    let kept = |old: &Value| {
        list(is, "tolerations")
            .iter()
            .any(|new| without_seconds(new) == without_seconds(old))
    };
    if !list(was, "tolerations").iter().all(kept) {
        wrong.forbidden(
            at,
            "existing toleration can not be modified except its tolerationSeconds",
        );
        return;
    }
    pod_spec_scheduling::tolerations(list(is, "tolerations"), at, wrong);
}

fn only_fewer_gates(was: &Value, is: &Value, at: &Path, wrong: &mut Causes) {
    let name = |gate: &Value| text(gate, "name").to_owned();
    let before: Vec<String> = list(was, "schedulingGates").iter().map(name).collect();
    for (index, gate) in list(is, "schedulingGates").iter().enumerate() {
        if !before.contains(&name(gate)) {
            wrong.forbidden(
                &at.index(index).field("name"),
                "only deletion is allowed, but found new scheduling gate",
            );
        }
    }
}

/// The new spec with everything that may change put back to what it was.
fn with_old_changeables(was: &Value, is: &Value) -> Value {
    let mut spec = is.clone();
    for field in ["containers", "initContainers"] {
        if let Some(containers) = spec.get_mut(field).and_then(Value::as_array_mut) {
            for (container, before) in containers.iter_mut().zip(list(was, field)) {
                put(container, "image", get(before, "image").clone());
            }
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        put(&mut spec, field, get(was, field).clone());
    }
    let was_negative = int(was, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0);
    if was_negative && int(is, "terminationGracePeriodSeconds") == Some(1) {
        put(
            &mut spec,
            "terminationGracePeriodSeconds",
            get(was, "terminationGracePeriodSeconds").clone(),
        );
    }
    if !list(was, "schedulingGates").is_empty() {
        // Only what a gated pod may still narrow: upstream allows to add to the node selector and affinity.
        for field in ["nodeSelector", "affinity"] {
            put(&mut spec, field, get(was, field).clone());
        }
    }
    spec
}

/// The subresource `ephemeralcontainers`: visitors may come, never change or go.
pub(crate) fn update_ephemeral(old: &Value, new: &mut Value, wrong: &mut Causes) {
    let wanted = dig(new, &["spec", "ephemeralContainers"]).clone();
    let mut pod = old.clone();
    put(&mut pod, "metadata", get(new, "metadata").clone());
    put(
        object_mut(&mut pod)
            .entry("spec")
            .or_insert_with(|| json!({})),
        "ephemeralContainers",
        wanted,
    );
    if !semantically_equal(
        dig(old, &["spec", "ephemeralContainers"]),
        dig(&pod, &["spec", "ephemeralContainers"]),
    ) {
        let generation = int(get(old, "metadata"), "generation")
            .unwrap_or(0)
            .saturating_add(1);
        map_mut(&mut pod, "metadata").insert("generation".to_owned(), generation.into());
    }
    *new = pod;
    metadata::check_update(old, new, wrong);
    metadata::check_update_of_kind(old, new, wrong);
    check_spec(new, wrong);
    let at = Path::root("spec").field("ephemeralContainers");
    let now = list(get(new, "spec"), "ephemeralContainers");
    for before in list(get(old, "spec"), "ephemeralContainers") {
        let name = text(before, "name");
        match now.iter().find(|container| text(container, "name") == name) {
            None => wrong.forbidden(
                &at,
                &format!("existing ephemeral containers \"{name}\" may not be removed\n"),
            ),
            Some(same) if !semantically_equal(same, before) => {
                wrong.forbidden(
                    &at,
                    &format!("existing ephemeral containers \"{name}\" may not be changed\n"),
                );
            }
            Some(_) => {}
        }
    }
}

/// The seconds that a pod is given to end; `asked` is what the deletion says. Pods on no node, or done, end at once.
pub(crate) fn pod_grace_seconds(pod: &Value, asked: Option<i64>) -> i64 {
    let own = int(get(pod, "spec"), "terminationGracePeriodSeconds").unwrap_or(0);
    let on_no_node = text(get(pod, "spec"), "nodeName").is_empty();
    let is_done = matches!(text(get(pod, "status"), "phase"), "Succeeded" | "Failed");
    if on_no_node || is_done {
        return 0;
    }
    match asked.unwrap_or(own) {
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}
