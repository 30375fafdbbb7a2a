//! What every cluster has from the start: its four namespaces.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::handle::{Reply, Request};
use crate::server::ApiServer;
use crate::user::User;

/// The namespaces that kube-apiserver makes.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl ApiServer {
    /// Makes the namespaces that are missing. A refusal other than "already there" is logged: the cluster works without.
    pub async fn ensure_namespaces(&self) {
        for name in NAMESPACES {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
                .to_string();
            let request = Request {
                method: Method::POST,
                path: "/api/v1/namespaces".to_owned(),
                query: String::new(),
                accept: String::new(),
                content_type: String::new(),
                user_agent: "stead".to_owned(),
                if_none_match: String::new(),
                body: Bytes::from(body),
                user: User::controller("bootstrap"),
            };
            if let Reply::Done(response) = self.ask(request).await
                && !response.status().is_success()
                && response.status() != http::StatusCode::CONFLICT
            {
                tracing::error!(
                    name,
                    code = response.status().as_u16(),
                    "the namespace could not be made"
                );
            }
        }
    }
}
