//! The containers tier, by the checks that hold for every tier and by those that only it can pass; and the rootless
//! tier as an ordinary user has it. Needs root with the right to mount.
//!
//! `cargo test -p stead-node --features root-tests --test root_runtime`; without root it fails, it does not skip.

#[path = "root/confined.rs"]
mod confined;
#[macro_use]
mod support;

mod containers {
    every_tier! { stead_node::runtime::Tier::Containers }
    tiers_with_mounts! { stead_node::runtime::Tier::Containers }
}

mod rootless {
    every_tier! { stead_node::runtime::Tier::Rootless }
    tiers_with_mounts! { stead_node::runtime::Tier::Rootless }
}

mod only_containers {
    use stead_node::runtime::{ContainerState, Tier};

    use crate::support::{self, Bench, exit, is_over};

    const TIER: Tier = Tier::Containers;

    #[tokio::test]
    async fn what_listens_on_a_pods_own_localhost_can_be_dialled() {
        use tokio::io::AsyncReadExt;

        let bench = Bench::new(TIER);
        let program = support::shim();
        let program = program.to_str().expect("a path of letters");
        let server = bench.command("server", &[program, "answer", "127.0.0.1:7000", "hello"]);
        bench.start_running(&server).await;
        bench.wait_for_log(&server, "stdout F listening").await;
        let uid = bench.uid("server");
        let mut stream = bench.runtime.dial(&uid, 7_000).await.expect("it listens");
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("it answers");
        assert_eq!(said.trim_end(), "hello");
        let nobody = bench
            .runtime
            .dial(&uid, 1)
            .await
            .expect_err("nobody listens");
        let why = std::error::Error::source(&nobody)
            .expect("a reason")
            .to_string();
        assert!(why.contains("refused"), "{why}");
        // What the machine's own localhost offers is not the pod's.
        let outside = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = outside.local_addr().expect("an address").port();
        bench
            .runtime
            .dial(&uid, port)
            .await
            .expect_err("that is outside");
        bench
            .runtime
            .kill(&server.id)
            .await
            .expect("it can be ended");
    }

    #[tokio::test]
    async fn pods_and_the_machine_reach_each_other_by_address() {
        let bench = Bench::new(TIER);
        let address = bench.prepare("server").await.ip;
        let gateway = bench.runtime.gateway().expect("pods have a network");
        let program = support::shim();
        let program = program.to_str().expect("a path of letters");

        let server = bench.command("server", &[program, "answer", "0.0.0.0:7000", "hello"]);
        bench.start_running(&server).await;
        bench.wait_for_log(&server, "stdout F listening").await;
        assert_eq!(ask(address).await, "hello");

        let client = bench.command("client", &[program, "ask", &format!("{address}:7000")]);
        assert_eq!(
            exit(&bench.run(&client).await),
            (0, None),
            "{}",
            bench.log(&client)
        );
        assert_eq!(bench.log(&client), "stdout F hello\n");

        let itself = bench.command("itself", &["/bin/sh", "-c", &format!("{program} answer 127.0.0.1:7000 me & until {program} ask 127.0.0.1:7000; do sleep 0.01; done")]);
        assert_eq!(
            exit(&bench.run(&itself).await),
            (0, None),
            "{}",
            bench.log(&itself)
        );

        let listener =
            std::net::TcpListener::bind((gateway, 0)).expect("the gateway is the machine's");
        let port = listener.local_addr().expect("an address").port();
        let machine = bench.command("machine", &[program, "ask", &format!("{gateway}:{port}")]);
        bench.start(&machine).await;
        let answered = tokio::task::spawn_blocking(move || {
            use std::io::Write;
            let (mut stream, peer) = listener.accept().expect("the pod connects");
            stream.write_all(b"machine").expect("it listens");
            peer.ip()
        });
        let peer = answered.await.expect("it was answered");
        assert_eq!(exit(&bench.wait(&machine.id, is_over).await), (0, None));
        assert_eq!(bench.log(&machine), "stdout F machine\n");
        assert_eq!(peer, bench.prepare("machine").await.ip);
        bench
            .runtime
            .kill(&server.id)
            .await
            .expect("it can be ended");
    }

    async fn ask(address: std::net::IpAddr) -> String {
        use tokio::io::AsyncReadExt;
        let mut text = String::new();
        let mut stream = tokio::net::TcpStream::connect((address, 7000))
            .await
            .expect("the pod answers");
        stream.read_to_string(&mut text).await.expect("text");
        text
    }

