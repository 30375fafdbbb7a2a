//! Folders of claims: made when first needed, deleted only when the volume's policy asks for it.
//!
//! Deletion: the PersistentVolume carries a deletion timestamp *and* our finalizer, and its reclaim policy is Delete. The
//! folder is renamed into the trash first, removed there, and only then is the finalizer dropped. Nothing else ever
//! removes a claim's data: of a volume that is to be retained only the object goes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{MountError, Ready, io_error};
use crate::worker::Shared;

/// The driver that our volumes name.
pub(crate) const DRIVER: &str = "volume.stead.dev";
/// Kept on a volume until its data is gone.
pub(crate) const FINALIZER: &str = "stead.dev/volume";

/// The attribute of a volume that lies in a folder of its storage class, and not in the data folder.
const FOLDER: &str = "path";

/// Where volumes of one kind are, and the trash on the same file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    volumes: PathBuf,
    trash: PathBuf,
}

impl Home {
    /// The home of volumes whose class names no folder.
    fn of_node(node: &Path) -> Home {
        Home {
            volumes: node.join("volumes"),
            trash: node.join("trash"),
        }
    }

    /// The home of a volume of ours. `None` when it names a folder that is no absolute path.
    fn of(node: &Path, volume: &core::PersistentVolume) -> Option<Home> {
        let csi = volume.spec.as_ref()?.csi.as_ref()?;
        let attributes = csi.volume_attributes.as_ref();
        let Some(folder) = attributes.and_then(|attributes| attributes.get(FOLDER)) else {
            return Some(Home::of_node(node));
        };
        let folder = PathBuf::from(folder);
        let mut parts = folder.components();
        let plain = folder.is_absolute()
            && parts.all(|part| !matches!(part, std::path::Component::ParentDir));
        plain.then(|| Home {
            trash: folder.join(".trash"),
            volumes: folder,
        })
    }
}

/// The folder behind a PersistentVolume.
pub(crate) fn folder(node: &Path, volume: &core::PersistentVolume) -> Result<Ready, MountError> {
    let empty = core::PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&empty);
    if let Some(handle) = handle(volume) {
        let home = Home::of(node, volume).ok_or_else(|| {
            MountError::Missing(format!(
                "volume {handle} names a folder that is no absolute path"
            ))
        })?;
        // A class's folder is the user's: a disk that is not mounted must not be mistaken for an empty one.
        if home != Home::of_node(node) && !home.volumes.is_dir() {
            return Err(MountError::Missing(format!(
                "the folder {} of volume {handle}'s storage class is not there: make it, or mount its disk",
                home.volumes.display()
            )));
        }
        let path =
            make(&home, handle).map_err(io_error(format!("make the folder of volume {handle}")))?;
        return Ok(Ready {
            path,
            read_only: false,
        });
    }
    if let Some(host) = &spec.host_path {
        return super::host_path(host);
    }
    if let Some(local) = &spec.local {
        return Ok(Ready {
            path: PathBuf::from(&local.path),
            read_only: false,
        });
    }
    Err(MountError::Unsupported {
        kind: "such persistent",
    })
}

/// The handle of a volume of ours, if it can name a folder.
pub(crate) fn handle(volume: &core::PersistentVolume) -> Option<&str> {
    let csi = volume
        .spec
        .as_ref()?
        .csi
        .as_ref()
        .filter(|csi| csi.driver == DRIVER)?;
    let handle = csi.volume_handle.as_str();
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (!handle.is_empty() && !handle.starts_with('.') && handle.bytes().all(fine)).then_some(handle)
}

/// Makes the folder under another name, so that it is there whole or not at all.
fn make(home: &Home, handle: &str) -> io::Result<PathBuf> {
    let volumes = &home.volumes;
    let path = volumes.join(handle);
    if path.is_dir() {
        return Ok(path);
    }
    fs::create_dir_all(volumes)?;
    let fresh = volumes.join(format!(".new-{handle}"));
    match fs::create_dir(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o777))?;
    sync(&fresh)?;
    match fs::rename(&fresh, &path) {
        // Another worker was faster: its folder is as good.
        Err(_) if path.is_dir() => {}
        other => other?,
    }
    sync(volumes)?;
    Ok(path)
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// Whether the API asks for the end of this volume, and of its data.
pub(crate) fn is_condemned(volume: &core::PersistentVolume) -> bool {
    volume.metadata.deletion_timestamp.is_some()
        && volume
            .metadata
            .finalizers
            .iter()
            .flatten()
            .any(|finalizer| finalizer == FINALIZER)
}

/// Moves the folder of a condemned volume into the trash and removes it there.
pub(crate) fn remove(home: &Home, handle: &str, uid: &str) -> io::Result<()> {
    let trash = &home.trash;
    fs::create_dir_all(trash)?;
    let grave = trash.join(format!("{handle}.{uid}"));
    match fs::rename(home.volumes.join(handle), &grave) {
        // It was never made, or is in the trash already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => {
            other?;
            sync(trash)?;
        }
    }
    clear(&grave)
}

