//! Steps of a decision, carried out: one arm a step. Behaviour found here is a bug in placement.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use stead_image::Image;
use stead_image::store::Hold;

use super::{Progress, Worker, hook, patch, unenforced};
use crate::container::{self, Files, Parts};
use crate::env;
use crate::pod::{self, ContainerKind, Desired, HookState, Note, Place, Step, list};
use crate::runtime::{ContainerId, Mount, PodSandbox, PodSettings, RuntimeError};
use crate::volume::{Made, memory};

/// Why a step failed. The round ends; the next one tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// The API did not take it.
    #[error("could not {what}: {source}")]
    Api {
        what: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    /// The runtime could not do it.
    #[error("could not {what}: {source}")]
    Runtime {
        what: &'static str,
        #[source]
        source: RuntimeError,
    },
    /// A volume cannot be made yet.
    #[error("{0}")]
    Volumes(String),
}

/// Why a container did not start: status reason and message.
struct StartFailure {
    reason: &'static str,
    message: String,
}

impl StartFailure {
    fn config(message: impl Into<String>) -> Self {
        Self {
            reason: "CreateContainerConfigError",
            message: message.into(),
        }
    }
}

impl Worker {
    pub(super) async fn execute(&mut self, step: Step) -> Result<(), StepError> {
        match step {
            Step::ReportStatus(status) => self.report(*status).await,
            Step::Record(note) => {
                self.shared
                    .recorder
                    .record(&self.about, note, Timestamp::now());
                Ok(())
            }
            Step::MakeVolumes => self.make_volumes().await,
            Step::PreparePod => self.prepare().await,
            Step::PullImage { container, attempt } => {
                self.pull(&container, attempt);
                Ok(())
            }
            Step::StartContainer { container, attempt } => {
                self.start(&container, attempt).await;
                Ok(())
            }
            Step::RunHook { id, deadline } => {
                self.hooks.insert(id.clone(), HookState::Running);
                hook::spawn(self, id, deadline);
                Ok(())
            }
            Step::StopContainer {
                container,
                attempt,
                signal,
                deadline: _,
            } => {
                let id = self.id(&container, attempt);
                ignore_ended(
                    "signal a container",
                    self.shared.runtime.signal(&id, signal).await,
                )
            }
            Step::KillContainer { container, attempt } => {
                self.kill(self.id(&container, attempt));
                Ok(())
            }
            Step::ForgetContainer { container, attempt } => self.forget(&container, attempt).await,
            Step::ReleasePod => self.release().await,
            Step::RemovePodObject => self.remove_object().await,
            // Ends the worker: see `round`.
            Step::Finish => Ok(()),
        }
    }

    fn id(&self, container: &str, attempt: u32) -> ContainerId {
        ContainerId {
            pod_uid: self.about.uid.clone(),
            container: container.to_owned(),
            attempt,
        }
    }

    fn pods(&self) -> Api<core::Pod> {
        Api::namespaced(self.shared.client.clone(), &self.about.namespace)
    }

    async fn report(&mut self, status: core::PodStatus) -> Result<(), StepError> {
        let body = patch::of(&self.about.uid, &self.reported, &status);
        let params = PatchParams::default();
        let answer = self
            .pods()
            .patch_status(&self.about.name, &params, &Patch::Strategic(body))
            .await;
        match answer {
            Ok(_) => {}
            // The pod, or this one of its name, is gone; the watch will tell.
            Err(kube::Error::Api(refusal)) if refusal.code == 404 => {}
            Err(source) => {
                return Err(StepError::Api {
                    what: "report the status",
                    source: Box::new(source),
                });
            }
        }
        self.reported = status;
        Ok(())
    }

    async fn make_volumes(&mut self) -> Result<(), StepError> {
        let pod = self.input.borrow().pod.clone();
        match self.shared.volumes.make(&pod).await {
            Ok(Made {
                ready: volumes,
                renew_at,
            }) => {
                let claims = self.shared.node.join("volumes");
                let folders = volumes
                    .values()
                    .map(|ready| ready.path.clone())
                    .filter(|path| path.starts_with(&claims));
                self.shared.in_use.set(&self.about.uid, folders.collect());
                self.volumes = Some(volumes);
                self.stale = false;
                self.renew_at = renew_at;
                self.memory.trouble = None;
                Ok(())
            }
            Err(message) => {
                self.trouble("FailedMount", message.clone());
                Err(StepError::Volumes(message))
            }
        }
    }

    fn trouble(&mut self, reason: &'static str, message: String) {
        let note = Note {
            warning: true,
            reason,
            message: message.clone(),
            about: None,
        };
        self.shared
            .recorder
            .record(&self.about, note, Timestamp::now());
        self.memory.note_trouble(reason, message, Timestamp::now());
    }

