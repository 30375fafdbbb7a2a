//! From a container of a pod to what the runtime needs to start it.

mod image;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;
use stead_image::Image;
use stead_image::users::Account;

use crate::env;
use crate::pod::as_container;
use crate::quantity;
use crate::runtime::{Confinement, ContainerId, ContainerSpec, Mount, Root, Seccomp, Tier};
use crate::volume::{Ready, sub_path};

/// Why a container cannot be started as its pod describes it: the message of a `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError(pub(crate) String);

/// Paths of the node's own that belong to one life of a container.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// Its log.
    pub(crate) log: PathBuf,
    /// Its termination message.
    pub(crate) message: PathBuf,
}

/// Where the logs of a container are: one file a life.
pub(crate) fn log_folder(node: &Path, uid: &str, container: &str) -> PathBuf {
    node.join("logs").join(uid).join(container)
}

impl Files {
    /// The files of one life.
    pub(crate) fn of(node: &Path, id: &ContainerId) -> Self {
        Self {
            log: log_folder(node, &id.pod_uid, &id.container).join(format!("{}.log", id.attempt)),
            message: node
                .join("pods")
                .join(&id.pod_uid)
                .join("containers")
                .join(&id.container)
                .join(format!("{}.message", id.attempt)),
        }
    }
}

/// The container of this name, ephemeral ones included.
pub(crate) fn find(pod: &core::Pod, name: &str) -> Option<core::Container> {
    let spec = pod.spec.as_ref()?;
    let mut all = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    all.find(|c| c.name == name).cloned().or_else(|| {
        spec.ephemeral_containers
            .iter()
            .flatten()
            .find(|c| c.name == name)
            .map(as_container)
    })
}

/// Everything that a spec is made from.
pub(crate) struct Parts<'a> {
    pub(crate) pod: &'a core::Pod,
    pub(crate) container: &'a core::Container,
    /// The image; `None` is the machine's own file system.
    pub(crate) image: Option<&'a Image>,
    pub(crate) id: ContainerId,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) volumes: &'a BTreeMap<String, Ready>,
    pub(crate) files: Files,
    pub(crate) tier: Tier,
    /// Which system calls it may make.
    pub(crate) seccomp: Seccomp,
    /// Variables for mounts, where the tier cannot honour their paths.
    pub(crate) mount_variables: &'a dyn Fn(&[Mount]) -> BTreeMap<String, String>,
}

