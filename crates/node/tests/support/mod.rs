//! What every tier must do, one check function a behaviour; the suites run them against the tiers that they can have.

macro_rules! behaviours {
    ($tier:expr => $($name:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            crate::support::checks::$name($tier).await;
        })*
    };
}

macro_rules! every_tier {
    ($tier:expr) => {
        behaviours! { $tier =>
            an_exit_code_is_told
            a_signal_that_ended_it_is_told
            output_becomes_log_lines
            a_burst_of_output_loses_no_line
            a_log_goes_on_in_another_file_between_two_lines
            whoever_attaches_hears_and_speaks_and_the_container_outlives_it
            a_terminal_can_be_attached_to
            the_program_has_its_variables_and_folder
            kill_ends_everything_and_returns_when_it_has
            a_program_that_ignores_sigterm_goes_on
            what_forked_itself_away_ends_with_the_container
            a_daemon_that_died_finds_its_containers
            an_end_while_no_daemon_lived_is_found
            a_killed_shim_takes_its_container_along
            a_shim_killed_while_no_daemon_lived_is_settled
            a_pod_is_not_released_while_it_lives
            the_same_start_twice_is_one_start
            a_command_that_is_none_fails_to_start
            a_machine_that_was_started_anew_has_no_containers
            each_pod_has_an_address_for_life
            a_container_with_a_terminal_has_one
            a_container_with_standard_input_waits_for_it
            what_a_tier_cannot_honour_is_refused_with_the_reason
            the_probe_finds_that_it_is_possible
            a_program_can_be_run_inside
            a_program_inside_can_have_a_terminal
            a_program_inside_that_is_none_is_refused
            a_program_inside_ends_with_its_session_and_with_its_container
            a_seccomp_profile_holds
            what_a_tier_cannot_honour_of_a_pod_is_refused_with_the_reason
        }
    };
}

/// The checks of the tiers that have mounts of their own.
macro_rules! tiers_with_mounts {
    ($tier:expr) => {
        behaviours! { $tier =>
            mounts_are_where_they_were_promised
            a_mount_that_is_read_only_cannot_be_written
            a_container_writes_to_a_layer_of_its_own
            the_data_folder_is_not_seen
            a_read_only_root_cannot_be_written
            names_are_kept_up_to_date_in_a_running_container
            a_container_has_its_own_processes_and_host_name
            the_kernel_is_out_of_reach
            a_missing_working_folder_is_made
            a_container_runs_as_the_user_that_it_asks_for
        }
    };
}

pub(crate) mod checks;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stead_node::runtime::{
    self, Confinement, ContainerId, ContainerSpec, ContainerState, LogLimits, Mount, PodPlace,
    PodSandbox, PodSettings, Root, Runtime, RuntimeOptions, Tier,
};

/// How long anything may take before it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A data folder with a runtime on it.
pub(crate) struct Bench {
    pub(crate) tier: Tier,
    pub(crate) runtime: Arc<dyn Runtime>,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(tier: Tier) -> Self {
        Self::new_in(tier, &std::env::temp_dir())
    }

    /// With its data folder below this one.
    pub(crate) fn new_in(tier: Tier, parent: &Path) -> Self {
        let folder = tempfile::tempdir_in(parent).expect("a temporary folder");
        let runtime = open(tier, folder.path());
        Self {
            tier,
            runtime,
            folder,
        }
    }

    /// The data folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What a new daemon does: forgets everything and opens the folder again.
    pub(crate) fn restart(&mut self) {
        self.runtime = open(self.tier, self.folder.path());
    }

    /// From now on logs may grow this large.
    pub(crate) fn limit_logs(&mut self, log: LogLimits) {
        let options = RuntimeOptions {
            log,
            ..options(self.folder.path())
        };
        self.runtime = runtime::open(self.tier, options).expect("the tier opens");
    }

