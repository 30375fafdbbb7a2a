//! Writes the table that `stead-schema` reads: one line a fact, grouped, sorted, without descriptions.
//!
//! The format is described at the top of `crates/schema/src/table.rs`, its only reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Root types that no served resource refers to but requests carry.
const EXTRA_ROOTS: &[&str] = &[
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.CreateOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.UpdateOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.PatchOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.GetOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
    "io.k8s.api.core.v1.SerializedReference",
];

/// Go's packages whose types carry a kind of their own although OpenAPI marks none (protobuf fixtures name them).
const KIND_PACKAGES: &[(&str, &str)] = &[
    ("io.k8s.api.apps.v1.", "apps/v1"),
    ("io.k8s.api.authentication.v1.", "authentication.k8s.io/v1"),
    ("io.k8s.api.authorization.v1.", "authorization.k8s.io/v1"),
    ("io.k8s.api.autoscaling.v1.", "autoscaling/v1"),
    ("io.k8s.api.autoscaling.v2.", "autoscaling/v2"),
    ("io.k8s.api.batch.v1.", "batch/v1"),
    ("io.k8s.api.coordination.v1.", "coordination.k8s.io/v1"),
    ("io.k8s.api.core.v1.", "v1"),
    ("io.k8s.api.discovery.v1.", "discovery.k8s.io/v1"),
    ("io.k8s.api.events.v1.", "events.k8s.io/v1"),
    ("io.k8s.api.networking.v1.", "networking.k8s.io/v1"),
    ("io.k8s.api.policy.v1.", "policy/v1"),
    ("io.k8s.api.rbac.v1.", "rbac.authorization.k8s.io/v1"),
    ("io.k8s.api.scheduling.v1.", "scheduling.k8s.io/v1"),
    ("io.k8s.api.storage.v1.", "storage.k8s.io/v1"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.", "v1"),
    (
        "io.k8s.api.admissionregistration.v1.",
        "admissionregistration.k8s.io/v1",
    ),
    ("io.k8s.api.certificates.v1.", "certificates.k8s.io/v1"),
    ("io.k8s.api.node.v1.", "node.k8s.io/v1"),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
        "apiextensions.k8s.io/v1",
    ),
];

/// What Go says of one field.
#[derive(Default, Clone)]
struct GoField {
    go_type: String,
    options: String,
}

struct Facts<'a> {
    types: &'a Map<String, Value>,
    go: BTreeMap<String, BTreeMap<String, GoField>>,
    go_scalars: BTreeSet<String>,
    /// Types that embed `TypeMeta`.
    go_kinds: BTreeSet<String>,
}

