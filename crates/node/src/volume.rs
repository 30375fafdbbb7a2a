//! Volumes of pods: folders made ready on the machine, for the runtime to mount.
//!
//! A volume of a pod lives under `<data>/node/pods/<uid>/volumes/<name>` and goes with the pod; a claim's volume lives
//! under `<data>/node/volumes/<handle>` and goes only when its policy says so: see [`claim`].

pub(crate) mod atomic;
pub(crate) mod claim;
mod group;
pub(crate) mod memory;
pub(crate) mod payload;
pub(crate) mod sub_path;
pub(crate) mod usage;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::{Api, Client};

use self::group::Group;
use self::payload::{Payload, Sources};

/// A volume that is ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The folder or file on the machine.
    pub(crate) path: PathBuf,
    /// Nobody may write to it, whatever a mount asks for.
    pub(crate) read_only: bool,
}

/// Why a volume cannot be made yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// Something it needs is not there.
    #[error("{0}")]
    Missing(String),
    /// This node has no volumes of this kind.
    #[error(
        "{kind} volumes are not possible on this node; use emptyDir, configMap, secret, downwardAPI, projected, hostPath or a claim"
    )]
    Unsupported {
        /// The field of the volume.
        kind: &'static str,
    },
    /// The API did not answer.
    #[error("could not read {what}")]
    Api {
        /// Which object.
        what: String,
        /// What the API said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The system said no.
    #[error("could not {what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An I/O error about `what`.
pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> MountError {
    let what = what.into();
    move |source| MountError::Io { what, source }
}

/// Makes volumes.
#[derive(Clone)]
pub(crate) struct Volumes {
    client: Client,
    node: PathBuf,
    memory: Option<u64>,
}

/// The volumes of a pod, made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// Each by its name.
    pub(crate) ready: BTreeMap<String, Ready>,
    /// When a token in them is to be renewed.
    pub(crate) renew_at: Option<Timestamp>,
}

impl Volumes {
    /// `node`: the node's folder below the data folder. `memory`: what the machine has of it, where volumes can be
    /// mounted; without it a volume in memory is a folder like any other.
    pub(crate) fn new(client: Client, node: PathBuf, memory: Option<u64>) -> Self {
        Self {
            client,
            node,
            memory,
        }
    }

    /// The folder of a pod: everything in it goes when the pod goes.
    pub(crate) fn pod_folder(&self, uid: &str) -> PathBuf {
        self.node.join("pods").join(uid)
    }

    /// Makes every volume of a pod, or brings it up to date. The sentence of an error is the kubelet's `FailedMount`.
    pub(crate) async fn make(&self, pod: &core::Pod) -> Result<Made, String> {
        let mut all = Made::default();
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        for volume in volumes.into_iter().flatten() {
            let made = self.one(pod, volume).await;
            let made = made.map_err(|error| {
                format!(
                    "MountVolume.SetUp failed for volume \"{}\" : {error}",
                    volume.name
                )
            })?;
            let (ready, renew_at) = made;
            all.ready.insert(volume.name.clone(), ready);
            all.renew_at = all.renew_at.into_iter().chain(renew_at).min();
        }
        Ok(all)
    }