    /// The UID of pod `name` here: no two folders may have the same UID, as no two pods of the world have.
    pub(crate) fn uid(&self, name: &str) -> String {
        let folder = self.path().file_name().expect("a named folder");
        format!(
            "{name}-{}",
            folder.to_string_lossy().trim_start_matches(".tmp")
        )
    }

    pub(crate) async fn prepare(&self, name: &str) -> PodPlace {
        self.runtime
            .prepare(&pod(&self.uid(name), name))
            .await
            .expect("the pod gets its place")
    }

    /// A container of pod `name` that runs this shell script.
    pub(crate) fn script(&self, name: &str, script: &str) -> ContainerSpec {
        self.command(name, &["/bin/sh", "-c", script])
    }

    pub(crate) fn command(&self, name: &str, argv: &[&str]) -> ContainerSpec {
        let id = ContainerId {
            pod_uid: self.uid(name),
            container: "main".to_owned(),
            attempt: 0,
        };
        ContainerSpec {
            log_path: self.log_path(&id),
            id,
            pod: format!("default/{name}"),
            root: Root::Host,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![("GREETING".to_owned(), "good day".to_owned())],
            cwd: None,
            user: None,
            group: None,
            groups: Vec::new(),
            mounts: Vec::new(),
            read_only_root: false,
            privileged: false,
            add_capabilities: Vec::new(),
            drop_capabilities: Vec::new(),
            no_new_privileges: false,
            confinement: Confinement::default(),
            memory_limit: None,
            cpu_limit_millis: None,
            cpu_request_millis: None,
            stdin: false,
            stdin_once: false,
            tty: false,
            termination_message: None,
        }
    }

    fn log_path(&self, id: &ContainerId) -> PathBuf {
        self.path()
            .join("node/logs")
            .join(&id.pod_uid)
            .join(format!("{}.{}.log", id.container, id.attempt))
    }

    /// A folder of the machine with a mount of it at `target`.
    pub(crate) fn volume(&self, name: &str, target: &str) -> Mount {
        let source = self.path().join("node/volumes").join(name);
        std::fs::create_dir_all(&source).expect("a volume folder");
        Mount {
            source,
            target: PathBuf::from(target),
            read_only: false,
            within: None,
        }
    }

    /// Prepares the pod, starts the container and waits for its end.
    pub(crate) async fn run(&self, spec: &ContainerSpec) -> ContainerState {
        self.start(spec).await;
        self.wait(&spec.id, is_over).await
    }

    pub(crate) async fn start(&self, spec: &ContainerSpec) {
        let name = spec.pod.trim_start_matches("default/");
        self.prepare(name).await;
        self.runtime
            .start(spec)
            .await
            .expect("a shim holds the container");
    }

    /// Starts and waits until the first process runs; its PID.
    pub(crate) async fn start_running(&self, spec: &ContainerSpec) -> u32 {
        self.start(spec).await;
        match self
            .wait(&spec.id, |state| *state != ContainerState::Created)
            .await
        {
            ContainerState::Running { pid, .. } => pid,
            other => panic!("the container does not run: {other:?}"),
        }
    }

    /// Waits for a state, woken by the runtime's own announcements.
    pub(crate) async fn wait(
        &self,
        id: &ContainerId,
        want: impl Fn(&ContainerState) -> bool,
    ) -> ContainerState {
        let mut changed = self.runtime.changed();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                match self.state(id) {
                    Some(state) if want(&state) => return state,
                    _ => changed.changed().await.expect("the runtime lives"),
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(state) => state,
            Err(_) => panic!("container {id:?} is stuck as {:?}", self.state(id)),
        }
    }

    pub(crate) fn state(&self, id: &ContainerId) -> Option<ContainerState> {
        self.runtime
            .list()
            .expect("the records can be read")
            .into_iter()
            .find(|record| record.id == *id)
            .map(|record| record.state)
    }

