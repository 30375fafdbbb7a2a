//! One call to the API: a request made of plain parts, an answer of plain JSON, an error that says what to do next.

use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use crate::resource::{Key, Resource, text};

/// What is done to the object or collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Create, or act on a subresource.
    Post,
    /// Replace.
    Put,
    /// JSON merge patch.
    MergePatch,
    /// Strategic merge patch.
    StrategicPatch,
    /// JSON patch.
    JsonPatch,
    /// Delete, with delete options as body.
    Delete,
}

impl Method {
    fn http(self) -> http::Method {
        match self {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
            Method::MergePatch | Method::StrategicPatch | Method::JsonPatch => http::Method::PATCH,
            Method::Delete => http::Method::DELETE,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Method::Get | Method::Post | Method::Put | Method::Delete => "application/json",
            Method::MergePatch => "application/merge-patch+json",
            Method::StrategicPatch => "application/strategic-merge-patch+json",
            Method::JsonPatch => "application/json-patch+json",
        }
    }
}

/// A request to the API, not yet sent: plain parts that a test can compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is done.
    pub method: Method,
    /// Path, with the query if there is one.
    pub path: String,
    /// JSON body; `null` for none.
    pub body: Value,
}

impl Request {
    /// Reads one object.
    pub fn get(resource: &Resource, key: &Key) -> Request {
        Request {
            method: Method::Get,
            path: resource.object(key),
            body: Value::Null,
        }
    }

    /// Lists a collection, of one namespace or of all.
    pub fn list(resource: &Resource, namespace: Option<&str>) -> Request {
        Request {
            method: Method::Get,
            path: resource.collection(namespace),
            body: Value::Null,
        }
    }

    /// Creates an object in the namespace that its metadata name.
    pub fn create(resource: &Resource, object: Value) -> Request {
        let namespace = Key::of(&object).namespace;
        Request {
            method: Method::Post,
            path: resource.collection(Some(&namespace)),
            body: object,
        }
    }

    /// Patches an object.
    pub fn patch(method: Method, resource: &Resource, key: &Key, patch: Value) -> Request {
        Request {
            method,
            path: resource.object(key),
            body: patch,
        }
    }

    /// Deletes one object: only if its UID is still this one.
    pub fn delete(resource: &Resource, key: &Key, uid: &str) -> Request {
        let options =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}});
        Request {
            method: Method::Delete,
            path: resource.object(key),
            body: options,
        }
    }

    /// The same request on a subresource (`status`, `binding`, ...).
    #[must_use]
    pub fn on(mut self, subresource: &str) -> Request {
        self.path = format!("{}/{subresource}", self.path);
        self
    }
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API answered, and said no.
    #[error("{method} {path}: {message}")]
    Refused {
        /// HTTP method.
        method: http::Method,
        /// Path that was called.
        path: String,
        /// HTTP status.
        code: u16,
        /// The API's one-word reason (`Conflict`, `NotFound`, ...); empty when it gave none.
        reason: String,
        /// The API's sentence.
        message: String,
        /// How long the API asked us to wait before trying again.
        retry_after: Option<Duration>,
    },
    /// No answer: whether the call took effect is not known.
    #[error("{method} {path} got no answer")]
    Lost {
        /// HTTP method.
        method: http::Method,
        /// Path that was called.
        path: String,
        /// What went wrong on the way.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CallError {
    /// HTTP status; 0 when there was no answer.
    pub fn code(&self) -> u16 {
        match self {
            CallError::Refused { code, .. } => *code,
            CallError::Lost { .. } => 0,
        }
    }

    /// The object is not there (any more).
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// Somebody else wrote first, the name is taken, or a precondition no longer holds.
    pub fn is_conflict(&self) -> bool {
        self.code() == 409
    }

    /// The name is taken.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, CallError::Refused { reason, .. } if reason == "AlreadyExists")
    }

    /// How long the server asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            CallError::Refused { retry_after, .. } => *retry_after,
            CallError::Lost { .. } => None,
        }
    }

    /// The API's own sentence, or ours when there was no answer.
    pub fn message(&self) -> String {
        match self {
            CallError::Refused { message, .. } => message.clone(),
            CallError::Lost { .. } => self.to_string(),
        }
    }
}

/// Sends a request and reads the answer: the object, the list, or a `Status` of success.
///
/// # Errors
/// [`CallError::Refused`] when the API said no, [`CallError::Lost`] when there was no answer.
pub async fn call(client: &kube::Client, request: Request) -> Result<Value, CallError> {
    let response = send(client, &request).await?;
    if !response.status().is_success() {
        return Err(refusal(&request, response).await);
    }
    let body = response.into_body().collect().await;
    let bytes = body.map_err(|error| lost(&request, error))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| lost(&request, error))
}

/// Sends a request; gives the response whatever it says.
pub(crate) async fn send(
    client: &kube::Client,
    request: &Request,
) -> Result<http::Response<Body>, CallError> {
    let Request { method, path, body } = request;
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let sent = http::Request::builder()
        .method(method.http())
        .uri(path.as_str())
        .header(http::header::CONTENT_TYPE, method.content_type())
        .header(http::header::ACCEPT, "application/json")
        .body(Body::from(bytes))
        .map_err(|error| lost(request, error))?;
    client
        .send(sent)
        .await
        .map_err(|error| lost(request, error))
}

fn lost(request: &Request, source: impl std::error::Error + Send + Sync + 'static) -> CallError {
    CallError::Lost {
        method: request.method.http(),
        path: request.path.clone(),
        source: source.into(),
    }
}

/// What a response that is no success says.
pub(crate) async fn refusal(request: &Request, response: http::Response<Body>) -> CallError {
    let (parts, body) = response.into_parts();
    let header = parts
        .headers
        .get(http::header::RETRY_AFTER)
        .and_then(|seconds| seconds.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    // The status code alone is a refusal, whatever becomes of the sentence that explains it.
    let bytes = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let status = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut refused = status_of(request.method.http(), request.path.clone(), &status);
    if let CallError::Refused {
        code,
        message,
        retry_after,
        ..
    } = &mut refused
    {
        *code = parts.status.as_u16();
        *retry_after = header.or(*retry_after);
        if message.is_empty() {
            *message = format!("answered {}", parts.status);
        }
    }
    refused
}

/// A `Status` object as the refusal that it tells of.
pub(crate) fn status_of(method: http::Method, path: String, status: &Value) -> CallError {
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64);
    CallError::Refused {
        method,
        path,
        code: number("/code")
            .and_then(|code| code.try_into().ok())
            .unwrap_or(0),
        reason: text(status, "/reason").to_owned(),
        message: text(status, "/message").to_owned(),
        retry_after: number("/details/retryAfterSeconds").map(Duration::from_secs),
    }
}