    /// Takes up the place that the runtime already has for the pod.
    pub(super) async fn take_up_place(&mut self, pod: &core::Pod) {
        let prepared = match self.sandbox(pod) {
            Ok(sandbox) => self.shared.runtime.prepare(&sandbox).await,
            Err(too_long) => Err(too_long),
        };
        match prepared {
            Ok(place) => self.place = Place::Prepared(place.ip),
            Err(error) => {
                tracing::warn!(pod = %self.title(), %error, "could not take up the place of a pod")
            }
        }
    }

    async fn prepare(&mut self) -> Result<(), StepError> {
        let pod = self.input.borrow().pod.clone();
        if let Err(error) = self.keep_object(&pod) {
            tracing::warn!(pod = %self.title(), %error, "could not keep a copy of the pod; its hooks are lost should its object vanish");
        }
        let prepared = match self.sandbox(&pod) {
            Ok(sandbox) => self.shared.runtime.prepare(&sandbox).await,
            Err(too_long) => Err(too_long),
        };
        match prepared {
            Ok(place) => {
                self.place = Place::Prepared(place.ip);
                self.memory.trouble = None;
                self.tell_what_is_not_enforced(&pod);
                Ok(())
            }
            Err(source) => {
                let message = format!("Failed to create pod sandbox: {}", chain(&source));
                self.trouble("FailedCreatePodSandBox", message);
                Err(StepError::Runtime {
                    what: "prepare the pod",
                    source,
                })
            }
        }
    }

    /// A copy of the object, for a pod that is found orphaned after a restart: its hooks, signals and grace.
    fn keep_object(&self, pod: &core::Pod) -> io::Result<()> {
        let folder = self.shared.volumes.pod_folder(&self.about.uid);
        fs::create_dir_all(&folder)?;
        let text = serde_json::to_vec(pod).map_err(io::Error::other)?;
        fs::write(folder.join(".pod.json"), text)?;
        fs::rename(folder.join(".pod.json"), folder.join("pod.json"))
    }

    fn sandbox(&self, pod: &core::Pod) -> Result<PodSandbox, RuntimeError> {
        let empty = core::PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let domain = spec
            .subdomain
            .as_deref()
            .filter(|name| !name.is_empty())
            .map(|subdomain| {
                format!(
                    "{subdomain}.{}.svc.{}",
                    self.about.namespace, self.shared.options.cluster_domain
                )
            });
        let asked = spec.hostname.as_deref().filter(|name| !name.is_empty());
        let hostname = pod::hostname(asked.unwrap_or(&self.about.name));
        let full = match &domain {
            Some(domain) if spec.set_hostname_as_fqdn == Some(true) => Some(
                pod::full_hostname(&hostname, domain).map_err(|why| RuntimeError::System {
                    what: "construct the full host name of the pod".to_owned(),
                    source: io::Error::other(why),
                })?,
            ),
            Some(_) | None => None,
        };
        let aliases = spec.host_aliases.iter().flatten();
        Ok(PodSandbox {
            uid: self.about.uid.clone(),
            namespace: self.about.namespace.clone(),
            name: self.about.name.clone(),
            hostname,
            domain,
            host_network: spec.host_network.unwrap_or(false),
            resolv_conf: self.resolv_conf(spec),
            host_aliases: aliases
                .map(|alias| {
                    (
                        alias.ip.clone(),
                        alias.hostnames.clone().unwrap_or_default(),
                    )
                })
                .collect(),
            settings: PodSettings {
                kernel_hostname: full,
                ..self.settings(spec)
            },
        })
    }

    fn settings(&self, spec: &core::PodSpec) -> PodSettings {
        let sysctls = spec
            .security_context
            .iter()
            .flat_map(|security| security.sysctls.iter().flatten());
        PodSettings {
            host_pid: spec.host_pid.unwrap_or(false),
            host_ipc: spec.host_ipc.unwrap_or(false),
            shared_pid: spec.share_process_namespace.unwrap_or(false),
            sysctls: sysctls
                .map(|sysctl| (pod::sysctl_name(&sysctl.name), sysctl.value.clone()))
                .collect(),
            pids_limit: self.shared.options.pids_limit,
            kernel_hostname: None,
        }
    }

    fn resolv_conf(&self, spec: &core::PodSpec) -> Option<String> {
        let resolver = &self.shared.resolver;
        let cluster = resolver.cluster.as_ref()?;
        let spec = serde_json::to_value(spec).ok()?;
        Some(crate::dns::resolv::for_pod(
            &spec,
            &self.about.namespace,
            cluster,
            &resolver.machine,
        ))
    }