/// Builds the spec.
pub(crate) fn spec(parts: Parts<'_>) -> Result<ContainerSpec, ConfigError> {
    let Parts {
        pod,
        container,
        image,
        id,
        mut env,
        volumes,
        files,
        tier,
        seccomp,
        mount_variables,
    } = parts;
    let empty = core::PodSpec::default();
    let pod_spec = pod.spec.as_ref().unwrap_or(&empty);
    let security = container.security_context.clone().unwrap_or_default();
    let pod_security = pod_spec.security_context.clone().unwrap_or_default();
    let user = security.run_as_user.or(pod_security.run_as_user);
    let account = image.map(|image| image::account(image, user)).transpose()?;
    check_non_root(
        &parts_of_name(pod, container),
        security.run_as_non_root.or(pod_security.run_as_non_root),
        user,
        image.zip(account.as_ref()),
        tier,
    )?;
    let mut mounts = mounts(container, volumes, &env)?;
    let target = container
        .termination_message_path
        .clone()
        .unwrap_or_else(|| "/dev/termination-log".to_owned());
    mounts.push(Mount {
        source: files.message.clone(),
        target: PathBuf::from(target),
        read_only: false,
        within: None,
    });
    env.extend(mount_variables(&mounts));
    // Variables of mounts may be used in the command too; the image's may not.
    let argv = match image {
        Some(image) => image::argv(container, &image.config, &env),
        None => env::argv(container, &env),
    };
    if let Some((image, account)) = image.zip(account.as_ref()) {
        env = image::env(&image.config, &env, account);
    }
    let confinement = Confinement {
        seccomp,
        image_groups: pod_security.supplemental_groups_policy.as_deref() != Some("Strict"),
        target: target_of(pod_spec, &container.name),
    };
    let capabilities = security.capabilities.unwrap_or_default();
    let limits = container.resources.clone().unwrap_or_default();
    let amount = |list: &Option<BTreeMap<String, _>>, name: &str| -> Option<String> {
        let quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity =
            list.as_ref()?.get(name)?;
        Some(quantity.0.clone())
    };
    let number = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok());
    Ok(ContainerSpec {
        pod: format!(
            "{}/{}",
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.name.as_deref().unwrap_or_default()
        ),
        id,
        root: match image {
            Some(image) => Root::Layers(image.layers.clone()),
            None => Root::Host,
        },
        argv,
        cwd: working_dir(container, image),
        user: account
            .as_ref()
            .map_or(number(user), |account| Some(account.uid)),
        group: number(security.run_as_group.or(pod_security.run_as_group))
            .or(account.as_ref().map(|account| account.gid)),
        groups: groups(&pod_security),
        read_only_root: security.read_only_root_filesystem.unwrap_or(false),
        privileged: security.privileged.unwrap_or(false),
        add_capabilities: names(capabilities.add),
        drop_capabilities: names(capabilities.drop),
        no_new_privileges: security.allow_privilege_escalation == Some(false),
        confinement,
        memory_limit: amount(&limits.limits, "memory")
            .and_then(|text| quantity::whole(&text))
            .filter(|bytes| *bytes > 0),
        cpu_limit_millis: amount(&limits.limits, "cpu")
            .and_then(|text| quantity::millis(&text))
            .filter(|m| *m > 0),
        cpu_request_millis: amount(&limits.requests, "cpu")
            .and_then(|text| quantity::millis(&text))
            .filter(|m| *m > 0),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        log_path: files.log,
        termination_message: Some(files.message),
        env,
        mounts,
    })
}

/// `targetContainerName` of an ephemeral container.
fn target_of(spec: &core::PodSpec, name: &str) -> Option<String> {
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    let own = ephemeral.find(|container| container.name == name)?;
    own.target_container_name
        .clone()
        .filter(|target| !target.is_empty())
}

/// The container's seccomp profile, or else the pod's, read where it is a file of the node's folder of profiles.
/// upstream: a container that asks for none is not confined.
pub(crate) fn seccomp(
    pod: &core::Pod,
    container: &core::Container,
    profiles: &Path,
) -> Result<Seccomp, String> {
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref()?.seccomp_profile.as_ref());
    let own = container
        .security_context
        .as_ref()
        .and_then(|security| security.seccomp_profile.as_ref());
    let Some(wanted) = own.or(of_pod) else {
        return Ok(Seccomp::Unconfined);
    };
    match wanted.type_.as_str() {
        "Unconfined" => Ok(Seccomp::Unconfined),
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Localhost" => localhost(
            wanted.localhost_profile.as_deref().unwrap_or_default(),
            profiles,
        ),
        other => Err(format!(
            "seccomp profile type {other:?} is none; use RuntimeDefault, Localhost or Unconfined"
        )),
    }
}

fn localhost(name: &str, profiles: &Path) -> Result<Seccomp, String> {
    let stays = Path::new(name)
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if name.is_empty() || !stays {
        return Err(format!(
            "localhostProfile {name:?} is no path below {}",
            profiles.display()
        ));
    }
    let file = profiles.join(name);
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("cannot load seccomp profile {}: {error}", file.display()))?;
    let profile = Seccomp::Profile(text);
    match crate::seccomp::filter(&profile, &std::collections::BTreeSet::new()) {
        Ok(_) => Ok(profile),
        Err(error) => Err(format!(
            "cannot use seccomp profile {}: {error}",
            file.display()
        )),
    }
}

fn names(list: Option<Vec<String>>) -> Vec<String> {
    let bare = |name: String| {
        name.strip_prefix("CAP_")
            .map_or(name.clone(), str::to_owned)
    };
    list.into_iter().flatten().map(bare).collect()
}

