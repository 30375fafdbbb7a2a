//! Replays one conversation: sends each step, notes what comes, compares.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Request, header};
use serde_json::{Value, json};
use stead_apiserver::{ApiServer, ApiService, Options, User, full};

use super::compare::differences;
use super::normal::{normal, status};

/// The address of the recorded server: it stands in the answer of `/api`.
const ADDRESS: &str = "127.0.0.1:16443";
/// How often and how long a `pauseUntil` asks.
const PAUSES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// What came of a conversation.
#[derive(Default)]
pub(super) struct Replayed {
    /// Steps that are compared.
    pub(super) steps: usize,
    /// Those that are equal.
    pub(super) equal: usize,
    /// One line for each step that is not.
    pub(super) differences: Vec<String>,
}

/// A raw answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) content_type: String,
    pub(super) warnings: usize,
    pub(super) text: String,
}

/// Changes an answer before it is compared: how the tests show that a difference is caught.
pub(super) type Perturb = fn(&Value, &mut Answer);

/// Speaks to a server of its own as cluster admin.
pub(super) struct Talker {
    service: ApiService,
    perturb: Perturb,
}

impl Talker {
    /// A fresh server in memory.
    pub(super) async fn new() -> Result<Self, String> {
        Self::perturbing(|_, _| {}).await
    }

    /// The same, with answers changed.
    pub(super) async fn perturbing(perturb: Perturb) -> Result<Self, String> {
        let options = Options {
            address: ADDRESS.to_owned(),
            ..Options::default()
        };
        let server = ApiServer::open(options).map_err(|error| error.to_string())?;
        server.ensure_namespaces().await;
        Ok(Self {
            service: server.service(User::admin()),
            perturb,
        })
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &Value,
        body: Option<String>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(encoded(path));
        for (name, value) in headers.as_object().into_iter().flatten() {
            request = request.header(name, value.as_str().unwrap_or(""));
        }
        // What the recording client says it is.
        request = request.header(header::USER_AGENT, "python-requests/2.32.3");
        let request = request
            .body(full(body.unwrap_or_default().into()))
            .map_err(|error| error.to_string())?;
        let Ok(response) = tower::ServiceExt::oneshot(self.service.clone(), request).await;
        let (parts, body) = response.into_parts();
        let bytes = http_body_util::BodyExt::collect(body)
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        let content_type = parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        let warnings = parts
            .headers
            .get_all(header::WARNING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(|text| text.matches("299 ").count())
            .sum();
        Ok(Answer {
            code: parts.status.as_u16(),
            content_type: content_type.split(';').next().unwrap_or("").to_owned(),
            warnings,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }
}

/// Percent-encodes what a URI may not contain; what is encoded already stays.
fn encoded(path: &str) -> String {
    path.chars()
        .map(|letter| match letter {
            ' ' => "%20".to_owned(),
            '<' | '>' | '"' | '{' | '}' | '|' | '\\' | '^' | '`' => {
                format!("%{:02X}", u32::from(letter))
            }
            other if other.is_ascii() => other.to_string(),
            other => other
                .to_string()
                .bytes()
                .map(|byte| format!("%{byte:02X}"))
                .collect(),
        })
        .collect()
}

/// Replays a conversation in a namespace of its own.
pub(super) async fn conversation(talker: &Talker, conversation: &Value, number: usize) -> Replayed {
    let managed = conversation["managedFields"].as_bool().unwrap_or(false);
    let namespace = format!("rec0000000-{}", number + 1);
    let mut variables: BTreeMap<String, String> =
        BTreeMap::from([("ns".to_owned(), namespace.clone())]);
    let mut replayed = Replayed::default();
    for (index, step) in conversation["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if step.get("pauseUntil").is_some() {
            pause(talker, &step["pauseUntil"], &variables).await;
            continue;
        }
        let outcome = send(talker, step, &variables).await;
        let name = format!(
            "step {index} {} {}",
            step["request"]["method"].as_str().unwrap_or(""),
            step["request"]["path"].as_str().unwrap_or("")
        );
        let mut answer = match outcome {
            Ok(answer) => answer,
            Err(error) => {
                replayed.differences.push(format!("{name}: {error}"));
                break;
            }
        };
        (talker.perturb)(step, &mut answer);
        let compared = compare(step, &answer, managed, &namespace);
        capture(step, &answer, &mut variables);
        let Some(found) = compared else { continue };
        replayed.steps += 1;
        if found.is_empty() {
            replayed.equal += 1;
        } else {
            let more = if found.len() > 4 {
                format!("; {} more", found.len() - 4)
            } else {
                String::new()
            };
            replayed.differences.push(format!(
                "{name}: {}{more}",
                found.iter().take(4).cloned().collect::<Vec<_>>().join("; ")
            ));
        }
    }
    // As the recorder does: later lists must not see this conversation's namespace. An answer is of no interest.
    drop(
        talker
            .send(
                "DELETE",
                &format!("/api/v1/namespaces/{namespace}"),
                &json!({}),
                None,
            )
            .await,
    );
    replayed
}

fn substituted(text: &str, variables: &BTreeMap<String, String>) -> String {
    variables
        .iter()
        .fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("${{{name}}}"), value)
        })
}