    /// Starts a life, or remembers why it could not be.
    async fn start(&mut self, name: &str, attempt: u32) {
        let pod = self.input.borrow().pod.clone();
        let about = Desired::parse(&pod)
            .container(name)
            .map_or(ContainerKind::Regular, |c| c.kind);
        let about = Some((list(about), name.to_owned()));
        let Some(container) = container::find(&pod, name) else {
            return;
        };
        let image = container.image.clone().unwrap_or_default();
        let life = self.lives.entry((name.to_owned(), attempt)).or_default();
        life.image = Some(image.clone());
        let message = self.pulls.sentence(name, attempt).unwrap_or_else(|| {
            format!(
                "Container image \"{image}\" already present on machine and can be accessed by the pod"
            )
        });
        let note = Note {
            warning: false,
            reason: "Pulled",
            message,
            about: about.clone(),
        };
        self.shared
            .recorder
            .record(&self.about, note, Timestamp::now());
        let started = self.try_start(&pod, &container, attempt).await;
        if started.is_ok() {
            self.ordered.insert((name.to_owned(), attempt));
        }
        if let Err(StartFailure { reason, message }) = started {
            self.start_failed = true;
            let note = Note {
                warning: true,
                reason: "Failed",
                message: format!("Error: {message}"),
                about,
            };
            self.shared
                .recorder
                .record(&self.about, note, Timestamp::now());
            self.memory
                .note_failure(name, reason, message, Timestamp::now());
        }
    }

    async fn try_start(
        &mut self,
        pod: &core::Pod,
        container: &core::Container,
        attempt: u32,
    ) -> Result<(), StartFailure> {
        let id = self.id(&container.name, attempt);
        let image = self.image(container, attempt)?;
        let sources = self.sources(pod, container).await?;
        let env = env::resolve(pod, container, &sources).map_err(StartFailure::config)?;
        let files = Files::of(&self.shared.node, &id);
        make_files(&files).map_err(|error| {
            StartFailure::config(format!(
                "could not make the files of container {}: {error}",
                container.name
            ))
        })?;
        let profiles = self.shared.node.join("seccomp");
        let seccomp =
            container::seccomp(pod, container, &profiles).map_err(|message| StartFailure {
                reason: "CreateContainerError",
                message,
            })?;
        let runtime = &self.shared.runtime;
        let empty = BTreeMap::new();
        let spec = container::spec(Parts {
            pod,
            container,
            image: image.as_ref().map(|(image, _)| image),
            id,
            env,
            volumes: self.volumes.as_ref().unwrap_or(&empty),
            files,
            tier: runtime.tier(),
            seccomp,
            mount_variables: &|mounts: &[Mount]| runtime.mount_variables(mounts),
        });
        let spec = spec.map_err(|error| StartFailure::config(error.0))?;
        runtime
            .check(&spec)
            .map_err(|error| StartFailure::config(chain(&error)))?;
        let started = runtime.start(&spec).await;
        started.map_err(|error| StartFailure {
            reason: "CreateContainerError",
            message: chain(&error),
        })
    }

    /// The image of a container, held until its record says that it is in use; `None` for the machine's own files.
    fn image(
        &mut self,
        container: &core::Container,
        attempt: u32,
    ) -> Result<Option<(Image, Hold)>, StartFailure> {
        let name = container.image.as_deref().unwrap_or_default();
        if pod::is_host(name) {
            return Ok(None);
        }
        let taken = self.shared.images.take(name);
        let (image, hold) = taken.map_err(StartFailure::config)?;
        let key = (container.name.clone(), attempt);
        self.lives.entry(key).or_default().image_id = Some(image.image_id());
        Ok(Some((image, hold)))
    }