    /// The log without its times: `stdout F text`.
    pub(crate) fn log(&self, spec: &ContainerSpec) -> String {
        let text = std::fs::read_to_string(&spec.log_path).expect("a log");
        text.lines()
            .map(|line| line.split_once(' ').expect("a time and a rest").1)
            .fold(String::new(), |all, line| all + line + "\n")
    }

    /// Waits until the log holds this line (without its time).
    pub(crate) async fn wait_for_log(&self, spec: &ContainerSpec, line: &str) {
        let path = spec.log_path.clone();
        eventually(&format!("log line {line:?}"), move || {
            std::fs::read_to_string(&path).is_ok_and(|text| {
                text.lines()
                    .any(|have| have.split_once(' ').is_some_and(|(_, rest)| rest == line))
            })
        })
        .await;
    }

    /// The container's shim.
    pub(crate) fn shim_pid(&self, id: &ContainerId) -> u32 {
        let path = self
            .path()
            .join("node/containers")
            .join(&id.pod_uid)
            .join(format!("{}.{}/shim.json", id.container, id.attempt));
        let text = std::fs::read_to_string(path).expect("a shim holds it");
        let holder: serde_json::Value = serde_json::from_str(&text).expect("a record");
        let pid = holder["pid"].as_u64().expect("a pid");
        u32::try_from(pid).expect("a pid fits")
    }
}

impl Drop for Bench {
    /// Leaves no process behind and nothing in the kernel, whatever the test did.
    fn drop(&mut self) {
        // After a failure only the shims are asked to end: the test has said enough.
        if std::thread::panicking() {
            for record in self.runtime.list().unwrap_or_default() {
                if !is_over(&record.state) {
                    kill(self.shim_pid(&record.id), rustix::process::Signal::TERM);
                }
            }
            return;
        }
        self.runtime.close().expect("a test ends what it starts");
    }
}

/// A folder of this user that containers see too, unlike `/tmp`.
pub(crate) fn visible_folder() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let home = std::env::var_os("HOME").map(PathBuf::from);
    [Some(target.to_owned()), home]
        .into_iter()
        .flatten()
        .find(|path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok())
        .expect("the build's folder or the home can be written")
}

pub(crate) fn open(tier: Tier, data_dir: &Path) -> Arc<dyn Runtime> {
    runtime::open(tier, options(data_dir)).expect("the tier opens")
}

pub(crate) fn options(data_dir: &Path) -> RuntimeOptions {
    RuntimeOptions::new(data_dir, shim())
}

/// The program that holds containers; a test that has it copied to another place says where.
pub(crate) fn shim() -> PathBuf {
    match std::env::var_os("STEAD_TEST_SHIM") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_BIN_EXE_stead-node-shim")),
    }
}

pub(crate) fn pod(uid: &str, name: &str) -> PodSandbox {
    PodSandbox {
        uid: uid.to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        hostname: name.to_owned(),
        domain: Some("web.default.svc.cluster.local".to_owned()),
        host_network: false,
        resolv_conf: None,
        host_aliases: Vec::new(),
        settings: PodSettings::default(),
    }
}

pub(crate) fn is_over(state: &ContainerState) -> bool {
    match state {
        ContainerState::Created | ContainerState::Running { .. } => false,
        ContainerState::Exited { .. } | ContainerState::Failed { .. } => true,
    }
}

/// Exit code and signal of a container that has exited.
pub(crate) fn exit(state: &ContainerState) -> (i32, Option<i32>) {
    match state {
        ContainerState::Exited { code, signal, .. } => (*code, *signal),
        other => panic!("it has not exited: {other:?}"),
    }
}

pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    // Gone already is as good.
    let _ = rustix::process::kill_process(pid.expect("a pid"), signal);
}

/// Whether a process lives, zombies not counted.
pub(crate) fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| !state.starts_with(['Z', 'X']))
    })
}

/// Waits for something that only the file system or the kernel can tell.
pub(crate) async fn eventually(what: &str, test: impl Fn() -> bool) {
    let waiting = async {
        while !test() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "this never came true: {what}"
    );
}
