//! The pure heart: from a request and the objects to an answer and the changes. No clock, no randomness, no IO.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;

use crate::auth::token::TokenKey;
use crate::decode::{self, Decoded, Encoding};
use crate::entropy::Entropy;
use crate::negotiate::{Format, Shapes, format};
use crate::options::{WriteOptions, write_options};
use crate::patch::PatchType;
use crate::request::{Place, Query, Target, Verb, place, verb};
use crate::status::Status;
use crate::store::{Change, View};
use crate::user::User;
use crate::watch::Watch;
use crate::{admit, create, delete, discovery, list, patch, reviews, subresource, update, watch};

/// A request with its body read and its user known.
#[derive(Debug, Clone)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// The path, still percent-encoded.
    pub path: String,
    /// The query, still percent-encoded, without `?`.
    pub query: String,
    /// The `Accept` header, empty when there is none.
    pub accept: String,
    /// The `Content-Type` header, empty when there is none.
    pub content_type: String,
    /// The `User-Agent` header, empty when there is none.
    pub user_agent: String,
    /// The `If-None-Match` header, empty when there is none.
    pub if_none_match: String,
    /// The body.
    pub body: Bytes,
    /// Who asks.
    pub user: User,
}

/// What a server knows about itself.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Addresses of services, `A.B.C.D/bits`.
    pub service_range: String,
    /// `host:port` as discovery tells clients.
    pub address: String,
    /// Signs service account tokens.
    pub token_key: TokenKey,
    /// Pods may name the service account `default` though nobody has made it.
    pub assume_accounts: bool,
}

/// What comes of a request.
#[derive(Debug)]
pub struct Outcome {
    /// The answer, to be given once the changes are durable.
    pub reply: Reply,
    /// The changes, in the order of their revisions.
    pub changes: Vec<Change>,
}

/// An answer, or what the shell must do to give one.
#[derive(Debug)]
pub enum Reply {
    /// A complete answer.
    Done(Response<Bytes>),
    /// A stream of events.
    Watch(Box<Watch>),
    /// The node answers: the path and query to ask it with.
    Forward(String),
}

impl Reply {
    /// A refusal as an answer.
    pub fn refused(status: &Status) -> Self {
        Self::Done(refusal(status, &[]))
    }
}

impl Outcome {
    /// A refusal, with nothing changed.
    pub fn refused(status: &Status) -> Self {
        Self {
            reply: Reply::refused(status),
            changes: Vec::new(),
        }
    }

    /// A refusal that keeps the warnings given on the way to it.
    fn refused_with(status: &Status, warnings: &[String]) -> Self {
        Self::reply(refusal(status, warnings))
    }

    pub(crate) fn reply(response: Response<Bytes>) -> Self {
        Self {
            reply: Reply::Done(response),
            changes: Vec::new(),
        }
    }
}

/// A request that was understood as far as it can be without looking at the objects.
#[derive(Debug)]
pub struct Operation {
    request: Request,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The answer does not depend on the objects.
    Done(Box<Result<Response<Bytes>, Status>>),
    Asked(Box<Asked>),
}

/// A verb on a target with everything that the request says about it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) target: Target,
    pub(crate) verb: Verb,
    pub(crate) query: Query,
    pub(crate) format: Format,
    pub(crate) options: WriteOptions,
    /// The decoded body of creates, updates and deletes; null when there was none.
    pub(crate) body: Decoded,
    /// The kind of a patch.
    pub(crate) patch: Option<PatchType>,
    /// The undecoded body of a patch.
    pub(crate) raw: Bytes,
    pub(crate) user: User,
}

/// What performing an operation may use: the request and the world.
pub(crate) struct Scene<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) view: &'a dyn View,
    pub(crate) environment: &'a Environment,
    pub(crate) now: Timestamp,
    pub(crate) entropy: Entropy,
    pub(crate) warnings: Vec<String>,
    /// Changes that this request has already asked for: their revisions are taken.
    pub(crate) taken: u64,
    /// The field managers are already settled, by server-side apply.
    pub(crate) applied: bool,
}

impl Scene<'_> {
    /// The revision of the next change.
    pub(crate) fn next_revision(&self) -> u64 {
        self.view.revision() + 1 + self.taken
    }
}

impl Operation {
    /// Whether the writer must perform this.
    pub fn writes(&self) -> bool {
        match &self.step {
            Step::Done(_) => false,
            Step::Asked(asked) => match asked.verb {
                Verb::Get | Verb::List | Verb::Watch | Verb::Connect => false,
                Verb::Create => !reviews::is_review(&asked.target),
                Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection => true,
            },
        }
    }

    /// The path, for logs.
    pub fn path(&self) -> &str {
        &self.request.path
    }
}

/// Answers a request: the whole server as one function.
pub fn handle(
    request: Request,
    view: &dyn View,
    environment: &Environment,
    now: Timestamp,
    seed: u64,
) -> Outcome {
    perform(&prepare(request, environment), view, environment, now, seed)
}

/// The first half of [`handle`]: what can be done without the objects, so without waiting for the writer.
pub fn prepare(request: Request, environment: &Environment) -> Operation {
    let step = match place(&request.path) {
        Place::Target(target) => match ask(&request, target) {
            Ok(asked) => Step::Asked(Box::new(asked)),
            Err(status) => Step::Done(Box::new(Err(status))),
        },
        elsewhere => Step::Done(Box::new(discovery::answer_for(
            &elsewhere,
            &request,
            environment,
        ))),
    };
    Operation { request, step }
}

