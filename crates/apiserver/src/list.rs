//! Reading: one object, or lists with selectors, pages and revisions.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};

use crate::convert;
use crate::handle::{Outcome, Scene, encoded};
use crate::negotiate::Shape;
use crate::render;
use crate::request::{Query, Target, Verb};
use crate::selector::Selector;
use crate::status::{Cause, Status};
use crate::store::{Listing, NoSuchRevision, View, table_of};

/// `GET` of one object.
pub(crate) fn get(scene: &Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let target = &asked.target;
    revision_parameter(&asked.query)?
        .map_or(Ok(()), |revision| not_in_future(scene.view, revision))?;
    let stored = scene
        .view
        .object(table_of(target.kind), &target.namespace, &target.name)
        .ok_or_else(|| Status::missing(target.kind, &target.name))?;
    let stored = convert::to(target.kind, stored);
    let body = render::one(
        target.kind,
        &stored,
        asked.format.shape,
        asked.query.get("includeObject"),
        scene.now,
    );
    Ok(Outcome::reply(encoded(
        StatusCode::OK,
        body,
        asked.format.yaml,
        &scene.warnings,
    )))
}

/// `GET` of a collection.
pub(crate) fn list(scene: &Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    let selector = Selector::from_query(asked.target.kind, &asked.query)?;
    let page = page(&asked.target, &asked.query)?;
    let listing = snapshot(scene.view, &asked.target, &page)?;
    Ok(render_list(
        scene,
        select(listing, &selector),
        &page,
        !selector.is_everything(),
    ))
}

/// The prefix of a target's keys: one namespace, or all.
pub(crate) fn prefix(target: &Target) -> String {
    if target.namespace.is_empty() {
        String::new()
    } else {
        format!("{}/", target.namespace)
    }
}

/// Keeps what is selected.
pub(crate) fn select(mut listing: Listing, selector: &Selector) -> Listing {
    if !selector.is_everything() {
        listing
            .items
            .retain(|(key, stored)| selector.matches(key, stored));
    }
    listing
}

/// Renders a list answer, cut to the page.
pub(crate) fn render_list(
    scene: &Scene<'_>,
    mut listing: Listing,
    page: &Page,
    selected: bool,
) -> Outcome {
    let asked = scene.asked;
    let kind = asked.target.kind;
    let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
    cut(&mut listing, page, selected, &mut metadata);
    for (_, stored) in &mut listing.items {
        *stored = convert::to(kind, stored.clone());
    }
    let body = render::list(
        kind,
        &listing,
        asked.format.shape,
        asked.query.get("includeObject"),
        scene.now,
        &metadata,
    );
    debug_assert!(
        asked.verb == Verb::List || asked.verb == Verb::DeleteCollection,
        "only lists are rendered as lists"
    );
    Outcome::reply(encoded(
        StatusCode::OK,
        body,
        asked.format.yaml && asked.format.shape == Shape::Whole,
        &scene.warnings,
    ))
}

fn cut(listing: &mut Listing, page: &Page, selected: bool, metadata: &mut Value) {
    if let Some(after) = &page.after {
        let first = listing
            .items
            .partition_point(|(key, _)| key.as_ref() <= after.as_str());
        listing.items.drain(..first);
    }
    let Some(limit) = page.limit else { return };
    if listing.items.len() <= limit {
        return;
    }
    let remaining = listing.items.len() - limit;
    listing.items.truncate(limit);
    let last = listing.items.last().map_or("", |(key, _)| key.as_ref());
    metadata["continue"] = URL_SAFE_NO_PAD
        .encode(json!({"v": "meta.k8s.io/v1", "rv": listing.revision, "start": last}).to_string())
        .into();
    // With a selector upstream cannot know how many remain.
    if !selected {
        metadata["remainingItemCount"] = remaining.into();
    }
}

/// Which part of which state a list is about.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The exact revision, none for the newest.
    at: Option<u64>,
    /// A revision that must have happened.
    not_older_than: Option<u64>,
    /// Only keys after this one.
    after: Option<String>,
    limit: Option<usize>,
}

