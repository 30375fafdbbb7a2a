//! `log`, `exec`, `attach` and `portforward`: checked here, answered by the node.

use serde_json::Value;

use crate::handle::{Outcome, Reply, Scene};
use crate::object;
use crate::request::Query;
use crate::status::{Cause, Status};

/// Finds what to ask the node.
pub(crate) fn connect(scene: &Scene<'_>) -> Result<Outcome, Status> {
    let target = &scene.asked.target;
    if target.subresource.starts_with("proxy") {
        return Err(Status::unavailable(
            "proxying to pods, services and nodes is not served",
        ));
    }
    let stored = scene
        .view
        .object(("", "pods"), &target.namespace, &target.name)
        .ok_or_else(|| Status::not_found("", "pods", &target.name))?;
    let pod = stored.value();
    let query = &scene.asked.query;
    let (namespace, name) = (&target.namespace, &target.name);
    let path = match target.subresource.as_str() {
        "log" => {
            let container = container(&pod, name, query)?;
            node(&pod, name)?;
            format!(
                "/containerLogs/{namespace}/{name}/{container}?{}",
                log_query(name, query)?
            )
        }
        "portforward" => {
            node(&pod, name)?;
            format!(
                "/portForward/{namespace}/{name}?{}",
                pass(query, &["ports"])
            )
        }
        verb => {
            let container = container(&pod, name, query)?;
            let phase = object::text(&pod, &["status", "phase"]);
            if verb == "exec" && matches!(phase, "Succeeded" | "Failed") {
                return Err(Status::bad_request(format!(
                    "cannot exec into a container in a completed pod; current phase is {phase}"
                )));
            }
            node(&pod, name)?;
            format!(
                "/{verb}/{namespace}/{name}/{container}?{}",
                stream_query(query)
            )
        }
    };
    Ok(Outcome {
        reply: Reply::Forward(path),
        changes: Vec::new(),
    })
}

fn node(pod: &Value, name: &str) -> Result<(), Status> {
    if object::text(pod, &["spec", "nodeName"]).is_empty() {
        return Err(Status::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    Ok(())
}

/// The named container, or the only one, or the one that an annotation makes the default.
fn container(pod: &Value, name: &str, query: &Query) -> Result<String, Status> {
    let named = |list: &str| -> Vec<String> {
        pod["spec"][list]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let containers = named("containers");
    let asked = query.get("container");
    if asked.is_empty() {
        let default = object::text(
            pod,
            &[
                "metadata",
                "annotations",
                "kubectl.kubernetes.io/default-container",
            ],
        );
        return match containers.as_slice() {
            [only] => Ok(only.clone()),
            many if many.iter().any(|one| one == default) => Ok(default.to_owned()),
            many => Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            ))),
        };
    }
    if [
        containers,
        named("initContainers"),
        named("ephemeralContainers"),
    ]
    .concat()
    .iter()
    .any(|one| one == asked)
    {
        return Ok(asked.to_owned());
    }
    Err(Status::bad_request(format!(
        "container {asked} is not valid for pod {name}"
    )))
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn pass(query: &Query, names: &[&str]) -> String {
    let pairs = names.iter().flat_map(|name| {
        query
            .all(name)
            .into_iter()
            .map(move |value| format!("{name}={}", encode(value)))
    });
    pairs.collect::<Vec<_>>().join("&")
}

fn log_query(pod: &str, query: &Query) -> Result<String, Status> {
    let mut causes = Vec::new();
    // upstream: ValidatePodLogOptions.
    for (name, least, rule) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        if let Some(number) = query.number(name)?.filter(|number| *number < least) {
            let message = format!("Invalid value: {number}: {rule}");
            causes.push(Cause::new("FieldValueInvalid", name, message));
        }
    }
    if query.has("sinceSeconds") && query.has("sinceTime") {
        let message = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified";
        causes.push(Cause::new("FieldValueForbidden", "", message));
    }
    let stream = query.get("stream");
    if !matches!(stream, "" | "All" | "Stdout" | "Stderr") {
        let message = format!(
            "Unsupported value: \"{stream}\": supported values: \"All\", \"Stderr\", \"Stdout\""
        );
        causes.push(Cause::new("FieldValueNotSupported", "stream", message));
    }
    if matches!(stream, "Stdout" | "Stderr") && query.has("tailLines") {
        let message = "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now";
        causes.push(Cause::new("FieldValueForbidden", "", message));
    }
    if !causes.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", pod, &causes));
    }
    Ok(pass(
        query,
        &[
            "follow",
            "previous",
            "tailLines",
            "sinceSeconds",
            "sinceTime",
            "timestamps",
            "limitBytes",
            "stream",
        ],
    ))
}

/// The API says `stdin`, the kubelet `input=1`.
fn stream_query(query: &Query) -> String {
    let mut pairs: Vec<String> = query
        .all("command")
        .into_iter()
        .map(|word| format!("command={}", encode(word)))
        .collect();
    for (from, to) in [
        ("stdin", "input"),
        ("stdout", "output"),
        ("stderr", "error"),
        ("tty", "tty"),
    ] {
        if query.flag(from) {
            pairs.push(format!("{to}=1"));
        }
    }
    pairs.join("&")
}
