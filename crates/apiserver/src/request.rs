//! From an HTTP request to what is asked: the path, the query and the verb, as kube-apiserver reads them.

use http::Method;
use percent_encoding::percent_decode_str;
use stead_schema::Kind;

use crate::status::Status;

/// What a path under `/api` or `/apis` points at.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    /// Empty for cluster-wide kinds and for all namespaces.
    pub(crate) namespace: String,
    /// Empty for the collection.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    /// Asked through the old `/watch/` prefix.
    pub(crate) watch_prefix: bool,
}

/// What a path is about.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// `/healthz`, `/livez`, `/readyz` and their checks.
    Health,
    /// `/version`.
    Version,
    /// `/api`, `/apis`, `/apis/GROUP`, `/api/v1`, `/apis/GROUP/VERSION`.
    Discovery(Vec<String>),
    /// `/openapi/v3` and below, `/openapi/v2`.
    OpenApi(Vec<String>),
    /// `/.well-known/openid-configuration` and `/openid/v1/jwks`: how others verify service account tokens.
    Issuer(Issuer),
    /// A resource, an object, a subresource.
    Target(Target),
    /// Group and version are served, the resource is not.
    UnknownResource,
    /// Nothing is served there.
    Nowhere,
}

/// What is told of the issuer of service account tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Issuer {
    /// Where its keys are.
    Configuration,
    /// Its keys.
    Keys,
}

/// Finds what a path is about.
pub(crate) fn place(path: &str) -> Place {
    let parts: Vec<String> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let words: Vec<&str> = parts.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Place::Health,
        ["version"] => Place::Version,
        [".well-known", "openid-configuration"] => Place::Issuer(Issuer::Configuration),
        ["openid", "v1", "jwks"] => Place::Issuer(Issuer::Keys),
        ["openapi", ..] => Place::OpenApi(parts),
        ["api"] | ["apis"] | ["apis", _] => Place::Discovery(parts),
        ["api", version] => {
            if served("", version) {
                Place::Discovery(parts)
            } else {
                Place::UnknownResource
            }
        }
        ["apis", group, version] => {
            if served(group, version) {
                Place::Discovery(parts)
            } else {
                Place::Nowhere
            }
        }
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => Place::Nowhere,
    }
}

fn served(group: &str, version: &str) -> bool {
    stead_schema::group_versions().any(|known| known == (group, version))
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Place {
    if !served(group, version) {
        return if group.is_empty() {
            Place::UnknownResource
        } else {
            Place::Nowhere
        };
    }
    let (watch_prefix, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        // Below a namespace: `namespaces/NS/pods/...`. The namespace itself has only the subresources named here.
        ["namespaces", namespace, rest @ ..]
            if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) =>
        {
            (*namespace, rest)
        }
        rest => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", String::new()),
        [plural, name] => (*plural, *name, String::new()),
        [plural, name, subresource @ ..] => (*plural, *name, subresource.join("/")),
        [] => return Place::UnknownResource,
    };
    let Some(kind) = stead_schema::resource(group, version, plural) else {
        return Place::UnknownResource;
    };
    let misplaced = if kind.namespaced {
        namespace.is_empty() && !name.is_empty()
    } else {
        !namespace.is_empty()
    };
    let known = subresource.is_empty()
        || kind.subresource(&subresource).is_some()
        || subresource.starts_with("proxy");
    if misplaced || !known {
        return Place::UnknownResource;
    }
    Place::Target(Target {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource,
        watch_prefix,
    })
}

/// The parameters of a query, decoded, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string.
    pub(crate) fn parse(query: &str) -> Self {
        let decode = |text: &str| {
            percent_decode_str(&text.replace('+', " "))
                .decode_utf8_lossy()
                .into_owned()
        };
        Self(
            query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of a parameter, empty when there is none.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map_or("", |(_, value)| value)
    }

    /// Whether the parameter is there, with or without a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// All values of a parameter.
    pub(crate) fn all(&self, key: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// A yes or no, as upstream converts it: `0` and `false` are no, the bare name is yes.
    ///
    /// # Errors
    /// Never: upstream takes anything else for yes.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .is_some_and(|(_, value)| !matches!(value.to_ascii_lowercase().as_str(), "0" | "false"))
    }

    /// A whole number, `None` when it is not given or empty.
    ///
    /// # Errors
    /// 400 when it is not a number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        let text = self.get(key);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "strconv.ParseInt: parsing \"{text}\": invalid syntax"
            ))
        })
    }
}

/// What the request wants of its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// exec, attach, portforward, log, proxy: handed to the node.
    Connect,
}

/// The verb of a method on a target.
///
/// # Errors
/// 405 where the resource does not have the verb.
pub(crate) fn verb(method: &Method, target: &Target, query: &Query) -> Result<Verb, Status> {
    let sub = target.subresource.as_str();
    if matches!(
        (target.kind.plural, sub),
        ("pods", "exec" | "attach" | "portforward" | "log")
    ) || sub.starts_with("proxy")
    {
        // upstream: a log is got; the others connect, by GET or POST. What is proxied is refused by itself.
        let served = match sub {
            "log" => *method == Method::GET,
            "exec" | "attach" | "portforward" => [Method::GET, Method::POST].contains(method),
            _ => true,
        };
        return match served {
            true => Ok(Verb::Connect),
            false => Err(Status::method_not_allowed()),
        };
    }
    let verb = match *method {
        Method::GET | Method::HEAD
            if target.watch_prefix || (sub.is_empty() && query.flag("watch")) =>
        {
            Verb::Watch
        }
        Method::GET | Method::HEAD if target.name.is_empty() => Verb::List,
        Method::GET | Method::HEAD => Verb::Get,
        // Creating names its object in the body: `POST .../configmaps/name` is not served.
        Method::POST if target.name.is_empty() || !sub.is_empty() => Verb::Create,
        Method::PUT if !target.name.is_empty() => Verb::Update,
        Method::PATCH if !target.name.is_empty() => Verb::Patch,
        Method::DELETE if target.name.is_empty() => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        _ => return Err(Status::method_not_allowed()),
    };
    let everywhere = target.kind.namespaced && target.namespace.is_empty();
    let reads = matches!(verb, Verb::Get | Verb::List | Verb::Watch);
    if (everywhere && !reads) || !allowed(verb, target) {
        return Err(Status::method_not_allowed());
    }
    Ok(verb)
}

fn allowed(verb: Verb, target: &Target) -> bool {
    let word = match verb {
        Verb::Get => "get",
        Verb::List => "list",
        Verb::Watch => "watch",
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Patch => "patch",
        Verb::Delete => "delete",
        Verb::DeleteCollection => "deletecollection",
        Verb::Connect => return true,
    };
    match target.kind.subresource(&target.subresource) {
        Some(subresource) => subresource.verbs.contains(&word),
        None => target.kind.verbs.contains(&word),
    }
}
