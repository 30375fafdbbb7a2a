//! The API over TLS with 16 clients, beside what the disk itself does under 16 writers.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::figure;

const CLIENTS: usize = 16;
const SPAN: Duration = Duration::from_secs(4);

/// Prints operations a second.
pub(super) async fn run(stead: &Path) -> Result<(), String> {
    let mut daemon = Daemon::start(stead, &["apiserver", "--listen", "127.0.0.1:0"])?;
    daemon.until("kubeconfig")?;
    let clients = Arc::new(clients(&daemon.data_dir().join("kubeconfig")).await?);
    let disk = synced_appends(daemon.data_dir())?;
    prepare(&clients[0]).await?;
    let maps = load(&clients, |number| {
        post("/api/v1/namespaces/bench/configmaps", &config_map(number))
    })
    .await?;
    let pods = load(&clients, |number| {
        post("/api/v1/namespaces/bench/pods", &pod(number))
    })
    .await?;
    let gets = load(&clients, |number| {
        get(&format!(
            "/api/v1/namespaces/bench/configmaps/m-{}",
            number % 1000
        ))
    })
    .await?;
    let patches = load(&clients, |number| patch_status(number % 1000, number)).await?;
    let per_second = |count: f64| format!("{count:.0} /s");
    figure(
        "ConfigMap creates, 16 clients",
        &per_second(maps),
        &format!("{:.2} x synced appends", maps / disk),
    );
    figure(
        "pod creates",
        &per_second(pods),
        &format!("{:.2} x synced appends", pods / disk),
    );
    figure(
        "status patches of pods",
        &per_second(patches),
        &format!("{:.2} x synced appends", patches / disk),
    );
    figure(
        "gets",
        &per_second(gets),
        &format!("{:.1} x ConfigMap creates", gets / maps),
    );
    figure(
        "synced appends of 2 KB, one writer",
        &per_second(disk),
        "the same disk, no Stead",
    );
    list(&clients[0]).await?;
    watch(&clients[0]).await
}

async fn clients(kubeconfig: &Path) -> Result<Vec<kube::Client>, String> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let file = Kubeconfig::read_from(kubeconfig).map_err(|error| error.to_string())?;
        let config =
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let client = config
            .map_err(|error| error.to_string())
            .and_then(|config| kube::Client::try_from(config).map_err(|error| error.to_string()));
        clients.push(client?);
    }
    Ok(clients)
}

async fn prepare(client: &kube::Client) -> Result<(), String> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    send(client, post("/api/v1/namespaces", &namespace)).await?;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    send(
        client,
        post("/api/v1/namespaces/bench/serviceaccounts", &account),
    )
    .await
    .map(|_| ())
}

/// Every client sends one request after another for the whole span. Requests a second.
async fn load(
    clients: &Arc<Vec<kube::Client>>,
    request: impl Fn(usize) -> Request<Vec<u8>> + Send + Sync + 'static,
) -> Result<f64, String> {
    let request = Arc::new(request);
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..clients.len() {
        let (clients, request, next) = (clients.clone(), request.clone(), next.clone());
        tasks.spawn(async move {
            while began.elapsed() < SPAN {
                send(
                    &clients[index],
                    request(next.fetch_add(1, Ordering::Relaxed)),
                )
                .await?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    Ok(next.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

async fn list(client: &kube::Client) -> Result<(), String> {
    let began = Instant::now();
    let request = get("/api/v1/namespaces/bench/pods?limit=4000");
    let text = client
        .request_text(request)
        .await
        .map_err(|error| error.to_string())?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    let size = text.len() as f64 / 1e6;
    figure(
        "a list of 4000 pods",
        &format!("{took:.0} ms"),
        &format!("{size:.1} MB of JSON over TLS"),
    );
    Ok(())
}

/// From a write's answer to the watcher's event, and from its sending.
async fn watch(client: &kube::Client) -> Result<(), String> {
    let events = client
        .request_events::<Value>(get("/api/v1/namespaces/bench/secrets?watch=true"))
        .await;
    let events = events.map_err(|error| error.to_string())?;
    futures::pin_mut!(events);
    let mut times = Vec::new();
    for number in 0..200 {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("s-{number}")}});
        let began = Instant::now();
        let (sent, event) = tokio::join!(
            send(client, post("/api/v1/namespaces/bench/secrets", &secret)),
            events.try_next()
        );
        sent?;
        event.map_err(|error| error.to_string())?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    figure(
        "a write until its event was seen, median",
        &format!("{:.2} ms", times[100].as_secs_f64() * 1e3),
        "one client, durable",
    );
    Ok(())
}

/// What the disk gives one writer that syncs each append.
fn synced_appends(folder: &Path) -> Result<f64, String> {
    let path = folder.join("appends");
    let failed = |error: std::io::Error| format!("could not append to {}: {error}", path.display());
    let mut file = std::fs::File::create(&path).map_err(failed)?;
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < Duration::from_secs(1) {
        file.write_all(&[b'x'; 2048])
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
        count += 1;
    }
    std::fs::remove_file(&path).map_err(failed)?;
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

async fn send(client: &kube::Client, request: Request<Vec<u8>>) -> Result<Value, String> {
    let what = format!("{} {}", request.method(), request.uri());
    client
        .request(request)
        .await
        .map_err(|error| format!("{what}: {error}"))
}

fn get(path: &str) -> Request<Vec<u8>> {
    Request::get(path)
        .body(Vec::new())
        .expect("the bench's own paths are sound")
}

fn post(path: &str, body: &Value) -> Request<Vec<u8>> {
    let request = Request::post(path).header("content-type", "application/json");
    request
        .body(body.to_string().into_bytes())
        .expect("the bench's own paths are sound")
}

fn patch_status(pod: usize, number: usize) -> Request<Vec<u8>> {
    let body = json!({"status": {"message": format!("change {number}")}});
    let request = Request::patch(format!("/api/v1/namespaces/bench/pods/p-{pod}/status"))
        .header("content-type", "application/merge-patch+json");
    request
        .body(body.to_string().into_bytes())
        .expect("the bench's own paths are sound")
}

fn config_map(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m-{number}")}, "data": {"text": "x".repeat(1000)}})
}

fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p-{number}"), "labels": {"app": "bench"}},
        "spec": {"containers": [{"name": "main", "image": "stead.dev/host", "command": ["true"]}]},
    })
}
