//! The Node object and its Lease: what the machine is, and that it lives.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference, Time};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{StartError, machine};
use crate::pod::Machine;
use crate::worker::Shared;

/// upstream: a lease is renewed every quarter of its time.
const LEASE_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
const LEASES: &str = "kube-node-lease";
/// The Kubernetes release whose kubelet this node behaves as.
const KUBELET_VERSION: &str = "v1.36.2+stead";

/// Registers the node, or brings its object up to date; gives what it has for pods.
pub(super) async fn register(shared: &Shared) -> Result<Machine, StartError> {
    let options = &shared.options;
    let name = &options.name;
    let failed = |source| StartError::Register {
        name: name.clone(),
        source: Box::new(source),
    };
    let api: Api<core::Node> = Api::all(shared.client.clone());
    let labels = labels(name);
    let node = core::Node {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels.clone()),
            ..ObjectMeta::default()
        },
        ..core::Node::default()
    };
    let object = match api.create(&PostParams::default(), &node).await {
        Ok(object) => object,
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => {
            let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
            api.patch(name, &PatchParams::default(), &patch)
                .await
                .map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    let status = status(shared, object.status.as_ref(), Timestamp::now());
    let patch = Patch::Strategic(json!({"status": status}));
    api.patch_status(name, &PatchParams::default(), &patch)
        .await
        .map_err(failed)?;
    let all = object.metadata.labels.unwrap_or_default();
    Ok(Machine {
        pods: u64::from(options.max_pods),
        labels: all,
        ..machine().clone()
    })
}

fn labels(name: &str) -> BTreeMap<String, String> {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        pair("kubernetes.io/hostname", name),
        pair("kubernetes.io/os", "linux"),
        pair("kubernetes.io/arch", architecture()),
        pair("beta.kubernetes.io/os", "linux"),
        pair("beta.kubernetes.io/arch", architecture()),
    ])
}

/// The machine's architecture in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(shared: &Shared, before: Option<&core::NodeStatus>, now: Timestamp) -> serde_json::Value {
    let options = &shared.options;
    let amounts = json!({
        "cpu": (machine().cpu_millis / 1_000).to_string(),
        "memory": format!("{}Ki", machine().memory_bytes / 1_024),
        "ephemeral-storage": disk(&shared.node),
        "pods": options.max_pods.to_string(),
    });
    let conditions = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        ("Ready", "True", "KubeletReady", "the node agent runs pods"),
    ]
    .map(|(kind, status, reason, message)| {
        let known = before.iter().flat_map(|s| s.conditions.iter().flatten());
        let kept = known
            .filter(|c| c.type_ == kind && c.status == status)
            .find_map(|c| c.last_transition_time.clone());
        core::NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: kept.or(Some(Time(now))),
        }
    });
    json!({
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": conditions,
        "images": images(shared),
        "addresses": [
            {"type": "InternalIP", "address": options.host_ip.to_string()},
            {"type": "Hostname", "address": options.name},
        ],
        "nodeInfo": {
            "machineID": file("/etc/machine-id"),
            "systemUUID": file("/etc/machine-id"),
            "bootID": file("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": file("/proc/sys/kernel/osrelease"),
            "osImage": os_image(),
            "containerRuntimeVersion": format!("stead://{}", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
    })
}

fn file(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn os_image() -> String {
    let text = file("/etc/os-release");
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(
        || "Linux".to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

/// The size of the file system of the data folder.
fn disk(folder: &std::path::Path) -> String {
    let about = rustix::fs::statvfs(folder);
    about.map_or_else(
        |_| "0".to_owned(),
        |about| {
            format!(
                "{}Ki",
                about.f_blocks.saturating_mul(about.f_frsize) / 1_024
            )
        },
    )
}

/// Images told of in the status. upstream: `nodeStatusMaxImages`.
const IMAGES_MOST: usize = 50;

/// Tells which images are here. What is not told now is told after the next pull.
pub(crate) async fn report_images(shared: &Shared) {
    let api: Api<core::Node> = Api::all(shared.client.clone());
    let patch = Patch::Merge(json!({"status": {"images": images(shared)}}));
    let name = &shared.options.name;
    if let Err(error) = api
        .patch_status(name, &PatchParams::default(), &patch)
        .await
    {
        tracing::debug!(%error, "could not tell of the node's images");
    }
}

/// The largest first.
fn images(shared: &Shared) -> serde_json::Value {
    let mut images = shared.images.list();
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    let told = images.iter().take(IMAGES_MOST).map(|image| {
        let mut names = vec![image.name.clone()];
        if image.pulled {
            names.insert(0, image.image_id());
        }
        json!({"names": names, "sizeBytes": image.size})
    });
    told.collect()
}

/// Renews the Lease for as long as the node lives.
pub(super) async fn stay_alive(shared: Arc<Shared>) {
    let api: Api<coordination::Lease> = Api::namespaced(shared.client.clone(), LEASES);
    let mut tick = tokio::time::interval(RENEW);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = renew(&shared, &api).await {
            tracing::debug!(%error, "could not renew the node's lease; trying again");
        }
    }
}

async fn renew(shared: &Shared, api: &Api<coordination::Lease>) -> kube::Result<()> {
    let name = &shared.options.name;
    let now = MicroTime(Timestamp::now());
    let patch = Patch::Merge(json!({"spec": {"renewTime": now}}));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => {}
        other => return other.map(|_| ()),
    }
    let nodes: Api<core::Node> = Api::all(shared.client.clone());
    let owner = nodes
        .get_opt(name)
        .await?
        .and_then(|node| node.uid())
        .map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        });
    let lease = coordination::Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(LEASES.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(coordination::LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..coordination::LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(|_| ())
}
