//! What the server serves: discovery in both forms, health, version, OpenAPI.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stead_schema::{Kind, Subresource};

use crate::auth::token;
use crate::handle::{Environment, Request, answer, encoded};
use crate::negotiate::{Shapes, format};
use crate::request::{Issuer, Place, Query};
use crate::status::Status;

/// The Kubernetes version that this server speaks.
const MINOR: &str = "36";

/// Answers everything that is not a resource.
///
/// # Errors
/// 404 where nothing is served, 406 where no acceptable form is.
pub(crate) fn answer_for(
    place: &Place,
    request: &Request,
    environment: &Environment,
) -> Result<Response<Bytes>, Status> {
    match place {
        Place::Health => Ok(health(request)),
        Place::Version => Ok(indented(&version())),
        Place::Discovery(parts) => discover(parts, request, environment),
        Place::OpenApi(parts) => openapi(parts, request),
        Place::Issuer(what) => Ok(issuer(*what, environment)),
        Place::UnknownResource | Place::Target(_) => Err(Status::no_such_resource()),
        Place::Nowhere => Ok(text(StatusCode::NOT_FOUND, "404 page not found\n")),
    }
}

/// What verifiers of service account tokens read: OpenID Connect Discovery and a JSON Web Key Set.
fn issuer(what: Issuer, environment: &Environment) -> Response<Bytes> {
    let (body, content_type) = match what {
        Issuer::Configuration => (
            json!({
                "issuer": token::ISSUER,
                "jwks_uri": format!("https://{}/openid/v1/jwks", environment.address),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }),
            "application/json",
        ),
        Issuer::Keys => (environment.token_key.key_set(), "application/jwk-set+json"),
    };
    let mut response = plain(&body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600"),
    );
    response
}

fn plain(body: &Value) -> Response<Bytes> {
    answer(StatusCode::OK, body, false, &[])
}

/// For people's eyes, as upstream writes its version.
fn indented(body: &Value) -> Response<Bytes> {
    let json = serde_json::to_vec_pretty(body)
        .map(Bytes::from)
        .unwrap_or_default();
    encoded(StatusCode::OK, json, false, &[])
}

fn text(code: StatusCode, body: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

fn health(request: &Request) -> Response<Bytes> {
    let query = Query::parse(&request.query);
    let name = request
        .path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or("healthz");
    if query.has("verbose") {
        return text(
            StatusCode::OK,
            &format!("[+]ping ok\n[+]store ok\n{name} check passed\n"),
        );
    }
    text(StatusCode::OK, "ok")
}

/// The version, as `/version` tells it. `gitVersion` is what clients and charts compare.
fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "emulationMajor": "1", "emulationMinor": MINOR, "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": format!("v1.{MINOR}.0+stead-{}", env!("CARGO_PKG_VERSION")), "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": platform(),
    })
}

fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", std::env::consts::OS)
}

fn discover(
    parts: &[String],
    request: &Request,
    environment: &Environment,
) -> Result<Response<Bytes>, Status> {
    let words: Vec<&str> = parts.iter().map(String::as_str).collect();
    if words.len() == 1
        && let Some(version) = aggregated(&request.accept)
    {
        return Ok(aggregate(words == ["apis"], version));
    }
    let format = format(&request.accept, Shapes::Plain)?;
    let body = match words.as_slice() {
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": environment.address}],
        }),
        ["apis"] => {
            let groups: Vec<Value> = named_groups().map(group).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] => match named_groups().find(|known| known.name == *name) {
            Some(known) => {
                let mut body = group(known);
                body["kind"] = "APIGroup".into();
                body["apiVersion"] = "v1".into();
                body
            }
            None => return Ok(text(StatusCode::NOT_FOUND, "404 page not found\n")),
        },
        ["api", version] => resources("", version),
        ["apis", group, version] => resources(group, version),
        _ => return Err(Status::no_such_resource()),
    };
    Ok(answer(StatusCode::OK, &body, format.yaml, &[]))
}

fn named_groups() -> impl Iterator<Item = &'static stead_schema::Group> {
    stead_schema::groups()
        .iter()
        .filter(|group| !group.name.is_empty())
}

fn group(group: &stead_schema::Group) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(|one| version(one)).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": version(group.preferred)})
}

fn kinds_of(group: &str, version: &str) -> impl Iterator<Item = &'static Kind> {
    stead_schema::kinds().filter(move |kind| kind.group == group && kind.version == version)
}

