//! The subresource `resize`: cpu and memory of running containers, within the same quality of service.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::read::{get, has, int, list, map_mut, object_mut, put, semantically_equal, text};
use super::{metadata, pod, qos};

/// Prepares and checks a resize.
pub(crate) fn update(old: &Value, new: &mut Value, wrong: &mut Causes) {
    only_resources(old, new);
    metadata::check_update(old, new, wrong);
    metadata::check_update_of_kind(old, new, wrong);
    pod::check_spec(new, wrong);
    let at = Path::root("spec");
    let (was, is) = (get(old, "spec"), get(new, "spec"));
    if !list(was, "containers").is_empty() && !runs_where_resize_works(old) {
        wrong.forbidden(&at, "Pod running on node without support for resize");
    }
    if qos::of_pod(old) != qos::class(is) {
        wrong.invalid(
            &at,
            qos::class(is),
            "Pod QOS Class may not change as a result of resizing",
        );
    }
    takes_nothing_away(was, is, &at, wrong);
}

/// The node says so by reporting the resources that it has applied.
fn runs_where_resize_works(pod: &Value) -> bool {
    let reports = list(get(pod, "status"), "containerStatuses");
    let running = text(get(pod, "status"), "phase") == "Running";
    !running || reports.iter().all(|report| has(report, "resources"))
}

fn only_resources(old: &Value, new: &mut Value) {
    let mut spec = get(old, "spec").clone();
    for field in ["containers", "initContainers"] {
        let wanted = list(get(new, "spec"), field).to_vec();
        let Some(containers) = spec.get_mut(field).and_then(Value::as_array_mut) else {
            continue;
        };
        for (container, asked) in containers.iter_mut().zip(&wanted) {
            for part in ["resources", "resizePolicy"] {
                put(container, part, get(asked, part).clone());
            }
        }
    }
    if !semantically_equal(&spec, get(old, "spec")) {
        let generation = int(get(old, "metadata"), "generation")
            .unwrap_or(0)
            .saturating_add(1);
        map_mut(new, "metadata").insert("generation".to_owned(), generation.into());
    }
    object_mut(new).insert("spec".to_owned(), spec);
    put(new, "status", get(old, "status").clone());
}

fn takes_nothing_away(was: &Value, is: &Value, at: &Path, wrong: &mut Causes) {
    let nothing = json!({});
    for (index, (before, now)) in list(was, "containers")
        .iter()
        .zip(list(is, "containers"))
        .enumerate()
    {
        for field in ["requests", "limits"] {
            let had = get(get(before, "resources"), field)
                .as_object()
                .or(nothing.as_object())
                .into_iter()
                .flatten();
            for (name, _) in had {
                if !has(get(get(now, "resources"), field), name) {
                    let at = at
                        .field("containers")
                        .index(index)
                        .field("resources")
                        .field(field);
                    wrong.forbidden(&at, &format!("resource {field} cannot be removed"));
                }
            }
        }
    }
}