/// The pod's working folder, else the image's.
fn working_dir(container: &core::Container, image: Option<&Image>) -> Option<PathBuf> {
    let of_image = image.map(|image| image.config.working_dir.as_str());
    let of_pod = container.working_dir.as_deref();
    of_pod
        .filter(|dir| !dir.is_empty())
        .or(of_image.filter(|dir| !dir.is_empty()))
        .map(PathBuf::from)
}

/// The pod's further groups.
fn groups(security: &core::PodSecurityContext) -> Vec<u32> {
    let of_pod = security.supplemental_groups.iter().flatten().copied();
    of_pod
        .chain(security.fs_group)
        .filter_map(|group| u32::try_from(group).ok())
        .collect()
}

/// `(pod: "...", container: ...)`, for messages.
fn parts_of_name(pod: &core::Pod, container: &core::Container) -> String {
    format!(
        "(pod: \"{}_{}({})\", container: {})",
        pod.metadata.name.as_deref().unwrap_or_default(),
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.uid.as_deref().unwrap_or_default(),
        container.name
    )
}

/// upstream: `verifyRunAsNonRoot`; the host's file system as an image runs as root unless told otherwise.
fn check_non_root(
    about: &str,
    non_root: Option<bool>,
    user: Option<i64>,
    image: Option<(&Image, &Account)>,
    tier: Tier,
) -> Result<(), ConfigError> {
    // Below the containers tier a container is whoever runs Stead.
    let host_is_root = tier == Tier::Containers || nix::unistd::geteuid().is_root();
    if !non_root.unwrap_or(false) {
        return Ok(());
    }
    let verdict = match (user, image) {
        (Some(0), _) => Err("container's runAsUser breaks non-root policy".to_owned()),
        (Some(_), _) => Ok(()),
        (None, Some((image, account))) => image::check_non_root(&image.config, account),
        (None, None) if host_is_root => {
            Err("container has runAsNonRoot and image will run as root".to_owned())
        }
        (None, None) => Ok(()),
    };
    verdict.map_err(|why| ConfigError(format!("{why} {about}")))
}

fn mounts(
    container: &core::Container,
    volumes: &BTreeMap<String, Ready>,
    env: &[(String, String)],
) -> Result<Vec<Mount>, ConfigError> {
    if let Some(device) = container.volume_devices.iter().flatten().next() {
        return Err(ConfigError(format!(
            "volume \"{}\" is asked for as a block device; only file systems are possible",
            device.name
        )));
    }
    container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| one_mount(container, mount, volumes, env))
        .collect()
}

fn one_mount(
    container: &core::Container,
    mount: &core::VolumeMount,
    volumes: &BTreeMap<String, Ready>,
    env: &[(String, String)],
) -> Result<Mount, ConfigError> {
    let ready = volumes.get(&mount.name).ok_or_else(|| {
        ConfigError(format!(
            "container \"{}\" mounts volume \"{}\", which the pod does not have",
            container.name, mount.name
        ))
    })?;
    if let Some(wanted) = mount
        .mount_propagation
        .as_deref()
        .filter(|wanted| *wanted != "None")
    {
        return Err(ConfigError(format!(
            "mount propagation {wanted} of volume \"{}\" is not possible; use None",
            mount.name
        )));
    }
    let expression = mount
        .sub_path_expr
        .as_deref()
        .map(|text| env::expand_from(text, env));
    let below = expression
        .or_else(|| mount.sub_path.clone())
        .filter(|below| !below.is_empty());
    let within = below.is_some().then(|| ready.path.clone());
    let source = match below {
        None => ready.path.clone(),
        Some(below) => sub_path::resolve(&ready.path, &below).map_err(|_| {
            // upstream: the same sentence whatever the reason, for the reason may tell of the machine's files.
            ConfigError(format!(
                "failed to prepare subPath for volumeMount \"{}\" of container \"{}\"",
                mount.name, container.name
            ))
        })?,
    };
    Ok(Mount {
        source,
        target: PathBuf::from(&mount.mount_path),
        read_only: ready.read_only || mount.read_only.unwrap_or(false),
        within,
    })
}
