//! Strategic merges as text: live object, patch, result.

use serde_json::{Value, json};

use super::{PatchError, strategic_merge};

/// Merges into a pod's `spec` and compares the spec that results.
fn check(live: Value, patch: Value, want: Value) {
    let merged = strategic_merge("v1", "Pod", &json!({"spec": live}), &json!({"spec": patch}));
    assert_eq!(merged, Ok(json!({"spec": want})));
}

fn check_error(live: Value, patch: Value, want: &PatchError) {
    let merged = strategic_merge("v1", "Pod", &json!({"spec": live}), &json!({"spec": patch}));
    assert_eq!(merged.as_ref(), Err(want));
}

#[test]
fn maps_merge_and_null_deletes() {
    check(
        json!({"hostname": "a", "nodeSelector": {"x": "1", "y": "2"}}),
        json!({"hostname": null, "nodeSelector": {"y": null, "z": "3"}}),
        json!({"nodeSelector": {"x": "1", "z": "3"}}),
    );
    check(
        json!({}),
        json!({"nodeSelector": {"y": null, "z": "3"}}),
        json!({"nodeSelector": {"z": "3"}}),
    );
}

#[test]
fn keyed_lists_merge_by_their_key() {
    check(
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
        json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
    );
    check_error(
        json!({"containers": [{"name": "a"}]}),
        json!({"containers": [{"image": "2"}]}),
        &PatchError::NoMergeKey {
            field: "containers".to_owned(),
            key: "name".to_owned(),
        },
    );
}

#[test]
fn atomic_lists_are_replaced() {
    check(
        json!({"tolerations": [{"key": "a"}]}),
        json!({"tolerations": [{"key": "b"}]}),
        json!({"tolerations": [{"key": "b"}]}),
    );
}

#[test]
fn patch_directives_delete_and_replace() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    check(
        json!({"containers": [{"name": "a"}]}),
        json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}),
        json!({"containers": [{"name": "c"}]}),
    );
    check(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"$patch": "replace", "b": "2"}}),
        json!({"nodeSelector": {"b": "2"}}),
    );
    check(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"$patch": "delete"}}),
        json!({"nodeSelector": {}}),
    );
    check_error(
        json!({"nodeSelector": {}}),
        json!({"nodeSelector": {"$patch": "merge"}}),
        &PatchError::UnknownDirective {
            directive: "\"merge\"".to_owned(),
        },
    );
}

#[test]
fn retained_keys_are_all_that_stays() {
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}, "$retainKeys": ["name", "secret"]}]}),
        json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
    );
    check_error(
        json!({"volumes": [{"name": "v"}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["secret"]}]}),
        &PatchError::RetainKeysFormat,
    );
}

#[test]
fn the_element_order_is_what_the_patch_says() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
        json!({"containers": [{"name": "d"}], "$setElementOrder/containers": [{"name": "c"}, {"name": "d"}, {"name": "a"}]}),
        json!({"containers": [{"name": "b"}, {"name": "c"}, {"name": "d"}, {"name": "a"}]}),
    );
    check_error(
        json!({"containers": [{"name": "a"}]}),
        json!({"containers": [{"name": "b"}, {"name": "a"}], "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}),
        &PatchError::OrderMismatch {
            field: "containers".to_owned(),
        },
    );
}

#[test]
fn lists_of_scalars_merge_as_sets() {
    let set = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    let merge = |live, patch| strategic_merge("v1", "Pod", &set(live), &patch).expect("it merges");
    assert_eq!(
        merge(json!(["a", "b"]), set(json!(["b", "c"]))),
        set(json!(["a", "b", "c"]))
    );
    assert_eq!(
        merge(
            json!(["a", "b"]),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})
        ),
        set(json!(["b"]))
    );
}

#[test]
fn kinds_without_a_schema_are_refused() {
    let refused = strategic_merge("x.io/v1", "Thing", &json!({}), &json!({}))
        .expect_err("it has no merge keys");
    assert_eq!(refused.upstream_code(), 415);
}

proptest::proptest! {
    #[test]
    fn any_patch_is_answered(object in crate::testing::any_object(), patch in crate::testing::any_object()) {
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        let _ = strategic_merge(&text("apiVersion"), &text("kind"), &object, &patch);
    }

    #[test]
    fn an_empty_patch_changes_nothing(object in crate::testing::any_object()) {
        if object["kind"] != "Nobody" {
            let merged = strategic_merge(object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default(), &object, &serde_json::json!({}));
            proptest::prop_assert_eq!(merged, Ok(object));
        }
    }
}
