//! The rules as tables: an edit of a sound object, and the causes that it brings about.
//!
//! An edit is `path=JSON`, several are separated by `; `; `path=-` removes. A cause is `Reason path`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use stead_schema::Kind;

use super::{Cluster, Context, Refusal, ServiceRange, create, pod_grace_seconds, update};

mod changes;
mod created;
mod prepared;
mod total;

/// The other objects of a test, by group, plural, namespace and name.
#[derive(Default)]
struct Town(BTreeMap<(String, String, String, String), Value>);

impl Town {
    /// A namespace `ns` with its service account.
    fn plain() -> Town {
        let mut town = Town::default();
        town.add(
            "",
            "namespaces",
            json!({"metadata": {"name": "ns"}, "status": {"phase": "Active"}}),
        );
        town.add(
            "",
            "serviceaccounts",
            json!({"metadata": {"name": "default", "namespace": "ns"}}),
        );
        town
    }

    fn add(&mut self, group: &str, plural: &str, object: Value) {
        let meta = |field: &str| object["metadata"][field].as_str().unwrap_or("").to_owned();
        self.0.insert(
            (
                group.to_owned(),
                plural.to_owned(),
                meta("namespace"),
                meta("name"),
            ),
            object,
        );
    }
}

impl Cluster for Town {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.0
            .get(&(
                group.to_owned(),
                plural.to_owned(),
                namespace.to_owned(),
                name.to_owned(),
            ))
            .cloned()
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Value> {
        let fits = |key: &(String, String, String, String)| {
            key.0 == group && key.1 == plural && (namespace.is_empty() || key.2 == namespace)
        };
        self.0
            .iter()
            .filter(|(key, _)| fits(key))
            .map(|(_, object)| object.clone())
            .collect()
    }
}

fn context(town: &Town) -> Context<'_> {
    Context {
        cluster: town,
        now: Timestamp::UNIX_EPOCH,
        service_range: ServiceRange::default(),
    }
}

fn kind_of(object: &Value) -> &'static Kind {
    stead_schema::kind(
        object["apiVersion"].as_str().unwrap_or(""),
        object["kind"].as_str().unwrap_or(""),
    )
    .expect("a served kind")
}

/// The object as the server hands it to admission.
fn decoded(mut object: Value) -> Value {
    let kind = kind_of(&object);
    stead_schema::prune(&kind.api_version(), kind.kind, &mut object);
    stead_schema::set_defaults(&mut object);
    if kind.namespaced {
        object["metadata"]["namespace"] = "ns".into();
    }
    object["metadata"]["uid"] = "0f0f".into();
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    object
}

fn created(object: Value, town: &Town) -> Result<(Value, Vec<String>), Refusal> {
    let mut object = decoded(object);
    let warnings = create(kind_of(&object), &mut object, &context(town))?;
    Ok((object, warnings))
}

fn changed(old: &Value, new: Value, subresource: &str, town: &Town) -> Result<Value, Refusal> {
    let mut new = decoded(new);
    update(kind_of(&new), subresource, old, &mut new, &context(town))?;
    Ok(new)
}

/// The object with the edits made.
fn edited(base: &Value, edits: &str) -> Value {
    let mut object = base.clone();
    for edit in edits.split("; ").filter(|edit| !edit.is_empty()) {
        let (path, value) = edit.split_once('=').expect("an edit is path=JSON");
        let value = (value != "-").then(|| {
            serde_json::from_str(value).unwrap_or_else(|problem| panic!("{edit}: {problem}"))
        });
        put(&mut object, &path.split('.').collect::<Vec<_>>(), value);
    }
    object
}

fn put(at: &mut Value, path: &[&str], value: Option<Value>) {
    let [first, rest @ ..] = path else {
        panic!("an edit has a path");
    };
    let first = first.replace('~', ".");
    if let (Value::Array(items), Ok(index)) = (&mut *at, first.parse::<usize>()) {
        if rest.is_empty() {
            items[index] = value.expect("items are changed, not removed");
        } else {
            put(&mut items[index], rest, value);
        }
        return;
    }
    if at.is_null() {
        *at = json!({});
    }
    let map = at.as_object_mut().expect("a path leads through objects");
    match (rest.is_empty(), value) {
        (true, None) => {
            map.remove(&first);
        }
        (true, Some(value)) => {
            map.insert(first, value);
        }
        (false, value) => put(map.entry(first).or_insert(Value::Null), rest, value),
    }
}

/// The causes of a refusal, sorted, one a line; `ok` when there is none.
fn told<T>(outcome: Result<T, Refusal>) -> String {
    let mut lines = match outcome {
        Ok(_) => return "ok".to_owned(),
        Err(Refusal::Invalid(causes)) => causes
            .iter()
            .map(|cause| {
                format!(
                    "{} {}",
                    cause.reason.wire().trim_start_matches("FieldValue"),
                    cause.field
                )
            })
            .collect::<Vec<_>>(),
        Err(Refusal::Forbidden { message, .. }) => vec![format!("forbidden: {message}")],
        Err(Refusal::NotFound { plural, name, .. }) => vec![format!("not found: {plural} {name}")],
    };
    lines.sort();
    lines.join(", ")
}

/// Creates each edit of the base and compares what is told.
fn check_created(base: &Value, table: &[(&str, &str)]) {
    for (edits, expected) in table {
        assert_eq!(
            told(created(edited(base, edits), &Town::plain())),
            *expected,
            "after {edits:?}"
        );
    }
}

/// Creates the base, changes it by each edit and compares what is told.
fn check_changed(base: &Value, subresource: &str, table: &[(&str, &str)]) {
    let town = Town::plain();
    let (old, _) = created(base.clone(), &town)
        .unwrap_or_else(|refusal| panic!("the base is refused: {}", told::<()>(Err(refusal))));
    for (edits, expected) in table {
        assert_eq!(
            told(changed(&old, edited(&old, edits), subresource, &town)),
            *expected,
            "after {edits:?}"
        );
    }
}

fn set() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
        "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [
            {"name": "main", "image": "i:1", "ports": [{"containerPort": 5432, "name": "pg"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        ]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
    }})
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]}})
}

fn claim() -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
}
