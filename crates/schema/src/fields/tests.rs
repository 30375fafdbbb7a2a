//! Ownership seen through the crate's boundary.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ApplyError, Writer, after_update, apply, field_set};
use crate::{prune, set_defaults};

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        api_version: "v1",
        subresource: "",
        now: Timestamp::UNIX_EPOCH,
    }
}

fn config_map(data: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "uid": "u"}, "data": data});
    prune("v1", "ConfigMap", &mut object);
    set_defaults(&mut object);
    object
}

/// Manager and fields of each entry.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten();
    entries
        .map(|entry| {
            (
                format!(
                    "{} {}",
                    entry["manager"].as_str().unwrap_or_default(),
                    entry["operation"].as_str().unwrap_or_default()
                ),
                entry["fieldsV1"].clone(),
            )
        })
        .collect()
}

#[test]
fn who_creates_owns_all_but_the_identity() {
    let mut object = config_map(json!({"a": "1"}));
    after_update(None, &mut object, writer("alice"));
    assert_eq!(
        owners(&object),
        [(
            "alice Update".to_owned(),
            json!({"f:data": {".": {}, "f:a": {}}})
        )]
    );
    assert_eq!(
        object["metadata"]["managedFields"][0]["time"],
        "1970-01-01T00:00:00Z"
    );
}

#[test]
fn what_a_write_changes_moves_to_the_writer() {
    let mut old = config_map(json!({"a": "1", "b": "1"}));
    after_update(None, &mut old, writer("alice"));
    let mut new = config_map(json!({"a": "2", "c": "1"}));
    after_update(Some(&old), &mut new, writer("bob"));
    let alice = ("alice Update".to_owned(), json!({"f:data": {}}));
    assert_eq!(
        owners(&new),
        [
            alice,
            (
                "bob Update".to_owned(),
                json!({"f:data": {"f:a": {}, "f:c": {}}})
            )
        ]
    );
    let before = new.clone();
    after_update(Some(&before), &mut new, writer("carol"));
    assert_eq!(new, before, "who changes nothing owns nothing");
}

#[test]
fn managers_are_forgotten_when_asked_and_kept_when_not_sent() {
    let mut old = config_map(json!({"a": "1"}));
    after_update(None, &mut old, writer("alice"));
    let mut new = config_map(json!({"a": "1"}));
    after_update(Some(&old), &mut new, writer("bob"));
    assert_eq!(
        new["metadata"]["managedFields"],
        old["metadata"]["managedFields"]
    );
    for reset in [json!([]), json!([{}])] {
        new["metadata"]["managedFields"] = reset;
        after_update(Some(&old), &mut new, writer("bob"));
        assert_eq!(new["metadata"].get("managedFields"), None);
    }
}

#[test]
fn the_oldest_updaters_are_merged() {
    let mut live = config_map(json!({}));
    after_update(None, &mut live, writer("m"));
    let mut data = serde_json::Map::new();
    for number in 0..14_i64 {
        data.insert(format!("k{number:02}"), json!("v"));
        let mut new = config_map(Value::Object(data.clone()));
        let now = Timestamp::from_second(number).expect("it is a time");
        let manager = format!("m{number:02}");
        let step = Writer {
            now,
            ..writer(&manager)
        };
        after_update((number > 0).then_some(&live), &mut new, step);
        live = new;
    }
    let names: Vec<String> = owners(&live).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 10);
    assert!(
        names.contains(&"ancient-changes Update".to_owned()),
        "{names:?}"
    );
}

#[test]
fn applying_takes_conflicts_seriously_and_drops_what_is_no_longer_applied() {
    let config = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
    let first = apply(
        None,
        &config(json!({"a": "1", "b": "1"})),
        writer("alice"),
        false,
    )
    .expect("nobody is in the way");
    assert_eq!(first["data"], json!({"a": "1", "b": "1"}));
    let refused = apply(
        Some(&first),
        &config(json!({"a": "2"})),
        writer("bob"),
        false,
    )
    .expect_err("alice owns it");
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"alice\": .data.a"
    );
    let forced = apply(
        Some(&first),
        &config(json!({"a": "2"})),
        writer("bob"),
        true,
    )
    .expect("it is forced");
    assert_eq!(
        owners(&forced),
        [
            ("alice Apply".to_owned(), json!({"f:data": {"f:b": {}}})),
            ("bob Apply".to_owned(), json!({"f:data": {"f:a": {}}}))
        ]
    );
    let dropped =
        apply(Some(&forced), &config(json!({})), writer("alice"), false).expect("it is alice's");
    assert_eq!(dropped["data"], json!({"a": "2"}));
    let unknown = apply(
        Some(&first),
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "foo": 1}),
        writer("alice"),
        false,
    );
    assert_eq!(
        unknown,
        Err(ApplyError::NotTyped {
            path: ".foo".to_owned(),
            message: "field not declared in schema".to_owned()
        })
    );
}

#[test]
fn lists_are_owned_by_their_keys() {
    let pod = json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}], "nodeSelector": {"x": "y"}}, "metadata": {"finalizers": ["f"]}});
    let set = field_set("v1", "Pod", &pod).expect("pods are known");
    let ports =
        json!({r#"k:{"containerPort":80,"protocol":"TCP"}"#: {".": {}, "f:containerPort": {}}});
    let containers = json!({r#"k:{"name":"a"}"#: {".": {}, "f:name": {}, "f:ports": ports}});
    assert_eq!(
        set.encode(),
        json!({"f:spec": {"f:containers": containers, "f:nodeSelector": {}}, "f:metadata": {"f:finalizers": {r#"v:"f""#: {}}}})
    );
    assert_eq!(super::FieldSet::decode(&set.encode()), Some(set));
}

proptest::proptest! {
    #[test]
    fn any_write_is_answered(old in crate::testing::any_object(), new in crate::testing::any_object()) {
        let mut created = old.clone();
        after_update(None, &mut created, writer("alice"));
        let mut updated = new.clone();
        after_update(Some(&created), &mut updated, writer("bob"));
        let api_version = new["apiVersion"].as_str().unwrap_or_default().to_owned();
        let _ = apply(Some(&updated), &new, Writer { api_version: &api_version, ..writer("carol") }, true);
    }

    #[test]
    fn sets_survive_their_encoding(object in crate::testing::any_object()) {
        let set = field_set(object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default(), &object);
        if let Some(set) = set {
            proptest::prop_assert_eq!(super::FieldSet::decode(&set.encode()), Some(set));
        }
    }
}
