//! What a pod takes of the machine's disk against what it may: why it is evicted, in upstream's words.
//!
//! Upstream: `eviction_manager.go` (`localStorageEviction`).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;

use crate::quantity;

/// Where the disk of a pod is measured.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Its folder of volumes.
    pub(crate) volumes: PathBuf,
    /// The records of its containers, with their private layers.
    pub(crate) containers: PathBuf,
    /// Their logs.
    pub(crate) logs: PathBuf,
}

/// Whether anything of this pod is limited on disk.
pub(crate) fn is_limited(spec: &core::PodSpec) -> bool {
    limited_volumes(spec).next().is_some() || all_containers(spec).any(|c| limit_of(c).is_some())
}

/// Why the pod takes too much, if it does. Reads every folder of it: blocks for as long as that takes.
pub(crate) fn excess(spec: &core::PodSpec, places: &Places) -> Option<String> {
    let volume = |name: &str| size(&places.volumes.join(name));
    for (name, limit, text) in limited_volumes(spec) {
        if volume(name) > limit {
            return Some(format!(
                "Usage of EmptyDir volume \"{name}\" exceeds the limit \"{text}\". "
            ));
        }
    }
    if !all_containers(spec).any(|container| limit_of(container).is_some()) {
        return None;
    }
    let used: BTreeMap<&str, u64> = all_containers(spec)
        .map(|container| {
            let name = container.name.as_str();
            (name, of_container(places, name))
        })
        .collect();
    let limits: u64 = spec
        .containers
        .iter()
        .filter_map(limit_of)
        .map(|(bytes, _)| bytes)
        .sum();
    let on_disk = empty_dirs(spec).filter(|(_, source)| source.medium.as_deref() != Some("Memory"));
    let all: u64 = used.values().sum::<u64>() + on_disk.map(|(name, _)| volume(name)).sum::<u64>();
    if limits > 0 && all > limits {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limits}. "
        ));
    }
    all_containers(spec).find_map(|container| {
        let (limit, text) = limit_of(container)?;
        let over = used
            .get(container.name.as_str())
            .is_some_and(|used| *used > limit);
        over.then(|| {
            format!(
                "Container {} exceeded its local ephemeral storage limit \"{text}\". ",
                container.name
            )
        })
    })
}

fn all_containers(spec: &core::PodSpec) -> impl Iterator<Item = &core::Container> {
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
}

fn empty_dirs(spec: &core::PodSpec) -> impl Iterator<Item = (&str, &core::EmptyDirVolumeSource)> {
    let volumes = spec.volumes.iter().flatten();
    volumes.filter_map(|volume| Some((volume.name.as_str(), volume.empty_dir.as_ref()?)))
}

/// Volumes on disk with a limit: name, bytes, and the limit as it was written.
fn limited_volumes(spec: &core::PodSpec) -> impl Iterator<Item = (&str, u64, &str)> {
    empty_dirs(spec).filter_map(|(name, source)| {
        let limit = source.size_limit.as_ref()?;
        let bytes = quantity::whole(&limit.0).filter(|bytes| *bytes > 0)?;
        Some((name, bytes, limit.0.as_str()))
    })
}

fn limit_of(container: &core::Container) -> Option<(u64, &str)> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    let limit = limits.get("ephemeral-storage")?;
    Some((quantity::whole(&limit.0)?, limit.0.as_str()))
}

/// The layers of all kept lives of a container, and its logs.
fn of_container(places: &Places, name: &str) -> u64 {
    let lives = fs::read_dir(&places.containers)
        .into_iter()
        .flatten()
        .flatten();
    let own = lives.filter(|entry| {
        let folder = entry.file_name();
        folder
            .to_str()
            .and_then(|text| text.rsplit_once('.'))
            .is_some_and(|(own, _)| own == name)
    });
    own.map(|entry| size(&entry.path().join("layer")))
        .sum::<u64>()
        + size(&places.logs.join(name))
}

/// What a folder takes of the disk. Links are not followed; what vanishes meanwhile takes nothing.
fn size(folder: &Path) -> u64 {
    let mut sum = 0;
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(about) = fs::symlink_metadata(&path) else {
            continue;
        };
        sum += about.blocks() * 512;
        if about.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod with 100 KB in volume `v`, 50 KB in the layer and 20 KB in the log of container `c`.
    fn check(volume: Value, limit: Option<&str>) -> Option<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let places = Places {
            volumes: at("volumes"),
            containers: at("containers"),
            logs: at("logs"),
        };
        for (file, size) in [
            ("volumes/v/file", 100_000),
            ("containers/c.3/layer/upper/file", 50_000),
            ("logs/c/3.log", 20_000),
        ] {
            fs::create_dir_all(at(file).parent().expect("a parent")).expect("folders");
            fs::write(at(file), vec![b'x'; size]).expect("a file");
        }
        let limits = limit.map_or(
            json!({}),
            |limit| json!({"limits": {"ephemeral-storage": limit}}),
        );
        let spec = json!({"volumes": [{"name": "v", "emptyDir": volume}], "containers": [{"name": "c", "resources": limits}]});
        excess(&serde_json::from_value(spec).expect("a spec"), &places)
    }

    #[test]
    fn a_pod_that_takes_too_much_is_told_in_upstreams_words() {
        assert_eq!(check(json!({}), None), None);
        assert_eq!(check(json!({"sizeLimit": "1Mi"}), Some("1Mi")), None);
        assert_eq!(
            check(json!({"sizeLimit": "50k"}), None).expect("too much"),
            "Usage of EmptyDir volume \"v\" exceeds the limit \"50k\". "
        );
        assert_eq!(
            check(json!({}), Some("150k")).expect("too much"),
            "Pod ephemeral local storage usage exceeds the total limit of containers 150000. "
        );
        assert_eq!(
            check(json!({"medium": "Memory"}), Some("40k")).expect("too much"),
            "Pod ephemeral local storage usage exceeds the total limit of containers 40000. "
        );
    }
}
