//! A step's call as a request to the API. Pure: what it says was decided elsewhere.

use std::sync::Arc;

use stead_statefulset::{Action, Call, PatchKind, Resource as Of, Set, Step};

use crate::call::{Method, Request};
use crate::resource::{Key, Resource};

/// The request that carries a step out.
pub(crate) fn of(step: &Step, set: &Set) -> Request {
    let Call {
        resource,
        name,
        action,
    } = step.call(set);
    let key = Key::new(&*set.namespace, &*name);
    let resource = self::resource(resource, &set.api_version);
    match action {
        Action::Create { mut object } => {
            object["metadata"]["namespace"] = set.namespace.to_string().into();
            Request::create(&resource, object)
        }
        Action::Patch {
            kind,
            subresource,
            patch,
        } => {
            let method = match kind {
                PatchKind::Merge => Method::MergePatch,
                PatchKind::Strategic => Method::StrategicPatch,
            };
            let request = Request::patch(method, &resource, &key, patch);
            match subresource {
                Some(subresource) => request.on(subresource),
                None => request,
            }
        }
        Action::Delete { uid } => Request::delete(&resource, &key, &uid),
    }
}

/// Reads the object that a step is about, past every cache.
pub(crate) fn of_object(step: &Step, set: &Set) -> Request {
    let Call { resource, name, .. } = step.call(set);
    let key = Key::new(&*set.namespace, &*name);
    Request::get(&self::resource(resource, &set.api_version), &key)
}

/// Reads the set itself, past every cache.
pub(crate) fn of_set(set: &Set) -> Request {
    let key = Key::new(&*set.namespace, &*set.name);
    Request::get(&resource(Of::StatefulSets, &set.api_version), &key)
}

/// The resource of a step in the API's words: sets are in the group that this set is of.
fn resource(of: Of, api_version: &Arc<str>) -> Resource {
    match of {
        Of::StatefulSets => {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            Resource {
                group: group.to_owned().into(),
                version: version.to_owned().into(),
                ..Resource::STATEFUL_SETS
            }
        }
        Of::Pods => Resource::PODS,
        Of::Claims => Resource::CLAIMS,
        Of::Revisions => Resource::REVISIONS,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stead_statefulset::DeleteReason;

    use super::*;

    fn set() -> Set {
        let object = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"namespace": "d", "name": "web", "uid": "u"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}});
        Set::parse(&object, &mut Vec::new())
    }

    #[test]
    fn a_delete_names_the_uid_that_was_seen() {
        let step = Step::DeletePod {
            pod: "web-1".into(),
            uid: "seen".into(),
            ordinal: stead_statefulset::Ordinal(1),
            because: DeleteReason::Condemned,
        };
        let request = of(&step, &set());
        assert_eq!(
            (request.method, request.path.as_str()),
            (Method::Delete, "/api/v1/namespaces/d/pods/web-1")
        );
        assert_eq!(request.body["preconditions"], json!({"uid": "seen"}));
    }

    #[test]
    fn the_status_is_written_to_the_subresource_of_the_sets_own_group() {
        let set = set();
        let request = of(
            &Step::WriteStatus {
                status: set.status.clone(),
            },
            &set,
        );
        assert_eq!(
            request.path,
            "/apis/apps/v1/namespaces/d/statefulsets/web/status"
        );
        assert_eq!(request.method, Method::MergePatch);
    }
}
