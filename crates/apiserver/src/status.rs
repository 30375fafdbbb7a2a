//! Refusals as values: each becomes the `Status` object that kube-apiserver answers with.

use http::StatusCode;
use serde_json::{Value, json};
use stead_schema::Kind;

/// One broken rule, rendered into `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The machine-readable reason, for instance `FieldValueInvalid`.
    pub reason: &'static str,
    /// The path of the field.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl Cause {
    /// A cause.
    pub fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason,
            field: field.into(),
            message: message.into(),
        }
    }

    fn body(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

/// An answer that says no. `body` renders it as a Kubernetes `Status`.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The HTTP code.
    pub code: StatusCode,
    /// The machine-readable reason, empty where upstream leaves it out.
    pub reason: &'static str,
    /// The sentence for people.
    pub message: String,
    /// `details`, null where there are none.
    pub details: Value,
}

impl Status {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = serde_json::Map::new();
        for (key, value) in [("group", group), ("kind", kind), ("name", name)] {
            if !value.is_empty() {
                details.insert(key.to_owned(), value.into());
            }
        }
        self.details = Value::Object(details);
        self
    }

    fn because(mut self, causes: Value) -> Self {
        if !self.details.is_object() {
            self.details = json!({});
        }
        self.details["causes"] = causes;
        self
    }

    /// 404: the object is not there.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let full = qualified(resource, group);
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("{full} \"{name}\" not found"),
        )
        .about(group, resource, name)
    }

    /// 404: the object of this kind is not there.
    pub(crate) fn missing(kind: &Kind, name: &str) -> Self {
        Self::not_found(kind.group, kind.plural, name)
    }

    /// 404: the path names nothing that is served.
    pub fn no_such_resource() -> Self {
        let mut status = Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        );
        status.details = json!({});
        status
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let full = qualified(resource, group);
        Self::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            format!("{full} \"{name}\" already exists"),
        )
        .about(group, resource, name)
    }

    /// 409: a precondition does not hold. `resource` is as upstream words it (plural, or the kind in deletes).
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let full = qualified(resource, group);
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            format!("Operation cannot be fulfilled on {full} \"{name}\": {why}"),
        )
        .about(group, resource, name)
    }

    /// 422: the object breaks rules, each named.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let full = qualified(kind, group);
        let words: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let message = match words.as_slice() {
            [] => format!("{full} \"{name}\" is invalid"),
            [one] => format!("{full} \"{name}\" is invalid: {one}"),
            many => format!("{full} \"{name}\" is invalid: [{}]", many.join(", ")),
        };
        let status = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
            .about(group, kind, name);
        if causes.is_empty() {
            return status;
        }
        status.because(causes.iter().map(Cause::body).collect())
    }

    /// 422 without details: a patch that does not apply.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403 about an object.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let full = qualified(resource, group);
        let message = if name.is_empty() {
            format!("{full} is forbidden: {why}")
        } else {
            format!("{full} \"{name}\" is forbidden: {why}")
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(group, resource, name)
    }

    /// 403 about an object, with causes where there are any.
    pub fn forbidden_because(
        group: &str,
        resource: &str,
        name: &str,
        why: &str,
        causes: &[Cause],
    ) -> Self {
        let status = Self::forbidden(group, resource, name, why);
        if causes.is_empty() {
            status
        } else {
            status.because(causes.iter().map(Cause::body).collect())
        }
    }

    /// 403: the namespace is being deleted.
    pub fn namespace_terminating(group: &str, resource: &str, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        Self::forbidden(group, resource, name, &why)
            .because(json!([{"reason": "NamespaceTerminating", "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace"}]))
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let mut status = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        status.details = json!({});
        status
    }

    /// 405 about a resource, as the generic store words it.
    pub fn not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let full = qualified(resource, group);
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            format!("{verb} is not supported on resources of kind \"{full}\""),
        )
        .about(group, resource, "")
    }

    /// 406.
    pub fn not_acceptable() -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml, application/json;as=Table, application/json;as=PartialObjectMetadata",
        )
    }

    /// 415.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            ),
        )
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("limit is {limit}"),
        )
    }

    /// 410: the asked revision is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 504: the asked revision has not happened.
    pub fn revision_too_large(asked: u64, current: u64) -> Self {
        let mut status = Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        );
        status.details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1});
        status
    }

    /// 429: a disruption budget forbids the eviction now.
    pub fn disruption_budget(message: &str, cause: String, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        status.details = json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]});
        if retry_after_seconds > 0 {
            status.details["retryAfterSeconds"] = retry_after_seconds.into();
        }
        status
    }

    /// 503: somebody who is needed is not there.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            message,
        )
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let mut status = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        status.details = json!({"causes": [{"message": message}]});
        status
    }

    /// 500 without a reason, as upstream answers where an error has none.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// 507: the change could not be made durable. Nothing of it was applied.
    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "InsufficientStorage",
            message,
        )
    }

    /// 409 of server-side apply: others own the fields.
    pub fn field_conflicts(message: String, causes: Value) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", message).because(causes)
    }

    /// The `Status` object.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code.as_u16(),
        });
        if !self.reason.is_empty() {
            body["reason"] = self.reason.into();
        }
        if self.details.is_object() {
            body["details"] = self.details.clone();
        }
        body
    }
}

/// `statefulsets.apps`, or only `pods` in the core group.
fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}
