//! Three containers started one after another by shims alone: what the machine and the tier themselves take.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use stead_node::runtime::{
    ContainerId, ContainerSpec, ContainerState, PodSandbox, PodSettings, Runtime, RuntimeOptions,
    choose, open, probe,
};

/// From the first order until the third container runs, in the best tier of this machine.
pub(super) fn three(stead: &Path) -> Result<Duration, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("could not start a runtime: {error}"))?;
    runtime.block_on(start_three(stead))
}

async fn start_three(stead: &Path) -> Result<Duration, String> {
    let folder =
        tempfile::tempdir().map_err(|error| format!("could not make a folder: {error}"))?;
    let options = RuntimeOptions::new(folder.path(), stead);
    let (tier, _) = choose(&probe(&options), None)?;
    let runtime = open(tier, options).map_err(|error| error.to_string())?;
    let began = Instant::now();
    for number in 0..3 {
        start(&runtime, folder.path(), number).await?;
    }
    let took = began.elapsed();
    for number in 0..3 {
        let id = id(number);
        runtime.kill(&id).await.map_err(|error| error.to_string())?;
        runtime
            .release(&id.pod_uid)
            .await
            .map_err(|error| error.to_string())?;
    }
    runtime.close().map_err(|error| error.to_string())?;
    Ok(took)
}

fn id(number: u32) -> ContainerId {
    ContainerId {
        pod_uid: format!("bench-{number}"),
        container: "main".to_owned(),
        attempt: 0,
    }
}

/// Prepares a pod, starts its one container and waits until it runs.
async fn start(runtime: &Arc<dyn Runtime>, folder: &Path, number: u32) -> Result<(), String> {
    let name = format!("bench-{number}");
    let pod = PodSandbox {
        uid: name.clone(),
        namespace: "default".to_owned(),
        name: name.clone(),
        hostname: name.clone(),
        domain: None,
        host_network: false,
        resolv_conf: None,
        host_aliases: Vec::new(),
        settings: PodSettings::default(),
    };
    let mut changed = runtime.changed();
    runtime
        .prepare(&pod)
        .await
        .map_err(|error| error.to_string())?;
    let spec = spec(&id(number), &name, folder)?;
    runtime
        .start(&spec)
        .await
        .map_err(|error| error.to_string())?;
    loop {
        changed.mark_unchanged();
        let records = runtime.list().map_err(|error| error.to_string())?;
        match records
            .into_iter()
            .find(|record| record.id == spec.id)
            .map(|record| record.state)
        {
            Some(ContainerState::Running { .. }) => return Ok(()),
            Some(ContainerState::Created) | None => {}
            Some(other) => return Err(format!("the container did not start: {other:?}")),
        }
        changed.changed().await.map_err(|error| error.to_string())?;
    }
}

fn spec(id: &ContainerId, name: &str, folder: &Path) -> Result<ContainerSpec, String> {
    let spec = json!({
        "id": id, "pod": format!("default/{name}"), "root": "host", "argv": ["/bin/sleep", "60"], "env": [], "groups": [],
        "mounts": [], "readOnlyRoot": false, "privileged": false, "addCapabilities": [], "dropCapabilities": [],
        "noNewPrivileges": false, "stdin": false, "tty": false, "logPath": folder.join(format!("{name}.log")),
    });
    serde_json::from_value(spec)
        .map_err(|error| format!("the bench's container is malformed: {error}"))
}