fn resources(group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for kind in kinds_of(group, version) {
        let mut entry = json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind, "verbs": kind.verbs});
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        if kind.verbs.contains(&"list") {
            entry["storageVersionHash"] = storage_hash(kind).into();
        }
        list.push(entry);
        list.extend(kind.subresources.iter().map(|sub| subresource(kind, sub)));
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

fn subresource(kind: &Kind, sub: &Subresource) -> Value {
    let mut entry = json!({"name": format!("{}/{}", kind.plural, sub.name), "singularName": "", "namespaced": kind.namespaced, "kind": sub.kind, "verbs": sub.verbs});
    if (sub.group, sub.version) != (kind.group, kind.version) {
        entry["group"] = sub.group.into();
        entry["version"] = sub.version.into();
    }
    entry
}

/// Tells clients when the stored form of a kind changes: it never does here, so any constant of the kind will do.
fn storage_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    let digest = Sha256::digest(format!("{}/{}/{}", kind.group, kind.version, kind.kind));
    base64::engine::general_purpose::STANDARD.encode(digest.get(..8).unwrap_or_default())
}

/// The version of the aggregated form that a client prefers, if it does.
fn aggregated(accept: &str) -> Option<&'static str> {
    accept.split(',').map(str::trim).find_map(|clause| {
        if !clause.contains("as=APIGroupDiscoveryList") || !clause.contains("g=apidiscovery.k8s.io")
        {
            return if clause == "application/json" || clause == "*/*" {
                Some(None)
            } else {
                None
            };
        }
        if clause.contains("v=v2beta1") {
            Some(Some("v2beta1"))
        } else {
            Some(Some("v2"))
        }
    })?
}

fn aggregate(named: bool, version: &'static str) -> Response<Bytes> {
    let items: Vec<Value> = stead_schema::groups()
        .iter()
        .filter(|group| group.name.is_empty() != named)
        .map(discovered_group)
        .collect();
    let body = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items});
    let mut response = plain(&body);
    let content_type =
        format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    if let Ok(value) = HeaderValue::from_str(&content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

fn discovered_group(group: &stead_schema::Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> =
                kinds_of(group.name, version).map(discovered_kind).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.name.is_empty() {
        json!({})
    } else {
        json!({"name": group.name})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn discovered_kind(kind: &'static Kind) -> Value {
    let mut entry = json!({
        "resource": kind.plural, "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": kind.singular, "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    if !kind.subresources.is_empty() {
        let list: Vec<Value> = kind
            .subresources
            .iter()
            .map(|sub| json!({"subresource": sub.name, "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind}, "verbs": sub.verbs}))
            .collect();
        entry["subresources"] = list.into();
    }
    entry
}

fn openapi(parts: &[String], request: &Request) -> Result<Response<Bytes>, Status> {
    let words: Vec<&str> = parts.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["openapi", "v3"] => {
            let mut paths = serde_json::Map::new();
            for path in stead_schema::openapi_v3_paths() {
                let url = format!("/openapi/v3/{path}?hash={}", document_hash(&path));
                paths.insert(path, json!({"serverRelativeURL": url}));
            }
            Ok(plain(&json!({"paths": paths})))
        }
        ["openapi", "v3", rest @ ..] => {
            let path = rest.join("/");
            let etag = format!("\"{}\"", document_hash(&path));
            if request.if_none_match == etag {
                return Ok(tagged(text(StatusCode::NOT_MODIFIED, ""), &etag, request));
            }
            let document = stead_schema::openapi_v3(&path).ok_or_else(Status::no_such_resource)?;
            Ok(tagged(plain(&document), &etag, request))
        }
        ["openapi", "v2"] => Err(Status::no_such_resource()),
        _ => Ok(text(StatusCode::NOT_FOUND, "404 page not found\n")),
    }
}

/// A document changes only with the program.
fn document_hash(path: &str) -> String {
    let digest = Sha256::digest(format!("{} {path}", env!("CARGO_PKG_VERSION")));
    digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

fn tagged(mut response: Response<Bytes>, etag: &str, request: &Request) -> Response<Bytes> {
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, value);
    }
    // A path with the document's hash never changes what it means.
    if !Query::parse(&request.query).get("hash").is_empty() {
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, immutable"),
        );
        headers.insert(
            header::EXPIRES,
            HeaderValue::from_static("Fri, 31 Dec 2038 00:00:00 GMT"),
        );
    }
    response
}
