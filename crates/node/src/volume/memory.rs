//! `emptyDir` in memory: a file system of the kernel's, mounted on the volume's folder for as long as the pod lives.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use k8s_openapi::api::core::v1 as core;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::quantity;

/// Mounts the volume of so many bytes, unless it is mounted already.
pub(super) fn mount_on(folder: &Path, bytes: u64) -> io::Result<()> {
    if is_mounted(folder)? {
        return Ok(());
    }
    let data =
        std::ffi::CString::new(format!("mode=777,size={bytes}")).map_err(io::Error::other)?;
    Ok(mount(
        "tmpfs",
        folder,
        "tmpfs",
        MountFlags::NODEV,
        Some(data.as_c_str()),
    )?)
}

/// Gives back the memory of every volume in this folder of volumes. Nobody uses them any more.
pub(crate) fn give_back(volumes: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(volumes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        while is_mounted(&path)? {
            unmount(&path, UnmountFlags::DETACH)?;
        }
    }
    Ok(())
}

/// A folder on another device than the one above it.
fn is_mounted(folder: &Path) -> io::Result<bool> {
    let above = folder.parent().unwrap_or(folder);
    Ok(fs::symlink_metadata(folder)?.dev() != fs::metadata(above)?.dev())
}

/// How large a volume may become: its own limit, what the pod may have, what the machine has; the least of them.
///
/// Upstream: `SizeMemoryBackedVolumes`.
pub(super) fn size(source: &core::EmptyDirVolumeSource, spec: &core::PodSpec, machine: u64) -> u64 {
    let own = source
        .size_limit
        .as_ref()
        .and_then(|limit| quantity::whole(&limit.0))
        .filter(|bytes| *bytes > 0);
    let limit = |container: &core::Container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        quantity::whole(&limits.get("memory")?.0)
    };
    // Of a pod of which one container has no limit, none holds.
    let of_pod: Option<u64> = spec.containers.iter().map(limit).sum();
    [own, of_pod.filter(|bytes| *bytes > 0)]
        .into_iter()
        .flatten()
        .fold(machine, u64::min)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_in_memory_is_as_large_as_the_least_of_what_limits_it() {
        let check = |limit: Option<&str>, memory: [Option<&str>; 2]| {
            let source = json!({"medium": "Memory", "sizeLimit": limit});
            let container = |text: &Option<&str>| match text {
                Some(text) => json!({"name": "c", "resources": {"limits": {"memory": text}}}),
                None => json!({"name": "c"}),
            };
            let spec = json!({"containers": memory.iter().map(container).collect::<Vec<_>>()});
            size(
                &serde_json::from_value(source).expect("a source"),
                &serde_json::from_value(spec).expect("a spec"),
                1_000,
            )
        };
        assert_eq!(check(None, [None, None]), 1_000);
        assert_eq!(check(Some("100"), [None, None]), 100);
        assert_eq!(check(Some("100"), [Some("20"), Some("30")]), 50);
        assert_eq!(check(Some("0"), [Some("20"), None]), 1_000);
    }
}
