//! One recorded sync: what was there, and what the controller wrote.

use jiff::Timestamp;
use serde_json::Value;

/// A line of the oracle.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) now: Timestamp,
    pub(super) set: Value,
    pub(super) pods: Vec<Value>,
    pub(super) claims: Vec<Value>,
    pub(super) revisions: Vec<Value>,
    pub(super) expect: Expect,
}

/// What the recorded controller did.
#[derive(Clone, Debug)]
pub(super) struct Expect {
    pub(super) writes: Vec<Recorded>,
    pub(super) error: Option<String>,
    /// (type, reason) of each Event.
    pub(super) events: Vec<(String, String)>,
    /// (type, reason) of each Event that says, word for word, what an earlier one of the sync said.
    pub(super) events_again: Vec<(String, String)>,
    pub(super) recheck_after_seconds: Option<f64>,
}

/// A write as it is recorded.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) verb: String,
    pub(super) resource: String,
    pub(super) subresource: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) object: Option<Value>,
    pub(super) patch: Option<Value>,
    pub(super) refused: bool,
}

impl Line {
    pub(super) fn parse(line: Value) -> Result<Line, String> {
        let now = text(&line, "now")?;
        let expect = line.get("expect").ok_or("no expect")?;
        Ok(Line {
            id: text(&line, "id")?,
            now: now
                .parse()
                .map_err(|error| format!("now is {now:?}: {error}"))?,
            set: line.get("set").cloned().ok_or("no set")?,
            pods: list(&line, "pods")?,
            claims: list(&line, "claims")?,
            revisions: list(&line, "revisions")?,
            expect: Expect {
                writes: list(expect, "writes")?
                    .iter()
                    .map(Recorded::parse)
                    .collect::<Result<_, String>>()?,
                error: expect
                    .get("error")
                    .map(|_| text(expect, "error"))
                    .transpose()?,
                events: list(expect, "events")?
                    .iter()
                    .map(|event| Ok((text(event, "type")?, text(event, "reason")?)))
                    .collect::<Result<_, String>>()?,
                events_again: again(&list(expect, "events")?)?,
                recheck_after_seconds: expect.get("recheckAfterSeconds").and_then(Value::as_f64),
            },
        })
    }

    /// `podManagementPolicy: Parallel` and `updateStrategy: {type: RollingUpdate}` with no `rollingUpdate`.
    pub(super) fn is_parallel_with_null_rolling_update(&self) -> bool {
        let spec = &self.set["spec"];
        let strategy = &spec["updateStrategy"];
        spec["podManagementPolicy"] == "Parallel"
            && strategy["type"] == "RollingUpdate"
            && strategy["rollingUpdate"].is_null()
    }

    /// The objects of a resource that were there.
    pub(super) fn objects(&self, resource: &str) -> &[Value] {
        match resource {
            "pods" => &self.pods,
            "persistentvolumeclaims" => &self.claims,
            "controllerrevisions" => &self.revisions,
            "statefulsets" => std::slice::from_ref(&self.set),
            _ => &[],
        }
    }
}

fn again(events: &[Value]) -> Result<Vec<(String, String)>, String> {
    let repeated = events.iter().enumerate();
    let repeated = repeated
        .filter(|(index, event)| events.iter().take(*index).any(|earlier| earlier == *event));
    repeated
        .map(|(_, event)| Ok((text(event, "type")?, text(event, "reason")?)))
        .collect()
}

impl Expect {
    /// The update revision after the sync: the one written, or the one that stands.
    pub(super) fn update_revision(&self, set: &Value) -> Value {
        let written = self
            .writes
            .iter()
            .find(|write| write.subresource == "status")
            .and_then(|write| write.object.as_ref());
        written.unwrap_or(set)["status"]["updateRevision"].clone()
    }
}

impl Recorded {
    fn parse(write: &Value) -> Result<Recorded, String> {
        let optional = |key| {
            write
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let refused = optional("refused");
        if !refused.is_empty() && refused != "AlreadyExists" {
            return Err(format!(
                "a write was refused with {refused}, which this runner does not know"
            ));
        }
        Ok(Recorded {
            verb: text(write, "verb")?,
            resource: text(write, "resource")?,
            subresource: optional("subresource"),
            name: text(write, "name")?,
            uid: optional("uid"),
            object: write.get("object").cloned(),
            patch: write.get("patch").cloned(),
            refused: !refused.is_empty(),
        })
    }
}

fn text(object: &Value, key: &str) -> Result<String, String> {
    object
        .get(key)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| format!("no text {key}"))
}

fn list(object: &Value, key: &str) -> Result<Vec<Value>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items.clone()),
        Some(_) => Err(format!("{key} is not a list")),
    }
}