/// The whole table, or what in the sources could not be understood.
pub(super) fn make(schema: &Value, go_types: &str) -> Result<String, String> {
    let object = |name: &str| {
        schema[name]
            .as_object()
            .ok_or_else(|| format!("the oracle's schema has no {name}"))
    };
    let types = object("types")?;
    let facts = parse_go(types, go_types);
    let mut out = String::from(
        "# Made by `cargo xtask schema`; the format is told in table.rs. Facts only.\n",
    );
    writeln!(out, "kubernetes {}", text(&schema["kubernetes"])).map_err(|e| e.to_string())?;
    groups(&mut out, schema);
    resources(&mut out, object("resources")?);
    columns(&mut out, object("columns")?);
    for name in reachable(&facts, &roots(&facts, schema)) {
        write_type(&mut out, &facts, &name)?;
    }
    Ok(out)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn words(value: &Value) -> String {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(text).collect::<Vec<_>>().join(",")
}

fn groups(out: &mut String, schema: &Value) {
    for group in schema["groups"].as_array().into_iter().flatten() {
        line(
            out,
            &format!(
                "group {} {} {}",
                text(&group["name"]),
                text(&group["preferred"]),
                words(&group["versions"])
            ),
        );
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn resources(out: &mut String, resources: &Map<String, Value>) {
    for (group_version, list) in resources {
        for resource in list.as_array().into_iter().flatten() {
            let mut said = format!(
                "resource {group_version} {} {}",
                text(&resource["name"]),
                text(&resource["kind"])
            );
            if resource["namespaced"] == true {
                said.push_str(" namespaced");
            }
            for (key, value) in [
                ("one", text(&resource["singularName"]).to_owned()),
                ("verbs", words(&resource["verbs"])),
                ("short", words(&resource["shortNames"])),
                ("cat", words(&resource["categories"])),
                ("as", foreign(resource)),
            ] {
                if !value.is_empty() {
                    said.push_str(&format!(" {key}={value}"));
                }
            }
            line(out, &said);
        }
    }
}

/// The group and version of a subresource whose kind belongs elsewhere (`autoscaling/v1` for scale).
fn foreign(resource: &Value) -> String {
    match (text(&resource["group"]), text(&resource["version"])) {
        ("", "") => String::new(),
        ("", version) => version.to_owned(),
        (group, version) => format!("{group}/{version}"),
    }
}

fn columns(out: &mut String, columns: &Map<String, Value>) {
    for (resource, list) in columns {
        line(out, &format!("columns {resource}"));
        for column in list.as_array().into_iter().flatten() {
            let format = Some(text(&column["format"]))
                .filter(|format| !format.is_empty())
                .unwrap_or("-");
            line(
                out,
                &format!(
                    " {} {} {format} {}",
                    text(&column["type"]),
                    column["priority"],
                    text(&column["name"])
                ),
            );
        }
    }
}

/// Types with a kind in a served package, their lists, and the options types.
fn roots(facts: &Facts, schema: &Value) -> Vec<String> {
    let served: BTreeSet<&str> = schema["resources"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let marked = facts
        .types
        .iter()
        .filter(|(name, of)| kind_of(facts, name, of, &served).is_some())
        .map(|(name, _)| name.clone());
    marked
        .chain(EXTRA_ROOTS.iter().map(|name| (*name).to_owned()))
        .collect()
}

/// `group/version` of a type that has a kind: as OpenAPI marks it, or of its package if it is a kind in Go.
fn kind_of(facts: &Facts, name: &str, of: &Value, served: &BTreeSet<&str>) -> Option<String> {
    let marked = of["gvk"].as_array().and_then(|all| all.first());
    let marked = marked.map(|gvk| match text(&gvk["group"]) {
        "" => text(&gvk["version"]).to_owned(),
        group => format!("{group}/{}", text(&gvk["version"])),
    });
    let by_package = || package_of(facts, name).map(|(_, gv)| gv.to_owned());
    marked
        .or_else(by_package)
        .filter(|gv| served.contains(gv.as_str()) || gv == "v1")
}

/// The package's prefix and its `group/version`, if the type is a kind in Go: if it embeds `TypeMeta`.
fn package_of(facts: &Facts, name: &str) -> Option<(&'static str, &'static str)> {
    let package = KIND_PACKAGES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix));
    package
        .copied()
        .filter(|_| facts.go_kinds.contains(short(name)))
}

fn reachable(facts: &Facts, roots: &[String]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut todo: Vec<String> = roots.to_vec();
    while let Some(name) = todo.pop() {
        let Some(of) = facts.types.get(&name) else {
            continue;
        };
        if leaf(&name).is_some() || !seen.insert(name.clone()) {
            continue;
        }
        for field in of["fields"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(_, field)| field)
        {
            for place in [
                &field["ref"],
                &field["items"]["ref"],
                &field["values"]["ref"],
            ] {
                todo.extend(place.as_str().map(str::to_owned));
            }
            for place in [&field["protoType"], &field["protoMap"]] {
                todo.extend(place.as_str().map(proto_name));
            }
        }
    }
    seen
}

fn proto_name(proto: &str) -> String {
    proto
        .replacen("k8s.io", "io.k8s", 1)
        .replace("apiextensions_apiserver", "apiextensions-apiserver")
}

/// Types that are one JSON value with rules of their own.
fn leaf(name: &str) -> Option<&'static str> {
    Some(match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => "quantity",
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => "intorstring",
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => "time",
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => "microtime",
        "io.k8s.apimachinery.pkg.runtime.RawExtension" => "raw",
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" => "fieldsv1",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => "json",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray" => {
            "schemaorarray"
        }
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool" => {
            "schemaorbool"
        }
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            "schemaorstrings"
        }
        _ => return None,
    })
}

fn short(name: &str) -> &str {
    name.strip_prefix("io.k8s.").unwrap_or(name)
}

