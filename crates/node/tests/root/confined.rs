//! What confines a container beyond users and capabilities: system calls, processes, kernel settings, and namespaces that
//! it shares with others. In the containers tier.

use stead_node::runtime::{
    ContainerId, ContainerSpec, ContainerState, ExecRequest, PodSandbox, PodSettings, Seccomp, Tier,
};
use tokio::io::AsyncReadExt;

use crate::support::{Bench, eventually, exit, is_over, pod};

/// A bench on which every pod has these settings.
struct Town {
    bench: Bench,
    settings: PodSettings,
}

impl Town {
    fn new(settings: PodSettings) -> Self {
        Self {
            bench: Bench::new(Tier::Containers),
            settings,
        }
    }

    async fn start(&self, spec: &ContainerSpec) {
        let name = spec.pod.trim_start_matches("default/");
        let sandbox = PodSandbox {
            settings: self.settings.clone(),
            ..pod(&self.bench.uid(name), name)
        };
        let runtime = &self.bench.runtime;
        runtime.prepare(&sandbox).await.expect("a place");
        runtime.start(spec).await.expect("a shim holds it");
    }

    async fn start_running(&self, spec: &ContainerSpec) -> u32 {
        self.start(spec).await;
        let begun = |state: &ContainerState| *state != ContainerState::Created;
        match self.bench.wait(&spec.id, begun).await {
            ContainerState::Running { pid, .. } => pid,
            other => panic!("it does not run: {other:?}"),
        }
    }

    /// Runs it to its end; its log.
    async fn run(&self, spec: &ContainerSpec) -> String {
        self.start(spec).await;
        self.bench.wait(&spec.id, is_over).await;
        self.bench.log(spec)
    }

    /// One more container of pod `name`.
    fn beside(&self, name: &str, container: &str, script: &str) -> ContainerSpec {
        let spec = self.bench.script(name, script);
        let id = ContainerId {
            container: container.to_owned(),
            ..spec.id.clone()
        };
        let log_path = spec.log_path.with_file_name(format!("{container}.log"));
        ContainerSpec {
            id,
            log_path,
            ..spec
        }
    }
}

/// What a program says that is run inside a container.
async fn inside(bench: &Bench, id: &ContainerId, script: &str) -> String {
    let request = ExecRequest {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        stdin: false,
        tty: false,
    };
    let mut session = bench.runtime.exec(id, &request).await.expect("it runs");
    let mut out = String::new();
    session.stdout.read_to_string(&mut out).await.expect("text");
    session.exit.await.expect("an end");
    out
}

#[tokio::test]
async fn system_calls_are_those_of_the_profile_for_the_program_and_for_what_is_run_inside() {
    let town = Town::new(PodSettings::default());
    let refusing = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17}]}"#;
    let tried = "unshare -U true 2>/dev/null && echo unshared; mkdir /tmp/x 2>&1 | grep -o exists; grep ^Seccomp: /proc/self/status | cut -f2";
    for (name, seccomp, privileged, locked, want) in [
        (
            "unconfined",
            Seccomp::Unconfined,
            false,
            false,
            "unshared\n0\n",
        ),
        ("default", Seccomp::RuntimeDefault, false, false, "2\n"),
        ("locked", Seccomp::RuntimeDefault, false, true, "2\n"),
        (
            "profile",
            Seccomp::Profile(refusing.to_owned()),
            false,
            false,
            "unshared\nexists\n2\n",
        ),
        (
            "privileged",
            Seccomp::RuntimeDefault,
            true,
            false,
            "unshared\n0\n",
        ),
    ] {
        let mut spec = town.bench.script(name, "exec sleep 1000");
        spec.confinement.seccomp = seccomp;
        spec.privileged = privileged;
        spec.no_new_privileges = locked;
        spec.user = locked.then_some(1000);
        let mut once = spec.clone();
        once.id.container = "once".to_owned();
        once.argv = ["/bin/sh", "-c", tried].map(str::to_owned).to_vec();
        once.log_path = spec.log_path.with_file_name("once.log");
        let log = town.run(&once).await.replace("stdout F ", "");
        assert_eq!(log, want, "{name}");
        town.start_running(&spec).await;
        let said = inside(
            &town.bench,
            &spec.id,
            "grep ^Seccomp: /proc/self/status | cut -f2",
        )
        .await;
        assert!(want.ends_with(&said), "{name} inside: {said}");
        town.bench.runtime.kill(&spec.id).await.expect("ended");
    }
}

#[tokio::test]
async fn a_fork_bomb_stays_below_the_limit_of_its_pod_and_can_be_ended() {
    for shared_pid in [false, true] {
        let town = Town::new(PodSettings {
            pids_limit: Some(60),
            shared_pid,
            ..PodSettings::default()
        });
        let spec = town
            .bench
            .script("bomb", "trap '' TERM; b() { b | b & b; }; b");
        town.start(&spec).await;
        let log = spec.log_path.clone();
        eventually("the kernel refuses to fork", move || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("annot fork"))
        })
        .await;
        let beside = town.beside("bomb", "beside", "true");
        town.start(&beside).await;
        town.bench
            .runtime
            .kill(&spec.id)
            .await
            .expect("it can be ended");
        town.bench.wait(&spec.id, is_over).await;
        town.bench.wait(&beside.id, is_over).await;
        town.bench
            .runtime
            .release(&spec.id.pod_uid)
            .await
            .expect("nothing is left");
    }
}