/// The second half of [`handle`].
pub fn perform(
    operation: &Operation,
    view: &dyn View,
    environment: &Environment,
    now: Timestamp,
    seed: u64,
) -> Outcome {
    let asked = match &operation.step {
        Step::Done(done) => {
            return done
                .as_ref()
                .as_ref()
                .map_or_else(Outcome::refused, |response| {
                    Outcome::reply(response.clone())
                });
        }
        Step::Asked(asked) => asked,
    };
    let mut scene = Scene {
        asked,
        view,
        environment,
        now,
        entropy: Entropy::new(seed),
        warnings: Vec::new(),
        taken: 0,
        applied: false,
    };
    scene
        .warnings
        .extend(admit::deprecation(asked.target.kind).map(str::to_owned));
    dispatch(&mut scene).unwrap_or_else(|status| Outcome::refused_with(&status, &scene.warnings))
}

fn ask(request: &Request, target: Target) -> Result<Asked, Status> {
    let query = Query::parse(&request.query);
    let verb = verb(&request.method, &target, &query)?;
    let format = format(&request.accept, shapes(verb))?;
    let patch = match verb {
        Verb::Patch => Some(patch::patch_type(&request.content_type)?),
        _ => None,
    };
    let applies = patch == Some(PatchType::Apply);
    let options = match verb {
        Verb::Create | Verb::Update | Verb::Patch => {
            write_options(&query, verb, applies, &request.user_agent)?
        }
        Verb::Get
        | Verb::List
        | Verb::Watch
        | Verb::Connect
        | Verb::Delete
        | Verb::DeleteCollection => WriteOptions::default(),
    };
    let body = body(request, verb)?;
    Ok(Asked {
        target,
        verb,
        query,
        format,
        options,
        body,
        patch,
        raw: request.body.clone(),
        user: request.user.clone(),
    })
}

fn shapes(verb: Verb) -> Shapes {
    match verb {
        Verb::Get | Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => Shapes::Object,
        Verb::List | Verb::DeleteCollection => Shapes::List,
        Verb::Watch => Shapes::Watch,
        Verb::Connect => Shapes::Plain,
    }
}

fn body(request: &Request, verb: Verb) -> Result<Decoded, Status> {
    match verb {
        Verb::Create | Verb::Update => {
            decode::decode(decode::encoding(&request.content_type)?, &request.body)
        }
        Verb::Delete | Verb::DeleteCollection if !request.body.is_empty() => {
            let encoding = decode::encoding(&request.content_type).unwrap_or(Encoding::Json);
            decode::decode(encoding, &request.body)
        }
        Verb::Get
        | Verb::List
        | Verb::Watch
        | Verb::Connect
        | Verb::Patch
        | Verb::Delete
        | Verb::DeleteCollection => Ok(Decoded {
            value: Value::Null,
            duplicates: Vec::new(),
        }),
    }
}

fn dispatch(scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    let asked = scene.asked;
    if let Some(outcome) = subresource::special(scene) {
        return outcome;
    }
    match asked.verb {
        Verb::Get => list::get(scene),
        Verb::List => list::list(scene),
        Verb::Watch => watch::watch(scene),
        Verb::Create => create::create(scene),
        Verb::Update => update::update(scene),
        Verb::Patch => patch::patch(scene),
        Verb::Delete => delete::delete(scene),
        Verb::DeleteCollection => delete::delete_collection(scene),
        Verb::Connect => subresource::connect::connect(scene),
    }
}

/// A refusal as an answer; where it says when to try again, the header says it too.
pub(crate) fn refusal(status: &Status, warnings: &[String]) -> Response<Bytes> {
    let mut response = answer(status.code, &status.body(), false, warnings);
    if let Some(seconds) = status.details["retryAfterSeconds"].as_u64() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// An answer of JSON, or YAML where it was asked for.
pub(crate) fn answer(
    code: StatusCode,
    body: &Value,
    yaml: bool,
    warnings: &[String],
) -> Response<Bytes> {
    let bytes = serde_json::to_vec(body)
        .map(Bytes::from)
        .unwrap_or_default();
    encoded(code, bytes, yaml, warnings)
}

/// An answer from rendered JSON.
pub(crate) fn encoded(
    code: StatusCode,
    json: Bytes,
    yaml: bool,
    warnings: &[String],
) -> Response<Bytes> {
    let (content_type, bytes) = if yaml {
        ("application/yaml", as_yaml(&json))
    } else {
        ("application/json", json)
    };
    let mut response = Response::new(bytes);
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for warning in warnings {
        if let Ok(value) = HeaderValue::from_str(&warning_header(warning)) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// The text of a Warning header: code 299, agent `-`, the words quoted.
fn warning_header(warning: &str) -> String {
    let words: String = warning
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    format!(
        "299 - \"{}\"",
        words.replace('\\', "\\\\").replace('"', "\\\"")
    )
}

fn as_yaml(json: &[u8]) -> Bytes {
    let value: Value = serde_json::from_slice(json).unwrap_or(Value::Null);
    serde_saphyr::to_string(&value)
        .map(Bytes::from)
        .unwrap_or_default()
}
