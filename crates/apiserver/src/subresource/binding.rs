//! `binding`: puts a pod on a node.

use http::StatusCode;
use serde_json::json;

use crate::handle::{Outcome, Reply, Scene, answer};
use crate::object;
use crate::status::{Cause, Status};
use crate::store::table_of;
use crate::update::settle;

use super::eviction::put_condition;

/// Binds the pod to the target of the body.
pub(crate) fn bind(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let target = &asked.target;
    let body = &asked.body.value;
    let name = if target.name.is_empty() {
        object::name(body)
    } else {
        target.name.as_str()
    };
    let node = object::text(body, &["target", "name"]);
    check(name, object::text(body, &["target", "kind"]), node)?;
    let pods =
        stead_schema::kind("v1", "Pod").ok_or_else(|| Status::internal("the schema has no Pod"))?;
    let stored = scene
        .view
        .object(table_of(pods), &target.namespace, name)
        .ok_or_else(|| Status::not_found("", "pods", name))?;
    let old = stored.value();
    let conflict = |why: String| Status::conflict("", "pods/binding", name, &why);
    if object::is_terminating(&old) {
        return Err(conflict(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        )));
    }
    let bound = object::text(&old, &["spec", "nodeName"]);
    if !bound.is_empty() {
        return Err(conflict(format!(
            "pod {name} is already assigned to node \"{bound}\""
        )));
    }
    let mut new = old.clone();
    new["spec"]["nodeName"] = node.into();
    scheduled(scene, &mut new);
    crate::create::track_fields(scene, pods, Some(&old), &mut new, "binding");
    let change = settle(scene, &stored, &old, new).change;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Outcome {
        reply: Reply::Done(answer(StatusCode::CREATED, &status, asked.format.yaml, &[])),
        changes: change.into_iter().collect(),
    })
}

fn check(name: &str, kind: &str, node: &str) -> Result<(), Status> {
    let mut causes = Vec::new();
    if !kind.is_empty() && kind != "Node" {
        causes.push(Cause::new(
            "FieldValueNotSupported",
            "target.kind",
            format!("Unsupported value: \"{kind}\": supported values: \"Node\", \"<empty>\""),
        ));
    }
    if node.is_empty() {
        causes.push(Cause::new(
            "FieldValueRequired",
            "target.name",
            "Required value",
        ));
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid("", "Binding", name, &causes))
    }
}

/// The condition that says the pod has a node.
fn scheduled(scene: &Scene<'_>, pod: &mut serde_json::Value) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": object::time(scene.now)});
    put_condition(pod, condition);
}
