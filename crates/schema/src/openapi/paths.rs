//! The paths of an OpenAPI document: one operation a verb, with what kubectl asks of it.

use serde_json::{Map, Value, json};

use super::{full_name, reference};
use crate::kinds::{Kind, Subresource};
use crate::table::table;

const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// What an operation takes and answers, by group, version and kind.
#[derive(Clone, Copy)]
struct Spoken<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

impl<'a> Spoken<'a> {
    fn of(kind: &'a Kind) -> Self {
        Self {
            group: kind.group,
            version: kind.version,
            kind: kind.kind,
        }
    }

    fn of_subresource(sub: &'a Subresource) -> Self {
        Self {
            group: sub.group,
            version: sub.version,
            kind: sub.kind,
        }
    }

    fn extension(self) -> Value {
        json!({"group": self.group, "kind": self.kind, "version": self.version})
    }

    /// The reference to a schema; any object if there is none.
    fn schema(self, suffix: &str) -> Value {
        let table = table();
        let api_version = if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        };
        let id = table.of_kind(&api_version, &format!("{}{suffix}", self.kind));
        id.map_or_else(
            || json!({"type": "object"}),
            |id| reference(table.of(id).name),
        )
    }
}

/// All paths of these kinds below `/apis/apps/v1` or `/api/v1`.
pub(super) fn of_kinds(group_version_path: &str, served: &[&'static Kind]) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in served {
        let root = format!("/{group_version_path}");
        let scoped = if kind.namespaced {
            format!("{root}/namespaces/{{namespace}}")
        } else {
            root.clone()
        };
        let scope = if kind.namespaced {
            vec![path_parameter("namespace")]
        } else {
            Vec::new()
        };
        if kind.namespaced && kind.verbs.contains(&"list") {
            let list = operations(Spoken::of(kind), &[("get", "list")], kind.verbs);
            paths.insert(
                format!("{root}/{}", kind.plural),
                with_parameters(list, &[]),
            );
        }
        let collection = operations(
            Spoken::of(kind),
            &[
                ("get", "list"),
                ("post", "create"),
                ("delete", "deletecollection"),
            ],
            kind.verbs,
        );
        paths.insert(
            format!("{scoped}/{}", kind.plural),
            with_parameters(collection, &scope),
        );
        let named = [scope.as_slice(), &[path_parameter("name")]].concat();
        let one = operations(Spoken::of(kind), &ONE, kind.verbs);
        paths.insert(
            format!("{scoped}/{}/{{name}}", kind.plural),
            with_parameters(one, &named),
        );
        for sub in kind.subresources {
            let verbs = operations(
                Spoken::of_subresource(sub),
                &[ONE.as_slice(), &[("post", "create")]].concat(),
                sub.verbs,
            );
            paths.insert(
                format!("{scoped}/{}/{{name}}/{}", kind.plural, sub.name),
                with_parameters(verbs, &named),
            );
        }
    }
    paths
}

/// HTTP methods and verbs of one object.
const ONE: [(&str, &str); 4] = [
    ("get", "get"),
    ("put", "update"),
    ("patch", "patch"),
    ("delete", "delete"),
];

fn with_parameters(mut operations: Map<String, Value>, parameters: &[Value]) -> Value {
    if !parameters.is_empty() {
        operations.insert("parameters".to_owned(), json!(parameters));
    }
    Value::Object(operations)
}

fn path_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
}

fn query(name: &str, of: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": of, "uniqueItems": true}})
}

fn operations(spoken: Spoken<'_>, methods: &[(&str, &str)], served: &[&str]) -> Map<String, Value> {
    let methods = methods.iter().filter(|(_, verb)| served.contains(verb));
    methods
        .map(|(method, verb)| ((*method).to_owned(), operation(spoken, verb)))
        .collect()
}

fn operation(spoken: Spoken<'_>, verb: &str) -> Value {
    let answer = if verb == "list" {
        spoken.schema("List")
    } else {
        spoken.schema("")
    };
    let mut operation = json!({
        "parameters": parameters(verb),
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}},
        "x-kubernetes-action": action(verb),
        "x-kubernetes-group-version-kind": spoken.extension(),
    });
    if let Some(body) = body(spoken, verb) {
        operation["requestBody"] = json!({"content": body, "required": verb != "delete"});
    }
    operation
}

fn action(verb: &str) -> &str {
    match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    }
}

fn parameters(verb: &str) -> Vec<Value> {
    let text = |names: &[&str]| {
        names
            .iter()
            .map(|name| query(name, "string"))
            .collect::<Vec<_>>()
    };
    match verb {
        "create" | "update" => text(&["dryRun", "fieldManager", "fieldValidation"]),
        "patch" => {
            let mut all = text(&["dryRun", "fieldManager", "fieldValidation"]);
            all.push(query("force", "boolean"));
            all
        }
        "delete" | "deletecollection" => {
            text(&["dryRun", "gracePeriodSeconds", "propagationPolicy"])
        }
        "list" => text(&[
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "timeoutSeconds",
            "watch",
        ]),
        _ => Vec::new(),
    }
}

fn body(spoken: Spoken<'_>, verb: &str) -> Option<Value> {
    match verb {
        "create" | "update" => Some(json!({"application/json": {"schema": spoken.schema("")}})),
        "patch" => {
            let patch = json!({"schema": {"type": "object"}});
            Some(Value::Object(
                PATCHES
                    .iter()
                    .map(|media| ((*media).to_owned(), patch.clone()))
                    .collect(),
            ))
        }
        "delete" | "deletecollection" => {
            let options = json!({"$ref": format!("#/components/schemas/{}", full_name("apimachinery.pkg.apis.meta.v1.DeleteOptions"))});
            Some(json!({"application/json": {"schema": options}}))
        }
        _ => None,
    }
}
