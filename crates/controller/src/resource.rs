//! Which collection of the API is meant, and the raw objects that come out of it.
//!
//! Objects stay [`Value`]s: a typed round trip drops fields that this build does not know, and with them what a
//! revision's hash is made of.

use std::borrow::Cow;

use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One served resource: `pods`, `statefulsets.apps`, ...
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for the core.
    pub group: Cow<'static, str>,
    /// Version within the group.
    pub version: Cow<'static, str>,
    /// Kind of its objects.
    pub kind: Cow<'static, str>,
    /// Plural name, as in paths.
    pub plural: Cow<'static, str>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    const fn of(
        group: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Resource {
        Resource {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed("v1"),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    /// Pods.
    pub const PODS: Resource = Resource::of("", "Pod", "pods", true);
    /// Claims.
    pub const CLAIMS: Resource =
        Resource::of("", "PersistentVolumeClaim", "persistentvolumeclaims", true);
    /// Volumes.
    pub const VOLUMES: Resource = Resource::of("", "PersistentVolume", "persistentvolumes", false);
    /// Nodes.
    pub const NODES: Resource = Resource::of("", "Node", "nodes", false);
    /// Services.
    pub const SERVICES: Resource = Resource::of("", "Service", "services", true);
    /// Namespaces.
    pub const NAMESPACES: Resource = Resource::of("", "Namespace", "namespaces", false);
    /// ConfigMaps.
    pub const CONFIG_MAPS: Resource = Resource::of("", "ConfigMap", "configmaps", true);
    /// Service accounts.
    pub const SERVICE_ACCOUNTS: Resource =
        Resource::of("", "ServiceAccount", "serviceaccounts", true);
    /// Events of the core group.
    pub const EVENTS: Resource = Resource::of("", "Event", "events", true);
    /// StatefulSets of apps/v1.
    pub const STATEFUL_SETS: Resource = Resource::of("apps", "StatefulSet", "statefulsets", true);
    /// ControllerRevisions.
    pub const REVISIONS: Resource =
        Resource::of("apps", "ControllerRevision", "controllerrevisions", true);
    /// Storage classes.
    pub const STORAGE_CLASSES: Resource =
        Resource::of("storage.k8s.io", "StorageClass", "storageclasses", false);
    /// EndpointSlices.
    pub const ENDPOINT_SLICES: Resource =
        Resource::of("discovery.k8s.io", "EndpointSlice", "endpointslices", true);
    /// Disruption budgets.
    pub const DISRUPTION_BUDGETS: Resource = Resource::of(
        "policy",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        true,
    );
    /// Priority classes.
    pub const PRIORITY_CLASSES: Resource = Resource::of(
        "scheduling.k8s.io",
        "PriorityClass",
        "priorityclasses",
        false,
    );

    /// `v1`, `apps/v1`, ...
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Path of the collection: of one namespace, or of all when `namespace` is `None`.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            "/api"
        } else {
            "/apis"
        };
        let api_version = self.api_version();
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!(
                "{root}/{api_version}/namespaces/{namespace}/{}",
                self.plural
            ),
            None => format!("{root}/{api_version}/{}", self.plural),
        }
    }

    /// Path of one object. The namespace is ignored for kinds that have none.
    pub fn object(&self, key: &Key) -> String {
        format!("{}/{}", self.collection(Some(&key.namespace)), key.name)
    }

    /// The same in kube's words.
    pub fn api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_string(),
            version: self.version.to_string(),
            api_version: self.api_version(),
            kind: self.kind.to_string(),
            plural: self.plural.to_string(),
        }
    }
}

/// Namespace and name of an object; the namespace is empty for kinds that have none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Key {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// The key of these two.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub fn of(object: &Value) -> Key {
        Key::new(
            text(object, "/metadata/namespace"),
            text(object, "/metadata/name"),
        )
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Key { namespace, name } = self;
        if namespace.is_empty() {
            f.write_str(name)
        } else {
            write!(f, "{namespace}/{name}")
        }
    }
}

/// The text at a JSON pointer; empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The list at a JSON pointer; empty when there is none.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Whether the object carries a `deletionTimestamp`.
pub fn is_terminating(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null())
}

/// `metadata.resourceVersion` as a number. `None` for a server whose versions are not numbers.
pub fn resource_version(object: &Value) -> Option<u64> {
    text(object, "/metadata/resourceVersion").parse().ok()
}

/// The owner reference with `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences")
        .iter()
        .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
}

/// Whether the object carries a finalizer.
pub fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    list(object, "/metadata/finalizers")
        .iter()
        .any(|own| own == finalizer)
}

/// An object as the API sent it, with the few metadata that kube's watcher reads beside it.
#[derive(Debug, Clone)]
pub struct Raw {
    /// What kube reads of it: namespace, name and resource version only.
    meta: ObjectMeta,
    /// All of it.
    pub value: Value,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let field = |pointer| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let meta = ObjectMeta {
            namespace: field("/metadata/namespace"),
            name: field("/metadata/name"),
            resource_version: field("/metadata/resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Raw { meta, value })
    }
}

impl kube::Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let key = Key::new("shop", "web");
        assert_eq!(
            Resource::PODS.object(&key),
            "/api/v1/namespaces/shop/pods/web"
        );
        assert_eq!(
            Resource::STATEFUL_SETS.collection(None),
            "/apis/apps/v1/statefulsets"
        );
        assert_eq!(
            Resource::VOLUMES.object(&Key::new("", "pv")),
            "/api/v1/persistentvolumes/pv"
        );
    }

    #[test]
    fn a_raw_object_keeps_fields_that_nobody_knows() {
        let raw: Raw =
            serde_json::from_str(r#"{"metadata":{"name":"a","novel":1},"other":{"x":[2]}}"#)
                .expect("an object");
        assert_eq!(kube::Resource::meta(&raw).name.as_deref(), Some("a"));
        assert_eq!(raw.value.pointer("/metadata/novel"), Some(&Value::from(1)));
        assert_eq!(raw.value.pointer("/other/x/0"), Some(&Value::from(2)));
    }
}
