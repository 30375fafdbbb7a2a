//! Over TLS, with a real client: who may ask, what a stranger sees, both HTTP versions, and an orderly end.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use stead_apiserver::{Alone, AloneOptions, OpenError, start_alone};

const ANY: &str = "127.0.0.1:0";

async fn alone(dir: &Path, listen: &str) -> Result<Alone, OpenError> {
    start_alone(AloneOptions {
        data_dir: dir.to_owned(),
        listen: listen.parse().expect("an address"),
        in_memory: false,
    })
    .await
}

/// A client of the written kubeconfig, as any other program would make one; `change` edits it first.
async fn client(alone: &Alone, change: impl FnOnce(&mut Config)) -> Client {
    let kubeconfig = Kubeconfig::read_from(alone.kubeconfig()).expect("a kubeconfig");
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a config");
    change(&mut config);
    Client::try_from(config).expect("a client")
}

fn stranger(config: &mut Config) {
    config.auth_info = kube::config::AuthInfo::default();
}

fn bearer(token: &str) -> impl FnOnce(&mut Config) {
    let token = token.to_owned();
    move |config| {
        config.auth_info = kube::config::AuthInfo {
            token: Some(token.into()),
            ..kube::config::AuthInfo::default()
        };
    }
}

/// The code that a GET is answered with.
async fn code(client: &Client, path: &str) -> StatusCode {
    let request = http::Request::get(path)
        .body(kube::client::Body::empty())
        .expect("a request");
    client.send(request).await.expect("an answer").status()
}

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": "v"}}))
        .expect("a ConfigMap")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubeconfig_opens_the_server_and_strangers_see_only_health() {
    let dir = tempfile::tempdir().expect("a folder");
    let alone = alone(dir.path(), ANY).await.expect("a server");
    let mode = std::fs::metadata(alone.kubeconfig())
        .expect("a kubeconfig")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let admin = client(&alone, |_| {}).await;
    let namespaces = Api::<Namespace>::all(admin.clone())
        .list(&ListParams::default())
        .await
        .expect("namespaces");
    let names: Vec<String> = namespaces
        .items
        .into_iter()
        .filter_map(|one| one.metadata.name)
        .collect();
    assert_eq!(
        names,
        ["default", "kube-node-lease", "kube-public", "kube-system"]
    );

    let nobody = client(&alone, stranger).await;
    for open in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(code(&nobody, open).await, StatusCode::OK, "{open}");
    }
    for closed in [
        "/api",
        "/apis",
        "/api/v1/namespaces",
        "/openapi/v3",
        "/api/v1/namespaces/default/secrets",
    ] {
        assert_eq!(
            code(&nobody, closed).await,
            StatusCode::UNAUTHORIZED,
            "{closed}"
        );
    }
    let liar = client(&alone, bearer("a.b.c")).await;
    assert_eq!(
        code(&liar, "/api/v1/namespaces").await,
        StatusCode::UNAUTHORIZED
    );
    alone.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_may_what_its_roles_say() {
    let dir = tempfile::tempdir().expect("a folder");
    let alone = alone(dir.path(), ANY).await.expect("a server");
    let admin = client(&alone, |_| {}).await;
    let post = async |path: &str, body: Value| -> Value {
        let request = http::Request::post(path)
            .header("Content-Type", "application/json")
            .body(body.to_string().into_bytes())
            .expect("a request");
        admin.request::<Value>(request).await.expect("created")
    };
    let in_default =
        |rest: &str| format!("/apis/rbac.authorization.k8s.io/v1/namespaces/default/{rest}");
    post(
        "/api/v1/namespaces/default/serviceaccounts",
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app"}}),
    )
    .await;
    post(&in_default("roles"), json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]}]})).await;
    post(&in_default("rolebindings"), json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"}, "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": "default"}], "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}})).await;
    let issued = post(
        "/api/v1/namespaces/default/serviceaccounts/app/token",
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}),
    )
    .await;

    let app = client(
        &alone,
        bearer(issued["status"]["token"].as_str().expect("a token")),
    )
    .await;
    assert_eq!(
        code(&app, "/api/v1/namespaces/default/configmaps").await,
        StatusCode::OK
    );
    assert_eq!(
        code(&app, "/api/v1/namespaces/default/secrets").await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        code(&app, "/api/v1/namespaces/kube-system/configmaps").await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(code(&app, "/apis").await, StatusCode::OK);
    alone.shutdown().await;
}