fn write_type(out: &mut String, facts: &Facts, name: &str) -> Result<(), String> {
    let of = &facts.types[name];
    let mut head = format!("type {}", short(name));
    if of["mapType"] == "atomic" {
        head.push_str(" atomic");
    }
    let gvks = of["gvk"].as_array().map(Vec::as_slice).unwrap_or_default();
    for gvk in gvks {
        head.push_str(&format!(
            " {},{},{}",
            text(&gvk["group"]),
            text(&gvk["version"]),
            text(&gvk["kind"])
        ));
    }
    if gvks.is_empty()
        && let Some(gvk) = unmarked_kind(facts, name)
    {
        head.push_str(&format!(" {gvk}"));
    }
    line(out, &head);
    let required = words(&of["required"]);
    let required: BTreeSet<&str> = required.split(',').collect();
    let own = BTreeMap::new();
    let go = facts.go.get(short(name)).unwrap_or(&own);
    let odd = odd_proto_fields(name, of);
    for (field_name, field) in of["fields"].as_object().into_iter().flatten() {
        if odd.contains_key(&json_name(field_name)) && field["inline"] == true {
            continue;
        }
        let proto = odd
            .get(field_name.as_str())
            .copied()
            .or_else(|| field["proto"].as_u64());
        line(
            out,
            &field_line(
                facts,
                field_name,
                field,
                proto,
                required.contains(field_name.as_str()),
                go.get(field_name),
            )?,
        );
    }
    Ok(())
}

fn unmarked_kind(facts: &Facts, name: &str) -> Option<String> {
    let (prefix, gv) = package_of(facts, name)?;
    let (group, version) = gv.split_once('/').unwrap_or(("", gv));
    Some(format!("{group},{version},{}", &name[prefix.len()..]))
}

/// Protobuf names of JSONSchemaProps that are not the JSON names: by JSON name, the number.
fn odd_proto_fields(name: &str, of: &Value) -> BTreeMap<String, u64> {
    if !name.ends_with(".JSONSchemaProps") {
        return BTreeMap::new();
    }
    let fields = of["fields"].as_object().into_iter().flatten();
    fields
        .filter(|(_, field)| field["inline"] == true)
        .filter_map(|(name, field)| Some((json_name(name), field["proto"].as_u64()?)))
        .collect()
}

/// `xKubernetesListType` is `x-kubernetes-list-type` in JSON, `ref` is `$ref`.
fn json_name(proto: &str) -> String {
    match proto {
        "ref" | "schema" => format!("${proto}"),
        _ => {
            let mut name = String::new();
            for c in proto.chars() {
                if c.is_ascii_uppercase() {
                    name.push('-');
                }
                name.push(c.to_ascii_lowercase());
            }
            name
        }
    }
}

fn field_line(
    facts: &Facts,
    name: &str,
    field: &Value,
    proto: Option<u64>,
    required: bool,
    go: Option<&GoField>,
) -> Result<String, String> {
    let mut said = format!(
        " {name} {}",
        shape(field).ok_or_else(|| format!("field {name} has no type that is known: {field}"))?
    );
    if let Some(number) = proto {
        said.push_str(&format!(" p{number}"));
    }
    if field["inline"] == true {
        said.push_str(" inline");
    }
    if let Some(go) = go {
        said.push_str(&go_words(facts, go));
    }
    if required {
        said.push_str(" r");
    }
    let default = &field["default"];
    let is_pointer = go.is_some_and(|go| go.go_type.starts_with('*'));
    if !default.is_null() && (is_pointer || !is_zero(default)) {
        said.push_str(&format!(" d={default}"));
    }
    for (key, value) in [
        ("e", words(&field["enum"])),
        ("m", text(&field["mergeKey"]).to_owned()),
        ("s", text(&field["patchStrategy"]).to_owned()),
        ("l", text(&field["listType"]).to_owned()),
        ("k", words(&field["listMapKeys"])),
        ("M", text(&field["mapType"]).to_owned()),
    ] {
        if !value.is_empty() {
            said.push_str(&format!(" {key}={value}"));
        }
    }
    Ok(said)
}

/// OpenAPI's `default` of a Go field that is no pointer is only its zero value.
fn is_zero(default: &Value) -> bool {
    *default == ""
        || *default == 0
        || *default == false
        || default.as_object().is_some_and(Map::is_empty)
}

fn go_words(facts: &Facts, go: &GoField) -> String {
    let mut said = String::new();
    let options: Vec<&str> = go.options.split(',').collect();
    for (word, is) in [
        (" *", go.go_type.starts_with('*')),
        (" o", options.contains(&"omitempty")),
        (" z", options.contains(&"omitzero")),
    ] {
        if is {
            said.push_str(word);
        }
    }
    let bare = go.go_type.trim_start_matches('*');
    if facts.go_scalars.contains(bare)
        || bare.contains('.')
            && !bare.starts_with("metav1.")
            && !bare.contains('[')
            && !bare.starts_with("v1.")
    {
        said.push_str(&format!(" g={bare}"));
    }
    said
}

