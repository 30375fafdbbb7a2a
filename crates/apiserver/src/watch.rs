//! `WATCH`: what is asked, checked; the streaming itself is the shell's (`stream.rs`).

use crate::handle::{Outcome, Reply, Scene};
use crate::list::prefix;
use crate::negotiate::Format;
use crate::request::Query;
use crate::selector::Selector;
use crate::status::{Cause, Status};
use crate::store::{Table, table_of};

use stead_schema::Kind;

/// Seconds that a watch without `timeoutSeconds` lives.
const TIMEOUT_SECONDS: u64 = 3600;

/// A checked watch.
#[derive(Debug, Clone)]
pub struct Watch {
    pub(crate) kind: &'static Kind,
    pub(crate) table: Table,
    pub(crate) prefix: String,
    pub(crate) selector: Selector,
    pub(crate) start: Start,
    pub(crate) bookmarks: bool,
    pub(crate) timeout_seconds: u64,
    pub(crate) format: Format,
    pub(crate) include: String,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the present objects as ADDED events; then, if asked, a bookmark that says these were all.
    Present { bookmark: bool },
    /// With the events after a revision.
    After(u64),
    /// With the next event.
    Now,
}

/// Checks a watch.
pub(crate) fn watch(scene: &Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let (target, query) = (&asked.target, &asked.query);
    check_options(query)?;
    let mut selector = Selector::from_query(target.kind, query)?;
    if !target.name.is_empty() {
        selector.require_name(&target.name);
    }
    let timeout_seconds = query
        .number("timeoutSeconds")?
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .unwrap_or(TIMEOUT_SECONDS);
    let watch = Watch {
        kind: target.kind,
        table: table_of(target.kind),
        prefix: prefix(target),
        selector,
        start: start(query)?,
        bookmarks: query.flag("allowWatchBookmarks"),
        timeout_seconds,
        format: asked.format,
        include: query.get("includeObject").to_owned(),
    };
    Ok(Outcome {
        reply: Reply::Watch(Box::new(watch)),
        changes: Vec::new(),
    })
}

fn start(query: &Query) -> Result<Start, Status> {
    let text = query.get("resourceVersion");
    // Upstream answers a revision that is not a number with an error that has no reason.
    let revision: u64 = if text.is_empty() {
        0
    } else {
        text.parse().map_err(|_| {
            Status::unknown(format!(
                "strconv.ParseUint: parsing \"{text}\": invalid syntax"
            ))
        })?
    };
    if query.has("sendInitialEvents") {
        return Ok(match (query.flag("sendInitialEvents"), revision) {
            (true, _) => Start::Present {
                bookmark: query.flag("allowWatchBookmarks"),
            },
            (false, 0) => Start::Now,
            (false, revision) => Start::After(revision),
        });
    }
    Ok(if revision == 0 {
        Start::Present { bookmark: false }
    } else {
        Start::After(revision)
    })
}

fn check_options(query: &Query) -> Result<(), Status> {
    let matching = query.get("resourceVersionMatch");
    let mut causes = Vec::new();
    let initial = query.has("sendInitialEvents");
    if initial && matching != "NotOlderThan" {
        causes.push(Cause::new(
            "FieldValueForbidden",
            "resourceVersionMatch",
            "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    if !matching.is_empty() {
        if !initial {
            causes.push(Cause::new("FieldValueForbidden", "resourceVersionMatch", "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
        }
        if matching != "NotOlderThan" {
            causes.push(Cause::new(
                "FieldValueNotSupported",
                "resourceVersionMatch",
                format!("Unsupported value: \"{matching}\": supported values: \"NotOlderThan\""),
            ));
        }
        if !query.get("continue").is_empty() {
            causes.push(Cause::new(
                "FieldValueForbidden",
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ));
        }
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid("meta.k8s.io", "ListOptions", "", &causes))
    }
}