/// Posts as this client; gives the code and the answer.
async fn post(client: &Client, path: &str, body: Value) -> (StatusCode, Value) {
    let request = http::Request::post(path)
        .header("Content-Type", "application/json")
        .body(body.to_string().into_bytes().into())
        .expect("a request");
    let response = client.send(request).await.expect("an answer");
    let code = response.status();
    let bytes = http_body_util::BodyExt::collect(response.into_body())
        .await
        .expect("a body")
        .to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

/// Makes a service account of this name and a client with a token of it, asked for with this spec.
async fn account(alone: &Alone, admin: &Client, name: &str, spec: Value) -> Client {
    let made = json!({"metadata": {"name": name}});
    // Another token of the same account is fine.
    post(admin, ACCOUNTS, made).await;
    let (code, issued) = post(
        admin,
        &format!("{ACCOUNTS}/{name}/token"),
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}),
    )
    .await;
    assert_eq!(code, StatusCode::CREATED, "{issued}");
    let token = issued["status"]["token"].as_str().expect("a token");
    client(alone, bearer(token)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_server_only_for_its_audience_and_as_long_as_its_pod_lives() {
    let dir = tempfile::tempdir().expect("a folder");
    let alone = alone(dir.path(), ANY).await.expect("a server");
    let admin = client(&alone, |_| {}).await;
    let vault = account(&alone, &admin, "app", json!({"audiences": ["vault"]})).await;
    assert_eq!(code(&vault, "/api").await, StatusCode::UNAUTHORIZED);
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "app", "containers": [{"name": "c", "image": "i"}]}});
    let (made, answer) = post(&admin, pods, pod).await;
    assert_eq!(made, StatusCode::CREATED, "{answer}");
    let bound = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": answer["metadata"]["uid"]}});
    let app = account(&alone, &admin, "app", bound).await;
    assert_eq!(code(&app, "/api").await, StatusCode::OK);
    let keys = app
        .request::<Value>(
            http::Request::get("/openid/v1/jwks")
                .body(Vec::new())
                .expect("a request"),
        )
        .await
        .expect("keys");
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    assert_eq!(
        code(&app, "/.well-known/openid-configuration").await,
        StatusCode::OK
    );
    assert_eq!(code(&app, "/metrics").await, StatusCode::FORBIDDEN);
    let now = DeleteParams::default().grace_period(0);
    Api::<Pod>::namespaced(admin, "default")
        .delete("p", &now)
        .await
        .expect("deleted");
    assert_eq!(code(&app, "/api").await, StatusCode::UNAUTHORIZED);
    alone.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_away_more_than_they_have() {
    let dir = tempfile::tempdir().expect("a folder");
    let alone = alone(dir.path(), ANY).await.expect("a server");
    let admin = client(&alone, |_| {}).await;
    let app = account(&alone, &admin, "app", json!({})).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let roles = format!("{rbac}/namespaces/default/roles");
    let bindings = format!("{rbac}/namespaces/default/rolebindings");
    let role = |name: &str, group: &str, resource: &str, verb: &str| json!({"metadata": {"name": name}, "rules": [{"verbs": [verb], "apiGroups": [group], "resources": [resource]}]});
    let binding = |name: &str, kind: &str, role: &str| {
        json!({"metadata": {"name": name}, "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": "default"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}})
    };
    let mut giver = role("giver", "rbac.authorization.k8s.io", "roles", "create");
    giver["rules"][0]["resources"] = json!(["roles", "rolebindings"]);
    post(&admin, &roles, giver).await;
    post(&admin, &roles, role("reader", "", "configmaps", "get")).await;
    for name in ["giver", "reader"] {
        let (code, answer) = post(&admin, &bindings, binding(name, "Role", name)).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
    }
    let mine = role("mine", "", "configmaps", "get");
    assert_eq!(post(&app, &roles, mine).await.0, StatusCode::CREATED);
    let (code, answer) = post(&app, &roles, role("more", "", "secrets", "get")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let said = answer["message"].as_str().expect("a message");
    assert!(said.contains("not currently held"), "{said}");
    let all = binding("all", "ClusterRole", "cluster-admin");
    assert_eq!(post(&app, &bindings, all).await.0, StatusCode::FORBIDDEN);
    alone.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_as_another_gets_what_the_other_may_if_allowed_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let alone = alone(dir.path(), ANY).await.expect("a server");
    let admin = client(&alone, |_| {}).await;
    let app = account(&alone, &admin, "app", json!({})).await;
    let as_app = async |client: &Client, path: &str| {
        let request = http::Request::get(path)
            .header("Impersonate-User", "system:serviceaccount:default:app")
            .body(kube::client::Body::empty())
            .expect("a request");
        client.send(request).await.expect("an answer").status()
    };
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(code(&admin, secrets).await, StatusCode::OK);
    assert_eq!(as_app(&admin, secrets).await, StatusCode::FORBIDDEN);
    assert_eq!(as_app(&admin, "/api").await, StatusCode::OK);
    assert_eq!(as_app(&app, "/api").await, StatusCode::FORBIDDEN);
    alone.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_watched_and_outlive_a_restart_with_the_same_certificates() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = alone(dir.path(), ANY).await.expect("a server");
    let maps = Api::<ConfigMap>::namespaced(client(&first, |_| {}).await, "default");
    let list = maps.list(&ListParams::default()).await.expect("a list");
    let from = list.metadata.resource_version.expect("a revision");
    let mut watch = maps
        .watch(&WatchParams::default(), &from)
        .await
        .expect("a watch")
        .boxed();
    maps.create(&PostParams::default(), &map("a"))
        .await
        .expect("created");
    let event = watch.try_next().await.expect("an event").expect("an event");
    assert!(
        matches!(event, WatchEvent::Added(added) if added.metadata.name.as_deref() == Some("a"))
    );
    let before = std::fs::read(dir.path().join("pki/ca.crt")).expect("a CA");
    first.shutdown().await;
    assert!(
        watch.next().await.is_none_or(|end| end.is_err()),
        "the watch ends with the server"
    );
    drop((watch, maps));

    let second = alone(dir.path(), ANY).await.expect("the folder is free");
    assert_eq!(
        std::fs::read(dir.path().join("pki/ca.crt")).expect("a CA"),
        before
    );
    let maps = Api::<ConfigMap>::namespaced(client(&second, |_| {}).await, "default");
    assert_eq!(
        maps.get("a")
            .await
            .expect("it is there")
            .data
            .expect("data")["k"],
        "v"
    );
    maps.delete("a", &DeleteParams::default())
        .await
        .expect("deleted");
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_need_no_controller_that_makes_their_account() {
    let dir = tempfile::tempdir().expect("a folder");
    let alone = alone(dir.path(), ANY).await.expect("a server");
    let pods = Api::<Pod>::namespaced(client(&alone, |_| {}).await, "default");
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .expect("a Pod");
    let created = pods
        .create(&PostParams::default(), &pod)
        .await
        .expect("created");
    assert_eq!(
        created
            .spec
            .and_then(|spec| spec.service_account_name)
            .as_deref(),
        Some("default")
    );
    alone.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind(ANY).expect("a port");
    let address: SocketAddr = taken.local_addr().expect("its address");
    let dir = tempfile::tempdir().expect("a folder");
    let error = alone(dir.path(), &address.to_string())
        .await
        .err()
        .expect("a refusal");
    assert!(matches!(error, OpenError::Listen { .. }));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn certificates_are_kept_until_they_near_their_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let now = jiff::Timestamp::now();
    let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = stead_apiserver::pki::ensure(dir.path(), &hosts, now).expect("made");
    let kept = stead_apiserver::pki::ensure(dir.path(), &hosts, now).expect("kept");
    assert_eq!(
        (
            made.ca.as_str(),
            made.server.key.as_str(),
            made.admin.key.as_str()
        ),
        (
            kept.ca.as_str(),
            kept.server.key.as_str(),
            kept.admin.key.as_str()
        )
    );

    let later = now + jiff::SignedDuration::from_hours(24 * 330);
    let renewed = stead_apiserver::pki::ensure(dir.path(), &hosts, later).expect("renewed");
    assert_eq!(renewed.ca, made.ca, "the CA lives longer");
    assert_ne!(renewed.server.certificate, made.server.certificate);
    assert_ne!(renewed.admin.certificate, made.admin.certificate);
    renewed.server_config().expect("it serves");

    let more = vec!["localhost".to_owned(), "10.0.0.9".to_owned()];
    let moved =
        stead_apiserver::pki::ensure(dir.path(), &more, later).expect("made for other hosts");
    assert_ne!(moved.server.certificate, renewed.server.certificate);
    assert_eq!(moved.admin.certificate, renewed.admin.certificate);
}
