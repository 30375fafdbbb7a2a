//! Asks a server in-process and reads its answers as JSON.

use std::pin::Pin;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use stead_apiserver::{ApiServer, User, full};
use tower::ServiceExt;

/// Makes the namespace `default` and its service account.
pub(crate) async fn ready(server: ApiServer) -> ApiServer {
    server.ensure_namespaces().await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    send(
        &server,
        "POST",
        "/api/v1/namespaces/default/serviceaccounts",
        account,
    )
    .await;
    server
}

/// Sends a JSON body (null for none) and gives the code and the JSON of the answer.
pub(crate) async fn send(
    server: &ApiServer,
    method: &str,
    path: &str,
    body: Value,
) -> (StatusCode, Value) {
    send_as(server, method, path, "application/json", body).await
}

/// The same with a content type.
pub(crate) async fn send_as(
    server: &ApiServer,
    method: &str,
    path: &str,
    content_type: &str,
    body: Value,
) -> (StatusCode, Value) {
    let bytes = if body.is_null() {
        Bytes::new()
    } else {
        body.to_string().into()
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Content-Type", content_type)
        .header("User-Agent", "test/1")
        .body(full(bytes))
        .expect("a request");
    let answered: Pin<Box<dyn Future<Output = _> + Send>> =
        Box::pin(server.service(User::admin()).oneshot(request));
    let response = answered.await.expect("infallible");
    let code = response.status();
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// A ConfigMap with one entry.
pub(crate) fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

/// The collection of ConfigMaps in `default`.
pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The revision of an object or list.
pub(crate) fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