/// Reads limit, continue, resourceVersion and resourceVersionMatch.
///
/// # Errors
/// 400 and 422 as upstream's ListOptions validation; 400 for a bad token.
pub(crate) fn page(target: &Target, query: &Query) -> Result<Page, Status> {
    let limit = query
        .number("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    query.number("timeoutSeconds")?;
    check_list_options(query)?;
    let revision = revision_parameter(query)?;
    let token = query.get("continue");
    if token.is_empty() {
        let exact = query.get("resourceVersionMatch") == "Exact"
            || (query.get("resourceVersionMatch").is_empty()
                && limit.is_some()
                && revision.is_some_and(|revision| revision > 0));
        let page = Page {
            limit,
            ..Page::default()
        };
        return Ok(match revision {
            Some(revision) if exact => Page {
                at: Some(revision),
                ..page
            },
            revision => Page {
                not_older_than: revision,
                ..page
            },
        });
    }
    if revision.is_some_and(|revision| revision > 0) {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let (revision, after) =
        read_token(token).ok_or_else(|| Status::bad_request("continue key is not valid"))?;
    // A token is only good for the collection that it came from.
    if !after.starts_with(&prefix(target)) {
        return Err(Status::bad_request("continue key is not valid"));
    }
    Ok(Page {
        at: Some(revision),
        after: Some(after),
        limit,
        not_older_than: None,
    })
}

fn read_token(token: &str) -> Option<(u64, String)> {
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?;
    let token: Value = serde_json::from_slice(&bytes).ok()?;
    Some((token["rv"].as_u64()?, token["start"].as_str()?.to_owned()))
}

/// The `resourceVersion` parameter, none when it is not given or empty.
///
/// # Errors
/// 400 when it is not a number.
pub(crate) fn revision_parameter(query: &Query) -> Result<Option<u64>, Status> {
    let text = query.get("resourceVersion");
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Status::bad_request(format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax")))
}

fn check_list_options(query: &Query) -> Result<(), Status> {
    let matching = query.get("resourceVersionMatch");
    let mut causes = Vec::new();
    if !matching.is_empty() {
        if query.get("resourceVersion").is_empty() {
            causes.push(Cause::new(
                "FieldValueForbidden",
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !query.get("continue").is_empty() {
            causes.push(Cause::new(
                "FieldValueForbidden",
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if matching != "Exact" && matching != "NotOlderThan" {
            causes.push(Cause::new("FieldValueNotSupported", "resourceVersionMatch", format!("Unsupported value: \"{matching}\": supported values: \"Exact\", \"NotOlderThan\"")));
        }
        if matching == "Exact" && query.get("resourceVersion") == "0" {
            causes.push(Cause::new(
                "FieldValueForbidden",
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if query.has("sendInitialEvents") {
        causes.push(Cause::new(
            "FieldValueForbidden",
            "sendInitialEvents",
            "Forbidden: sendInitialEvents is forbidden for list",
        ));
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid("meta.k8s.io", "ListOptions", "", &causes))
    }
}

fn not_in_future(view: &dyn View, revision: u64) -> Result<(), Status> {
    let current = view.revision();
    if revision > current {
        Err(Status::revision_too_large(revision, current))
    } else {
        Ok(())
    }
}

/// The objects of a target as of the page's revision.
pub(crate) fn snapshot(view: &dyn View, target: &Target, page: &Page) -> Result<Listing, Status> {
    if let Some(revision) = page.not_older_than {
        not_in_future(view, revision)?;
    }
    let (table, prefix) = (table_of(target.kind), prefix(target));
    let Some(revision) = page.at else {
        return Ok(view.list(table, &prefix));
    };
    view.list_at(table, &prefix, revision).map_err(|problem| match problem {
        NoSuchRevision::Future(current) => Status::revision_too_large(revision, current),
        NoSuchRevision::Expired if page.after.is_some() => {
            Status::expired("The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.")
        }
        NoSuchRevision::Expired => Status::expired(format!("The resourceVersion for the provided list is too old: {revision}")),
    })
}