#[tokio::test]
async fn kernel_settings_are_the_pods_own() {
    let town = Town::new(PodSettings {
        sysctls: [
            ("net.ipv4.ip_unprivileged_port_start", "0"),
            ("kernel.shm_rmid_forced", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        ..PodSettings::default()
    });
    let files = "/proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    let machine = |file: &str| std::fs::read_to_string(file).expect("a setting");
    let before: Vec<String> = files.split(' ').map(machine).collect();
    let spec = town.bench.script("a", &format!("cat {files}"));
    assert_eq!(town.run(&spec).await, "stdout F 0\nstdout F 1\n");
    assert_eq!(files.split(' ').map(machine).collect::<Vec<_>>(), before);
}

/// Prints the names of all processes that can be seen, sorted.
const LIST: &str = "cat /proc/[0-9]*/comm | sort | tr '\\n' ' '";

#[tokio::test]
async fn containers_that_share_their_processes_see_and_signal_each_other() {
    let mut town = Town::new(PodSettings {
        shared_pid: true,
        ..PodSettings::default()
    });
    let first = town.beside(
        "a",
        "first",
        "sleep 1001 & setsid sleep 1002 & exec tail -f /dev/null",
    );
    town.start_running(&first).await;
    let second = town.beside("a", "second", "exec sleep 1003");
    town.start_running(&second).await;
    let list = inside(&town.bench, &second.id, LIST).await;
    assert_eq!(list.matches("sleep").count(), 3, "{list}");
    assert_eq!(list.matches("tail").count(), 1, "{list}");
    let ended = inside(&town.bench, &second.id, "kill -9 $(pidof tail); echo $?").await;
    assert_eq!(ended, "0\n");
    let state = town.bench.wait(&first.id, is_over).await;
    assert_eq!(exit(&state), (137, Some(9)));
    let list = inside(&town.bench, &second.id, LIST).await;
    assert_eq!(
        list.matches("sleep").count(),
        1,
        "what the first left is gone: {list}"
    );
    town.bench.restart();
    let third = town.beside("a", "third", LIST);
    let list = town.run(&third).await;
    assert_eq!(list.matches("sleep").count(), 1, "{list}");
    town.bench.runtime.kill(&second.id).await.expect("ended");
    town.bench
        .runtime
        .release(&second.id.pod_uid)
        .await
        .expect("nothing is left");
}

#[tokio::test]
async fn a_debugging_container_sees_the_processes_of_its_target() {
    let town = Town::new(PodSettings::default());
    let target = town.beside("a", "target", "exec sleep 1001");
    town.start_running(&target).await;
    let mut debugger = town.beside("a", "debugger", LIST);
    assert!(!town.run(&debugger).await.contains("sleep"));
    debugger.id.container = "aimed".to_owned();
    debugger.log_path.set_file_name("aimed.log");
    debugger.confinement.target = Some("target".to_owned());
    let list = town.run(&debugger).await;
    assert!(list.contains("sleep"), "{list}");
    town.bench.runtime.kill(&target.id).await.expect("ended");
}

#[tokio::test]
async fn a_container_among_the_machines_processes_leaves_none_behind() {
    let town = Town::new(PodSettings {
        host_pid: true,
        host_ipc: true,
        ..PodSettings::default()
    });
    let kinds = ["pid", "ipc"].map(|kind| {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a link");
        format!("stdout F {}\n", link.display())
    });
    let spec = town.bench.script(
        "a",
        "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; setsid sleep 100123 & exit 3",
    );
    town.start(&spec).await;
    let state = town.bench.wait(&spec.id, is_over).await;
    assert_eq!(exit(&state), (3, None));
    assert_eq!(town.bench.log(&spec), kinds.concat());
    let left = std::process::Command::new("pgrep")
        .args(["-f", "sleep 100123"])
        .output()
        .expect("it looks");
    assert!(left.stdout.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_place_of_a_volume_that_becomes_a_link_out_of_it_is_not_mounted() {
    let town = Town::new(PodSettings::default());
    let mut spec = town.bench.script("a", "ls /data");
    let mut mount = town.bench.volume("v", "/data");
    let volume = mount.source.clone();
    std::fs::write(volume.join("inside"), "").expect("a file");
    mount.within = Some(volume.clone());
    mount.source = volume.join("place");
    for (name, target) in [
        ("absolute", "/etc"),
        ("above", "../.."),
        ("other", "other/../../.."),
    ] {
        // What a container does between the check of its subPath and the mount.
        std::os::unix::fs::symlink(target, volume.join("place")).expect("a link");
        spec.id.container = name.to_owned();
        spec.mounts = vec![mount.clone()];
        town.start(&spec).await;
        match town.bench.wait(&spec.id, is_over).await {
            ContainerState::Failed { message, .. } => {
                assert!(message.starts_with("mount "), "{message}");
            }
            other => panic!("{name} was followed: {other:?}"),
        }
        std::fs::remove_file(volume.join("place")).expect("removed");
    }
    std::fs::create_dir(volume.join("place")).expect("a folder");
    std::fs::write(volume.join("place/file"), "").expect("a file");
    spec.id.container = "folder".to_owned();
    assert_eq!(town.run(&spec).await, "stdout F file\n");
}