    /// Reads what the environment refers to, as it is now.
    async fn sources(
        &self,
        pod: &core::Pod,
        container: &core::Container,
    ) -> Result<env::Sources, StartFailure> {
        let (maps, secrets) = env::references(container);
        let client = &self.shared.client;
        let unread = |what: String| {
            move |error: kube::Error| {
                StartFailure::config(format!("could not read {what}: {error}"))
            }
        };
        let mut sources = env::Sources {
            pod_ip: self.pod_ip(pod),
            ..env::Sources::default()
        };
        let api: Api<core::ConfigMap> = Api::namespaced(client.clone(), &self.about.namespace);
        for name in maps {
            let found = api
                .get_opt(&name)
                .await
                .map_err(unread(format!("configmap {name}")))?;
            let values = found.map(|map| {
                map.data
                    .into_iter()
                    .flatten()
                    .map(|(k, v)| (k, v.into_bytes()))
                    .collect()
            });
            sources.config_maps.insert(name, values);
        }
        let api: Api<core::Secret> = Api::namespaced(client.clone(), &self.about.namespace);
        for name in secrets {
            let found = api
                .get_opt(&name)
                .await
                .map_err(unread(format!("secret {name}")))?;
            let values = found.map(|secret| {
                secret
                    .data
                    .into_iter()
                    .flatten()
                    .map(|(k, v)| (k, v.0))
                    .collect()
            });
            sources.secrets.insert(name, values);
        }
        let links = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.enable_service_links)
            .unwrap_or(true);
        let api: Api<core::Service> = Api::namespaced(client.clone(), &self.about.namespace);
        let mut services = api
            .list(&ListParams::default())
            .await
            .map_err(unread("services".to_owned()))?
            .items;
        if self.about.namespace != "default" {
            let api: Api<core::Service> = Api::namespaced(client.clone(), "default");
            services.extend(
                api.get_opt("kubernetes")
                    .await
                    .map_err(unread("service kubernetes".to_owned()))?,
            );
        }
        sources.services = env::services::variables(&services, &self.about.namespace, links);
        Ok(sources)
    }

    pub(super) fn pod_ip(&self, pod: &core::Pod) -> String {
        let host_network = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.host_network)
            .unwrap_or(false);
        match self.place {
            _ if host_network => self.shared.options.host_ip.to_string(),
            Place::Prepared(ip) => ip.to_string(),
            Place::None | Place::Released => String::new(),
        }
    }

    /// Kills in the background: what cannot be killed at once does not hold up the rest of the pod.
    fn kill(&self, id: ContainerId) {
        let runtime = self.shared.runtime.clone();
        tokio::spawn(async move {
            if let Err(error) = runtime.kill(&id).await {
                tracing::warn!(container = ?id, %error, "could not kill a container");
            }
        });
    }

    async fn forget(&mut self, container: &str, attempt: u32) -> Result<(), StepError> {
        let id = self.id(container, attempt);
        ignore_ended("forget a container", self.shared.runtime.forget(&id).await)?;
        let files = Files::of(&self.shared.node, &id);
        // A log that stays behind goes with the pod's folder.
        let _ = fs::remove_file(&files.log);
        let _ = fs::remove_file(&files.message);
        self.lives.remove(&(container.to_owned(), attempt));
        self.ordered.remove(&(container.to_owned(), attempt));
        Ok(())
    }

    async fn release(&mut self) -> Result<(), StepError> {
        match self.shared.runtime.release(&self.about.uid).await {
            Ok(()) => {
                self.place = Place::Released;
                self.volumes = None;
                self.give_back_memory();
                self.ordered.clear();
                self.tell(Progress {
                    released: true,
                    finished: false,
                });
                Ok(())
            }
            Err(source) => {
                for (container, attempt) in self.lives.keys() {
                    self.kill(self.id(container, *attempt));
                }
                Err(StepError::Runtime {
                    what: "release the pod",
                    source,
                })
            }
        }
    }

    /// No process of the pod is left: what its volumes hold in memory goes.
    pub(super) fn give_back_memory(&self) {
        let volumes = self
            .shared
            .volumes
            .pod_folder(&self.about.uid)
            .join("volumes");
        if let Err(error) = memory::give_back(&volumes) {
            tracing::warn!(pod = %self.title(), %error, "could not give back the memory of a pod's volumes");
        }
    }

    /// What this tier leaves undone of a pod, told once: the pod runs all the same.
    fn tell_what_is_not_enforced(&self, pod: &core::Pod) {
        let tier = self.shared.runtime.tier();
        for message in pod.spec.iter().flat_map(|spec| unenforced::of(tier, spec)) {
            let note = Note {
                warning: true,
                reason: unenforced::REASON,
                message,
                about: None,
            };
            self.shared
                .recorder
                .record(&self.about, note, Timestamp::now());
        }
    }

    async fn remove_object(&mut self) -> Result<(), StepError> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.about.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.pods().delete(&self.about.name, &params).await {
            Ok(_) => {}
            // Gone already, or another of its name is there.
            Err(kube::Error::Api(refusal)) if refusal.code == 404 || refusal.code == 409 => {}
            Err(source) => {
                return Err(StepError::Api {
                    what: "remove the pod",
                    source: Box::new(source),
                });
            }
        }
        self.removal_asked = true;
        Ok(())
    }
}

/// A container that has ended needs no signal and no forgetting.
fn ignore_ended(what: &'static str, result: Result<(), RuntimeError>) -> Result<(), StepError> {
    match result {
        Ok(()) | Err(RuntimeError::NotRunning(_)) => Ok(()),
        Err(source) => Err(StepError::Runtime { what, source }),
    }
}

fn make_files(files: &Files) -> io::Result<()> {
    for path in [&files.log, &files.message] {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
    }
    fs::File::create(&files.message)?;
    // Whatever user the container runs as may leave its last words.
    fs::set_permissions(&files.message, fs::Permissions::from_mode(0o666))
}

/// An error with its causes, for a status that a user reads.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