fn shape(field: &Value) -> Option<String> {
    if let Some(name) = field["ref"].as_str() {
        return Some(reference(name));
    }
    match (field["type"].as_str(), field["format"].as_str()) {
        (Some("string"), Some("byte")) => Some("bytes".to_owned()),
        (Some("string"), _) => Some("string".to_owned()),
        (Some("boolean"), _) => Some("bool".to_owned()),
        (Some("integer"), format) => Some(format.unwrap_or("int64").to_owned()),
        (Some("number"), _) => Some("double".to_owned()),
        (Some("array"), _) => shape(&field["items"]).map(|of| format!("[]{of}")),
        (Some("object"), _) => match &field["values"] {
            Value::Null => Some("raw".to_owned()),
            values => shape(values).map(|of| format!("{{}}{of}")),
        },
        (Some(_), _) => None,
        (None, _) => proto_shape(field),
    }
}

/// Fields that only the protobuf message has (`VolumeSource` and its like).
fn proto_shape(field: &Value) -> Option<String> {
    if let Some(values) = field["protoMap"].as_str() {
        return proto_scalar(values).map(|of| format!("{{}}{of}"));
    }
    let of = proto_scalar(field["protoType"].as_str()?)?;
    Some(if field["repeated"] == true {
        format!("[]{of}")
    } else {
        of
    })
}

fn proto_scalar(proto: &str) -> Option<String> {
    match proto {
        "string" | "bytes" | "bool" | "int32" | "int64" | "double" => Some(proto.to_owned()),
        message if message.ends_with(".ExtraValue") || message.ends_with(".Verbs") => {
            Some("[]string".to_owned())
        }
        message => Some(reference(&proto_name(message))),
    }
}

fn reference(name: &str) -> String {
    leaf(name).map_or_else(|| short(name).to_owned(), str::to_owned)
}

/// Reads the facts about Go: by type and field, with embedded structs flattened.
fn parse_go<'a>(types: &'a Map<String, Value>, text: &str) -> Facts<'a> {
    let mut go_scalars = BTreeSet::new();
    let mut raw: BTreeMap<&str, Vec<(&str, GoField)>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(name) = words.next() else { continue };
        if line.ends_with(" = scalar") {
            go_scalars.insert(name.rsplit('.').next().unwrap_or(name).to_owned());
            continue;
        }
        raw.insert(name, words.filter_map(go_field).collect());
    }
    let is_kind = |fields: &[(&str, GoField)]| {
        let mut embedded = fields.iter().filter(|(name, _)| *name == "+");
        embedded.any(|(_, of)| matches!(of.go_type.as_str(), "metav1.TypeMeta" | "TypeMeta"))
    };
    let kinds = raw.iter().filter(|(_, fields)| is_kind(fields));
    let go_kinds = kinds.map(|(name, _)| (*name).to_owned()).collect();
    let flat = raw
        .keys()
        .map(|name| ((*name).to_owned(), flatten(&raw, name, 0)));
    Facts {
        types,
        go: flat.collect(),
        go_scalars,
        go_kinds,
    }
}

fn go_field(word: &str) -> Option<(&str, GoField)> {
    let (name, fact) = word.split_once('=')?;
    let (go_type, options) = fact.split_once(',').unwrap_or((fact, ""));
    Some((
        name,
        GoField {
            go_type: go_type.to_owned(),
            options: options.to_owned(),
        },
    ))
}

fn flatten(
    raw: &BTreeMap<&str, Vec<(&str, GoField)>>,
    name: &str,
    depth: usize,
) -> BTreeMap<String, GoField> {
    let mut flat = BTreeMap::new();
    let package = name.rsplit_once('.').map_or("", |(package, _)| package);
    for (field, fact) in raw.get(name).into_iter().flatten() {
        if *field != "+" {
            flat.insert((*field).to_owned(), fact.clone());
        } else if depth < 8 {
            let go_type = fact.go_type.trim_start_matches('*');
            let embedded = match go_type.strip_prefix("metav1.") {
                Some(name) => format!("apimachinery.pkg.apis.meta.v1.{name}"),
                None => format!("{package}.{go_type}"),
            };
            flat.extend(flatten(raw, &embedded, depth + 1));
        }
    }
    flat
}