    #[tokio::test]
    async fn a_container_that_takes_too_much_memory_is_ended_and_says_so() {
        let bench = Bench::new(TIER);
        let mut spec = bench.script("a", "exec tail /dev/zero");
        spec.memory_limit = Some(32 * 1024 * 1024);
        match bench.run(&spec).await {
            ContainerState::Exited {
                code: 137,
                oom: true,
                ..
            } => {}
            other => panic!("it must run out of memory: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_container_sees_its_own_limits() {
        let bench = Bench::new(TIER);
        let files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max";
        let mut spec = bench.script(
            "a",
            &format!(
                "cat {files} 2>/dev/null | cut -d' ' -f1; cut -d: -f3 /proc/self/cgroup | sort -u"
            ),
        );
        spec.memory_limit = Some(64 * 1024 * 1024);
        spec.cpu_limit_millis = Some(500);
        bench.run(&spec).await;
        let log = bench.log(&spec);
        assert!(
            log.starts_with("stdout F 67108864\nstdout F 50000\nstdout F /\n"),
            "{log}"
        );
    }

    #[tokio::test]
    async fn capabilities_are_those_that_were_asked_for() {
        let bench = Bench::new(TIER);
        for (name, add, drop, want) in [
            ("default", "", "", "00000000a80425fb"),
            ("none", "", "ALL", "0000000000000000"),
            ("one", "NET_BIND_SERVICE", "ALL", "0000000000000400"),
        ] {
            let mut spec = bench.script(name, "grep CapEff /proc/self/status | cut -f2; grep NoNewPrivs /proc/self/status | cut -f2");
            spec.no_new_privileges = name == "none";
            spec.add_capabilities
                .extend((!add.is_empty()).then(|| add.to_owned()));
            spec.drop_capabilities
                .extend((!drop.is_empty()).then(|| drop.to_owned()));
            bench.run(&spec).await;
            let locked = u8::from(name == "none");
            assert_eq!(
                bench.log(&spec),
                format!("stdout F {want}\nstdout F {locked}\n")
            );
        }
    }

    #[tokio::test]
    async fn a_device_node_that_a_container_makes_is_of_no_use() {
        let bench = Bench::new(TIER);
        let mut spec = bench.script("a", "for at in /tmp /root /dev/shm /data; do mknod $at/null c 1 3 && (echo x >$at/null) 2>/dev/null && echo usable $at; done; echo done");
        spec.mounts.push(bench.volume("data", "/data"));
        bench.run(&spec).await;
        let log = bench.log(&spec);
        assert!(
            !log.contains("usable") && log.ends_with("stdout F done\n"),
            "{log}"
        );
    }

    #[tokio::test]
    async fn what_was_taken_from_the_machine_is_given_back() {
        let before = taken();
        let bench = Bench::new(TIER);
        let spec = bench.script("a", "sleep 1000");
        bench.start_running(&spec).await;
        let instance = instance_of(&bench);
        assert_eq!(
            of(&instance, &taken()).len(),
            3,
            "{:?}",
            of(&instance, &taken())
        );
        bench.runtime.kill(&spec.id).await.expect("it can be ended");
        bench
            .runtime
            .release(&spec.id.pod_uid)
            .await
            .expect("nothing holds the pod");
        bench.runtime.close().expect("nothing lives");
        assert!(
            of(&instance, &taken()).is_empty(),
            "{:?}; before: {before:?}",
            taken()
        );
    }

    #[tokio::test]
    async fn what_a_crash_left_is_swept_at_the_next_start() {
        let mut bench = Bench::new(TIER);
        bench.prepare("known").await;
        bench.prepare("lost").await;
        let instance = instance_of(&bench);
        let all = of(&instance, &taken()).len();
        // The crash that forgets a pod but keeps what it has of the kernel.
        std::fs::remove_dir_all(bench.path().join("node/sandboxes").join(bench.uid("lost")))
            .expect("a record");
        bench.restart();
        assert_eq!(
            of(&instance, &taken()).len(),
            all - 2,
            "{:?}",
            of(&instance, &taken())
        );
    }

    /// Interfaces, namespace folders and pod cgroups of Stead on this machine.
    fn taken() -> Vec<String> {
        let list = |folder: &str| -> Vec<String> {
            std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path().display().to_string())
                .collect()
        };
        let mut all = list("/sys/class/net");
        for folder in list("/run/stead")
            .into_iter()
            .chain(list("/sys/fs/cgroup/memory/stead"))
        {
            all.extend(
                list(&folder)
                    .into_iter()
                    .filter(|path| std::path::Path::new(path).is_dir()),
            );
        }
        all
    }

    fn of(instance: &str, taken: &[String]) -> Vec<String> {
        taken
            .iter()
            .filter(|path| path.contains(instance))
            .cloned()
            .collect()
    }

    /// The six digits that stand for the data folder, as its one interface bears them.
    fn instance_of(bench: &Bench) -> String {
        let uid = bench.uid("a");
        let known = bench.uid("known");
        std::fs::read_dir("/run/stead")
            .expect("a folder")
            .flatten()
            .find(|entry| entry.path().join(&uid).exists() || entry.path().join(&known).exists())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .expect("the pod has namespaces")
    }
}

mod an_ordinary_user {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    /// Nobody in particular.
    const NOBODY: u32 = 65534;

    #[test]
    fn has_the_rootless_tier() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copy = |from: &std::path::Path, name: &str| {
            let to = folder.path().join(name);
            std::fs::copy(from, &to).expect("a copy");
            to
        };
        let suite = copy(&std::env::current_exe().expect("this program"), "suite");
        let shim = copy(&crate::support::shim(), "shim");
        let everyone = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), everyone).expect("a mode");
        let output = Command::new(suite)
            .args(["rootless::", "--test-threads=2"])
            .env("STEAD_TEST_SHIM", shim)
            .env("HOME", folder.path())
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .expect("the suite runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(
            text.contains(" 0 failed") && !text.contains("running 0 tests"),
            "{text}"
        );
    }
}
