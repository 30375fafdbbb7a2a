//! Ingresses and their classes: a backend or rules, hosts that are names, paths that fit their type.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::pod_spec_containers::port_number;
use super::read::{dig, get, has, int, list, text, texts};
use super::strategy::{Again, Generation, Strategy};
use super::syntax;

pub(crate) const RULES: Strategy = Strategy {
    first_status: |_| json!({"loadBalancer": {}}),
    check,
    check_update: |_, new, wrong| check(new, wrong),
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

pub(crate) const CLASS: Strategy = Strategy {
    check: check_class,
    check_update: |old, new, wrong| {
        wrong.immutable(
            &Path::root("spec").field("controller"),
            dig(old, &["spec", "controller"]),
            dig(new, &["spec", "controller"]),
        );
    },
    generation: Generation::Spec,
    metadata_again: Again::Changes,
    ..Strategy::PLAIN
};

fn check_class(class: &Value, wrong: &mut Causes) {
    let controller = text(get(class, "spec"), "controller");
    let at = Path::root("spec").field("controller");
    if controller.is_empty() {
        wrong.required(&at, "");
    } else if !controller.contains('/') {
        wrong.invalid(
            &at,
            controller,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        );
    }
}

fn check(ingress: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(ingress, "spec"), Path::root("spec"));
    let rules = list(spec, "rules");
    if rules.is_empty() && !has(spec, "defaultBackend") {
        wrong.invalid(
            &at,
            get(spec, "rules").clone(),
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    if has(spec, "defaultBackend") {
        backend(
            get(spec, "defaultBackend"),
            &at.field("defaultBackend"),
            wrong,
        );
    }
    for (index, rule) in rules.iter().enumerate() {
        check_rule(rule, &at.field("rules").index(index), wrong);
    }
    for (index, tls) in list(spec, "tls").iter().enumerate() {
        for (number, name) in texts(tls, "hosts").iter().enumerate() {
            host(
                name,
                &at.field("tls").index(index).field("hosts").index(number),
                wrong,
            );
        }
    }
    if has(spec, "ingressClassName") {
        let class = text(spec, "ingressClassName");
        wrong.complaints(
            &at.field("ingressClassName"),
            class,
            &syntax::dns1123_subdomain(class),
        );
    }
}

fn host(name: &str, at: &Path, wrong: &mut Causes) {
    let complaints = if name.contains('*') {
        syntax::wildcard_dns1123_subdomain(name)
    } else {
        syntax::dns1123_subdomain(name)
    };
    wrong.complaints(at, name, &complaints);
}

fn check_rule(rule: &Value, at: &Path, wrong: &mut Causes) {
    let name = text(rule, "host");
    if !name.is_empty() {
        if syntax::ip(name).is_empty() {
            wrong.invalid(
                &at.field("host"),
                name,
                "must be a DNS name, not an IP address",
            );
        } else {
            host(name, &at.field("host"), wrong);
        }
    }
    if !has(rule, "http") {
        return;
    }
    let (paths, at) = (
        list(get(rule, "http"), "paths"),
        at.field("http").field("paths"),
    );
    if paths.is_empty() {
        wrong.required(&at, "");
    }
    for (index, path) in paths.iter().enumerate() {
        check_path(path, &at.index(index), wrong);
    }
}

fn check_path(path: &Value, at: &Path, wrong: &mut Causes) {
    let own = text(path, "path");
    if !has(path, "pathType") {
        wrong.required(&at.field("pathType"), "pathType must be specified");
        return;
    }
    match text(path, "pathType") {
        "Exact" | "Prefix" => absolute(own, &at.field("path"), wrong),
        "ImplementationSpecific" => {
            if !own.is_empty() && !own.starts_with('/') {
                wrong.invalid(&at.field("path"), own, "must be an absolute path");
            }
        }
        other => wrong.not_supported(
            &at.field("pathType"),
            other,
            &["Exact", "Prefix", "ImplementationSpecific"],
        ),
    }
    backend(get(path, "backend"), &at.field("backend"), wrong);
}

fn absolute(path: &str, at: &Path, wrong: &mut Causes) {
    if !path.starts_with('/') {
        wrong.invalid(at, path, "must be an absolute path");
    }
    for bad in ["//", "/./", "/../", "%2f", "%2F"] {
        if path.contains(bad) {
            wrong.invalid(at, path, &format!("must not contain '{bad}'"));
        }
    }
    for bad in ["/..", "/."] {
        if path.ends_with(bad) {
            wrong.invalid(at, path, &format!("cannot end with '{bad}'"));
        }
    }
}

fn backend(backend: &Value, at: &Path, wrong: &mut Causes) {
    let (service, resource) = (get(backend, "service"), get(backend, "resource"));
    match (service.is_null(), resource.is_null()) {
        (false, false) => wrong.invalid(at, "", "cannot set both resource and service backends"),
        (true, true) => wrong.required(at, "port name or number is required"),
        (true, false) => {
            for field in ["kind", "name"] {
                if text(resource, field).is_empty() {
                    wrong.required(&at.field("resource").field(field), "");
                }
            }
        }
        (false, true) => service_backend(service, &at.field("service"), wrong),
    }
}

fn service_backend(service: &Value, at: &Path, wrong: &mut Causes) {
    match text(service, "name") {
        "" => wrong.required(&at.field("name"), ""),
        name => wrong.complaints(&at.field("name"), name, &syntax::dns1035_label(name)),
    }
    let port = get(service, "port");
    let (name, number) = (text(port, "name"), int(port, "number").unwrap_or(0));
    match (name.is_empty(), number) {
        (false, 0) => wrong.complaints(
            &at.field("port").field("name"),
            name,
            &syntax::port_name(name),
        ),
        (false, _) => wrong.invalid(at, "", "cannot set both port name & port number"),
        (true, 0) => wrong.required(at, "port name or number is required"),
        (true, number) => port_number(number, &at.field("port").field("number"), wrong),
    }
}