    async fn one(
        &self,
        pod: &core::Pod,
        volume: &core::Volume,
    ) -> Result<(Ready, Option<Timestamp>), MountError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let own = self.pod_folder(uid).join("volumes").join(&volume.name);
        let group = fs_group(pod);
        if let Some(source) = &volume.empty_dir {
            own_folder(&own)?;
            if let (Some(memory), Some("Memory")) = (self.memory, source.medium.as_deref()) {
                let empty = core::PodSpec::default();
                let bytes = memory::size(source, pod.spec.as_ref().unwrap_or(&empty), memory);
                memory::mount_on(&own, bytes).map_err(io_error(format!(
                    "mount {bytes} bytes of memory at {}",
                    own.display()
                )))?;
            }
            give_group(&own, group)?;
            let ready = Ready {
                path: own,
                read_only: false,
            };
            return Ok((ready, None));
        }
        if let Some(host) = &volume.host_path {
            return Ok((host_path(host)?, None));
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            let mut ready = self.claimed(pod, claim).await?;
            ready.read_only |= claim.read_only.unwrap_or(false);
            if !ready.read_only {
                give_group(&ready.path, group)?;
            }
            return Ok((ready, None));
        }
        let Some((payload, renew_at)) = self.payload(pod, volume).await? else {
            return Err(MountError::Unsupported { kind: kind(volume) });
        };
        own_folder(&own)?;
        atomic::write(&own, &payload, group.map(|group| group.id))
            .map_err(io_error(format!("write {}", own.display())))?;
        let ready = Ready {
            path: own,
            read_only: true,
        };
        Ok((ready, renew_at))
    }

    async fn payload(
        &self,
        pod: &core::Pod,
        volume: &core::Volume,
    ) -> Result<Option<(Payload, Option<Timestamp>)>, MountError> {
        let sources = Sources {
            client: &self.client,
            pod,
        };
        if let Some(source) = &volume.projected {
            return sources.projected(source).await.map(Some);
        }
        let payload = if let Some(source) = &volume.config_map {
            sources
                .config_map(
                    &source.name,
                    source.optional,
                    source.items.as_deref(),
                    source.default_mode,
                )
                .await?
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            sources
                .secret(
                    name,
                    source.optional,
                    source.items.as_deref(),
                    source.default_mode,
                )
                .await?
        } else if let Some(source) = &volume.downward_api {
            sources.downward(
                source.items.as_deref().unwrap_or_default(),
                source.default_mode,
            )?
        } else {
            return Ok(None);
        };
        Ok(Some((payload, None)))
    }

    /// The folder behind a claim, made when it is first needed.
    async fn claimed(
        &self,
        pod: &core::Pod,
        source: &core::PersistentVolumeClaimVolumeSource,
    ) -> Result<Ready, MountError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = &source.claim_name;
        let claims: Api<core::PersistentVolumeClaim> =
            Api::namespaced(self.client.clone(), namespace);
        let claim = claims
            .get_opt(name)
            .await
            .map_err(|source| MountError::Api {
                what: format!("persistentvolumeclaim {namespace}/{name}"),
                source: Box::new(source),
            })?;
        let claim = claim.ok_or_else(|| {
            MountError::Missing(format!("persistentvolumeclaim \"{name}\" not found"))
        })?;
        if claim.metadata.deletion_timestamp.is_some() && !is_held(&claim) {
            return Err(MountError::Missing(format!(
                "persistentvolumeclaim \"{name}\" is being deleted"
            )));
        }
        let bound = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.clone())
            .filter(|volume| !volume.is_empty());
        let volume = bound.ok_or_else(|| {
            MountError::Missing(format!(
                "persistentvolumeclaim \"{name}\" is not bound to a volume yet"
            ))
        })?;
        let volumes: Api<core::PersistentVolume> = Api::all(self.client.clone());
        let volume_object = volumes
            .get_opt(&volume)
            .await
            .map_err(|source| MountError::Api {
                what: format!("persistentvolume {volume}"),
                source: Box::new(source),
            })?;
        let object = volume_object.ok_or_else(|| {
            MountError::Missing(format!("persistentvolume \"{volume}\" not found"))
        })?;
        claim::folder(&self.node, &object)
    }
}

/// A claim that is being deleted is still there for pods that already use it.
fn is_held(claim: &core::PersistentVolumeClaim) -> bool {
    claim
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == "kubernetes.io/pvc-protection")
}

/// `securityContext.fsGroup` of the pod, and `fsGroupChangePolicy`.
fn fs_group(pod: &core::Pod) -> Option<Group> {
    let security = pod.spec.as_ref()?.security_context.as_ref()?;
    Some(Group {
        id: u32::try_from(security.fs_group?).ok()?,
        unless_root_fits: security.fs_group_change_policy.as_deref() == Some("OnRootMismatch"),
    })
}

/// A folder of the pod's own, open to whatever user its containers run as.
fn own_folder(path: &Path) -> Result<(), MountError> {
    let what = || format!("make the folder {}", path.display());
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(io_error(what()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(io_error(what()))
}

/// Only root can give files away; for anybody else the group is the runtime's to honour or to refuse.
fn give_group(root: &Path, group: Option<Group>) -> Result<(), MountError> {
    let Some(group) = group.filter(|_| nix::unistd::geteuid().is_root()) else {
        return Ok(());
    };
    group::give(root, group).map_err(io_error(format!(
        "give {} to group {}",
        root.display(),
        group.id
    )))
}

/// `hostPath`, with the check that its type asks for.
fn host_path(source: &core::HostPathVolumeSource) -> Result<Ready, MountError> {
    let path = PathBuf::from(&source.path);
    let ready = Ready {
        path: path.clone(),
        read_only: false,
    };
    let kind = source.type_.as_deref().unwrap_or_default();
    let found = fs::metadata(&path);
    let wrong = || {
        Err(MountError::Missing(format!(
            "hostPath type check failed: {} is not a {}",
            source.path, kind
        )))
    };
    let fits = |test: fn(&fs::FileType) -> bool| {
        found.as_ref().is_ok_and(|about| test(&about.file_type()))
    };
    let right = match kind {
        "" => true,
        "Directory" => fits(fs::FileType::is_dir),
        "File" => fits(fs::FileType::is_file),
        "Socket" => fits(FileTypeExt::is_socket),
        "CharDevice" => fits(FileTypeExt::is_char_device),
        "BlockDevice" => fits(FileTypeExt::is_block_device),
        "DirectoryOrCreate" if found.is_err() => {
            fs::create_dir_all(&path)
                .map_err(io_error(format!("make the folder {}", source.path)))?;
            true
        }
        "DirectoryOrCreate" => fits(fs::FileType::is_dir),
        "FileOrCreate" if found.is_err() => {
            fs::write(&path, "").map_err(io_error(format!("make the file {}", source.path)))?;
            true
        }
        "FileOrCreate" => fits(fs::FileType::is_file),
        _ => false,
    };
    if right { Ok(ready) } else { wrong() }
}

/// The field that says what kind of volume it is, for messages.
fn kind(volume: &core::Volume) -> &'static str {
    let set = [
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.image.is_some(), "image"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
    ];
    set.into_iter()
        .find_map(|(is_set, name)| is_set.then_some(name))
        .unwrap_or("these")
}