async fn pause(talker: &Talker, until: &Value, variables: &BTreeMap<String, String>) {
    let path = substituted(until["path"].as_str().unwrap_or(""), variables);
    for _ in 0..PAUSES {
        let answer = talker.send("GET", &path, &json!({}), None).await;
        if answer.is_ok_and(|answer| Some(u64::from(answer.code)) == until["status"].as_u64()) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn send(
    talker: &Talker,
    step: &Value,
    variables: &BTreeMap<String, String>,
) -> Result<Answer, String> {
    let request = &step["request"];
    let path = substituted(request["path"].as_str().unwrap_or(""), variables);
    let body = match (
        request.get("raw").and_then(Value::as_str),
        request.get("body"),
    ) {
        (Some(raw), _) => Some(raw.to_owned()),
        (None, Some(body)) if !body.is_null() => Some(body.to_string()),
        (None, Some(_) | None) => None,
    };
    let body = body.map(|body| substituted(&body, variables));
    talker
        .send(
            request["method"].as_str().unwrap_or(""),
            &path,
            &request["headers"],
            body,
        )
        .await
}

/// The differences of a step, none where nothing is compared.
fn compare(step: &Value, answer: &Answer, managed: bool, namespace: &str) -> Option<Vec<String>> {
    let want = step.get("response")?;
    let path = step["request"]["path"].as_str().unwrap_or("");
    match noted(answer, path, managed, namespace) {
        Ok(got) => Some(differences(want, &got)),
        Err(error) => Some(vec![error]),
    }
}

/// An answer as the recorder notes it.
fn noted(answer: &Answer, path: &str, managed: bool, namespace: &str) -> Result<Value, String> {
    let mut got = json!({"status": answer.code, "contentType": answer.content_type});
    if answer.warnings > 0 {
        got["warnings"] = answer.warnings.into();
    }
    let text = answer.text.replace(namespace, "${ns}");
    let parse = |text: &str| {
        serde_json::from_str::<Value>(text).map_err(|error| {
            format!(
                "the answer is not JSON: {error}: {}",
                text.chars().take(100).collect::<String>()
            )
        })
    };
    let reduced = |value: &Value| {
        if value["kind"] == "Status" {
            status(value)
        } else {
            normal(value, managed)
        }
    };
    if path.contains("watch=") && answer.code == 200 {
        let mut events = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let event = parse(line)?;
            let ordinary = event["type"] == "BOOKMARK"
                && event["object"]["metadata"].get("annotations").is_none();
            if !ordinary {
                events.push(json!({"type": event["type"], "object": reduced(&event["object"])}));
            }
        }
        got["events"] = events.into();
    } else if answer.content_type.contains("json") {
        got["body"] = reduced(&parse(&text)?);
    } else {
        got["text"] = text.chars().take(200).collect::<String>().into();
    }
    Ok(got)
}

fn capture(step: &Value, answer: &Answer, variables: &mut BTreeMap<String, String>) {
    let Some(captures) = step["capture"].as_object() else {
        return;
    };
    let body: Value = serde_json::from_str(&answer.text).unwrap_or(Value::Null);
    for (name, pointer) in captures {
        let value = body
            .pointer(pointer.as_str().unwrap_or(""))
            .and_then(Value::as_str)
            .unwrap_or("");
        variables.insert(name.clone(), value.to_owned());
    }
}