fn clear(grave: &Path) -> io::Result<()> {
    match fs::remove_dir_all(grave) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what an earlier daemon had moved into the trash but not removed yet.
pub(crate) fn empty_trash(node: &Path) -> io::Result<()> {
    match fs::read_dir(node.join("trash")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(graves) => graves
            .into_iter()
            .try_for_each(|grave| clear(&grave?.path())),
    }
}

/// The data that goes with a condemned volume: none but where the policy is to delete it.
fn doomed(node: &Path, volume: &core::PersistentVolume) -> Option<(Home, String)> {
    let spec = volume.spec.as_ref()?;
    let deletes = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    let handle = handle(volume).filter(|_| deletes)?;
    Some((Home::of(node, volume)?, handle.to_owned()))
}

/// Deletes a condemned volume once no pod uses it, then lets its object go. Repeated until it is done.
pub(crate) async fn reclaim(
    shared: &Shared,
    api: &Api<core::PersistentVolume>,
    volume: core::PersistentVolume,
) {
    let name = volume.name_any();
    let uid = volume.uid().unwrap_or_default();
    if let Some((home, handle)) = doomed(&shared.node, &volume) {
        let folder = home.volumes.join(&handle);
        while shared.in_use.contains(&folder) {
            tokio::time::sleep(TRY_AGAIN).await;
        }
        loop {
            let (home, handle, uid) = (home.clone(), handle.clone(), uid.clone());
            match tokio::task::spawn_blocking(move || remove(&home, &handle, &uid)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    tracing::warn!(volume = name, %error, "could not delete a volume; trying again")
                }
                Err(error) => {
                    return tracing::warn!(volume = name, %error, "deleting a volume was cut short");
                }
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
        tracing::info!(
            volume = name,
            "deleted a volume, as its reclaim policy asks"
        );
    }
    while let Err(error) = let_go(api, &name, &uid).await {
        tracing::debug!(volume = name, %error, "could not drop the finalizer of a volume; trying again");
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// How long after a failure it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Drops our finalizer from this very volume.
async fn let_go(api: &Api<core::PersistentVolume>, name: &str, uid: &str) -> kube::Result<()> {
    let Some(volume) = api
        .get_opt(name)
        .await?
        .filter(|volume| volume.uid().as_deref() == Some(uid))
    else {
        return Ok(());
    };
    let others: Vec<&String> = volume
        .finalizers()
        .iter()
        .filter(|finalizer| *finalizer != FINALIZER)
        .collect();
    let metadata = json!({"finalizers": others, "resourceVersion": volume.resource_version()});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(handle: &str, deleted: bool, finalizers: &[&str]) -> core::PersistentVolume {
        let mut object = json!({
            "metadata": {"name": "v", "uid": "u", "finalizers": finalizers},
            "spec": {"csi": {"driver": DRIVER, "volumeHandle": handle}},
        });
        if deleted {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(object).expect("a volume")
    }

    #[test]
    fn data_stays_unless_the_volume_is_deleted_with_our_finalizer() {
        assert!(!is_condemned(&volume("h", false, &[FINALIZER])));
        assert!(!is_condemned(&volume("h", true, &["other"])));
        assert!(is_condemned(&volume("h", true, &["other", FINALIZER])));
    }

    #[test]
    fn a_folder_is_made_once_kept_and_removed_through_the_trash() {
        let node = tempfile::tempdir().expect("a folder");
        let at = node.path();
        let first = folder(at, &volume("h", false, &[])).expect("made");
        fs::write(first.path.join("data"), "kept").expect("written");
        let again = folder(at, &volume("h", false, &[])).expect("found");
        assert_eq!(
            fs::read_to_string(again.path.join("data")).expect("still there"),
            "kept"
        );
        let home = Home::of_node(at);
        remove(&home, "h", "u").expect("removed");
        assert!(!first.path.exists() && !at.join("trash/h.u").exists());
        remove(&home, "h", "u").expect("a second time is no error");
        fs::create_dir_all(at.join("trash/left.x/deep")).expect("left by a crash");
        empty_trash(at).expect("emptied");
        assert!(!at.join("trash/left.x").exists());
    }

    #[test]
    fn only_a_policy_of_delete_dooms_the_data() {
        let node = Path::new("/node");
        let mut own = volume("h", true, &[FINALIZER]);
        assert_eq!(doomed(node, &own), None, "no policy");
        for (policy, expected) in [("Retain", false), ("Delete", true)] {
            let spec = own.spec.as_mut().expect("a spec");
            spec.persistent_volume_reclaim_policy = Some(policy.to_owned());
            assert_eq!(doomed(node, &own).is_some(), expected, "{policy}");
        }
    }

    #[test]
    fn a_volume_may_lie_in_the_folder_of_its_class_if_that_is_there() {
        let (node, disk) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let at = |path: &Path| {
            let attributes = json!({"path": path});
            let spec = json!({"csi": {"driver": DRIVER, "volumeHandle": "h", "volumeAttributes": attributes}});
            serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec}))
                .expect("a volume")
        };
        let own = at(disk.path());
        let made = folder(node.path(), &own).expect("made");
        assert_eq!(made.path, disk.path().join("h"));
        let home = Home::of(node.path(), &own).expect("a home");
        remove(&home, "h", "u").expect("removed");
        assert!(!made.path.exists() && !disk.path().join(".trash/h.u").exists());
        let missing = folder(node.path(), &at(&disk.path().join("unmounted")));
        let said = missing.expect_err("refused").to_string();
        assert!(said.contains("mount its disk"), "{said}");
        assert!(folder(node.path(), &at(Path::new("/a/../b"))).is_err());
    }

    #[test]
    fn a_handle_that_is_no_plain_name_is_refused() {
        let node = tempfile::tempdir().expect("a folder");
        for handle in ["", "..", "../x", "a/b", ".new-x"] {
            assert!(
                folder(node.path(), &volume(handle, false, &[])).is_err(),
                "{handle}"
            );
        }
    }
}
