//! One function a behaviour. Each makes its own data folder and leaves nothing running.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use stead_node::runtime::{
    ContainerSpec, ContainerState, LogLimits, PodSandbox, PodSettings, RuntimeError, Seccomp, Tier,
};

use super::{Bench, eventually, exit, kill, lives, pod};

pub(crate) async fn an_exit_code_is_told(tier: Tier) {
    let bench = Bench::new(tier);
    let state = bench.run(&bench.script("a", "exit 7")).await;
    assert_eq!(exit(&state), (7, None));
    let ContainerState::Exited {
        started_at,
        finished_at,
        oom,
        ..
    } = state
    else {
        unreachable!("it has exited");
    };
    assert!(started_at < finished_at && !oom);
}

pub(crate) async fn a_signal_that_ended_it_is_told(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script(
        "a",
        "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done",
    );
    bench.start_running(&spec).await;
    bench.wait_for_log(&spec, "stdout F ready").await;
    bench
        .runtime
        .signal(&spec.id, 10)
        .await
        .expect("a running container takes signals");
    assert_eq!(exit(&bench.wait(&spec.id, super::is_over).await), (3, None));

    let spec = bench.script("b", "exec sleep 1000");
    bench.start_running(&spec).await;
    bench
        .runtime
        .signal(&spec.id, 9)
        .await
        .expect("a running container takes signals");
    assert_eq!(
        exit(&bench.wait(&spec.id, super::is_over).await),
        (137, Some(9))
    );
}

pub(crate) async fn output_becomes_log_lines(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script("a", "echo one; echo two >&2; printf 'no newline'");
    bench.run(&spec).await;
    let mut lines: Vec<String> = bench.log(&spec).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        ["stderr F two", "stdout F one", "stdout P no newline"]
    );
    let text = std::fs::read_to_string(&spec.log_path).expect("a log");
    let time = text.split_once(' ').expect("a time").0;
    assert!(
        time.parse::<jiff::Timestamp>().is_ok() && time.len() == 30,
        "{time}"
    );
}

pub(crate) async fn a_burst_of_output_loses_no_line(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script(
        "a",
        "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done",
    );
    bench.run(&spec).await;
    let want: String = (0..20000).map(|i| format!("stdout F line {i}\n")).collect();
    assert!(
        bench.log(&spec) == want,
        "lines are missing or out of order"
    );
}

pub(crate) async fn the_program_has_its_variables_and_folder(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script(
        "a",
        "echo $GREETING $HOSTNAME; pwd; [ -n \"$PATH\" ] && echo path",
    );
    spec.cwd = Some("/usr".into());
    bench.run(&spec).await;
    assert_eq!(
        bench.log(&spec),
        "stdout F good day a\nstdout F /usr\nstdout F path\n"
    );
}

pub(crate) async fn kill_ends_everything_and_returns_when_it_has(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script(
        "a",
        "trap '' TERM; sleep 1000 & (setsid sleep 1000 &) ; echo up; wait",
    );
    let pid = bench.start_running(&spec).await;
    bench.wait_for_log(&spec, "stdout F up").await;
    bench.runtime.kill(&spec.id).await.expect("it can be ended");
    assert!(!lives(pid));
    let state = bench.state(&spec.id).expect("it is still recorded");
    assert_eq!(exit(&state), (137, Some(9)));
    bench
        .runtime
        .kill(&spec.id)
        .await
        .expect("a second time changes nothing");
}

pub(crate) async fn a_program_that_ignores_sigterm_goes_on(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script(
        "a",
        "trap 'echo no' TERM; echo up; while :; do sleep 0.05; done",
    );
    let pid = bench.start_running(&spec).await;
    bench.wait_for_log(&spec, "stdout F up").await;
    bench
        .runtime
        .signal(&spec.id, 15)
        .await
        .expect("a running container takes signals");
    bench.wait_for_log(&spec, "stdout F no").await;
    assert!(lives(pid));
    bench.runtime.kill(&spec.id).await.expect("it can be ended");
}

pub(crate) async fn what_forked_itself_away_ends_with_the_container(tier: Tier) {
    let bench = Bench::new(tier);
    let volume = bench.volume("beat", "/beat");
    let mut spec = bench.script(
        "a",
        "(setsid sh -c 'while :; do date +%N >$PLACE/beat; sleep 0.01; done' >/dev/null 2>&1 &) ; while [ ! -s $PLACE/beat ]; do sleep 0.01; done",
    );
    let beat = volume.source.join("beat");
    place(&mut spec, &bench, volume);
    assert_eq!(exit(&bench.run(&spec).await), (0, None));
    // Exited is told only when nothing beats any more.
    let last = std::fs::read(&beat).expect("it has beaten");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(std::fs::read(&beat).expect("it has beaten"), last);
    bench
        .runtime
        .release(&bench.uid("a"))
        .await
        .expect("nothing holds the pod");
}

/// Gives the container its volume, by path or by variable.
fn place(
    spec: &mut stead_node::runtime::ContainerSpec,
    bench: &Bench,
    volume: stead_node::runtime::Mount,
) {
    let place = match bench.tier {
        Tier::Processes => volume.source.to_string_lossy().into_owned(),
        Tier::Rootless | Tier::Containers => volume.target.to_string_lossy().into_owned(),
    };
    spec.env.push(("PLACE".to_owned(), place));
    spec.mounts.push(volume);
}

pub(crate) async fn a_daemon_that_died_finds_its_containers(tier: Tier) {
    let mut bench = Bench::new(tier);
    let spec = bench.script(
        "a",
        "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done",
    );
    let pid = bench.start_running(&spec).await;
    let place = bench.prepare("a").await;
    bench.wait_for_log(&spec, "stdout F 3").await;
    bench.restart();
    bench.wait_for_log(&spec, "stdout F 20").await;
    match bench.state(&spec.id) {
        Some(ContainerState::Running { pid: now, .. }) => assert_eq!(now, pid),
        other => panic!("it runs no more: {other:?}"),
    }
    assert_eq!(bench.prepare("a").await, place);
    bench.runtime.kill(&spec.id).await.expect("it can be ended");
    let numbers: Vec<usize> = bench
        .log(&spec)
        .lines()
        .map(|line| {
            line.rsplit_once(' ')
                .expect("words")
                .1
                .parse()
                .expect("a number")
        })
        .collect();
    assert!(
        numbers.iter().copied().eq(0..numbers.len()),
        "a line was lost"
    );
}

pub(crate) async fn an_end_while_no_daemon_lived_is_found(tier: Tier) {
    let mut bench = Bench::new(tier);
    let spec = bench.script("a", "sleep 0.2; exit 5");
    let pid = bench.start_running(&spec).await;
    bench.restart();
    eventually("the program ends", || !lives(pid)).await;
    bench.restart();
    assert_eq!(exit(&bench.wait(&spec.id, super::is_over).await), (5, None));
}

pub(crate) async fn a_killed_shim_takes_its_container_along(tier: Tier) {
    let bench = Bench::new(tier);
    let volume = bench.volume("beat", "/beat");
    let beat = volume.source.join("beat");
    let mut spec = bench.script(
        "a",
        "(setsid sh -c 'while :; do date +%N >$PLACE/beat; sleep 0.01; done' &) ; sleep 1000",
    );
    place(&mut spec, &bench, volume);
    let pid = bench.start_running(&spec).await;
    eventually("it beats", || {
        std::fs::read(&beat).is_ok_and(|text| !text.is_empty())
    })
    .await;
    kill(bench.shim_pid(&spec.id), Signal::KILL);
    assert_eq!(
        exit(&bench.wait(&spec.id, super::is_over).await),
        (137, Some(9))
    );
    assert!(!lives(pid));
    let last = std::fs::read(&beat).expect("it has beaten");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(
        std::fs::read(&beat).expect("it has beaten"),
        last,
        "something still beats"
    );
    bench
        .runtime
        .release(&bench.uid("a"))
        .await
        .expect("nothing holds the pod");
}

pub(crate) async fn a_shim_killed_while_no_daemon_lived_is_settled(tier: Tier) {
    let mut bench = Bench::new(tier);
    let spec = bench.script("a", "sleep 1000");
    let pid = bench.start_running(&spec).await;
    let shim = bench.shim_pid(&spec.id);
    bench.restart();
    kill(shim, Signal::KILL);
    bench.restart();
    assert_eq!(
        exit(&bench.wait(&spec.id, super::is_over).await),
        (137, Some(9))
    );
    assert!(!lives(pid));
}

pub(crate) async fn a_pod_is_not_released_while_it_lives(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script("a", "sleep 1000");
    bench.start_running(&spec).await;
    match bench.runtime.release(&bench.uid("a")).await {
        Err(RuntimeError::StillHeld { uid, pids }) => {
            assert!(uid == bench.uid("a") && !pids.is_empty())
        }
        other => panic!("it must be refused: {other:?}"),
    }
    assert!(bench.runtime.forget(&spec.id).await.is_err());
    bench.runtime.kill(&spec.id).await.expect("it can be ended");
    bench
        .runtime
        .release(&bench.uid("a"))
        .await
        .expect("nothing holds the pod");
    assert_eq!(bench.runtime.pods().expect("records").len(), 0);
    assert_eq!(bench.state(&spec.id), None);
    assert!(
        spec.log_path.exists(),
        "a log is not the runtime's to remove"
    );
    bench
        .runtime
        .release(&bench.uid("a"))
        .await
        .expect("a second time changes nothing");
}

pub(crate) async fn the_same_start_twice_is_one_start(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script("a", "echo up; sleep 1000");
    let pid = bench.start_running(&spec).await;
    bench.wait_for_log(&spec, "stdout F up").await;
    bench
        .runtime
        .start(&spec)
        .await
        .expect("it is held already");
    assert!(lives(pid));
    bench.runtime.kill(&spec.id).await.expect("it can be ended");
    bench
        .runtime
        .start(&spec)
        .await
        .expect("it was held already");
    assert_eq!(bench.log(&spec), "stdout F up\n");
}

pub(crate) async fn a_command_that_is_none_fails_to_start(tier: Tier) {
    let bench = Bench::new(tier);
    for (uid, command, want) in [
        (
            "a",
            "no-such-command",
            "exec: \"no-such-command\": executable file not found in $PATH",
        ),
        (
            "b",
            "/nope",
            "exec: \"/nope\": stat /nope: no such file or directory",
        ),
        ("c", "/usr", "exec: \"/usr\": is a directory"),
        (
            "d",
            "/etc/passwd",
            "exec: \"/etc/passwd\": permission denied",
        ),
    ] {
        match bench.run(&bench.command(uid, &[command])).await {
            ContainerState::Failed {
                reason,
                message,
                code,
            } => {
                assert_eq!((reason.as_str(), code), ("StartError", 128));
                assert!(message.ends_with(want), "{message}");
            }
            other => panic!("it must fail: {other:?}"),
        }
    }
}

pub(crate) async fn a_machine_that_was_started_anew_has_no_containers(tier: Tier) {
    let mut bench = Bench::new(tier);
    let spec = bench.script("a", "sleep 1000");
    bench.start_running(&spec).await;
    let mut options = super::options(bench.path());
    options.boot = Some("the next boot".to_owned());
    let before = std::mem::replace(
        &mut bench.runtime,
        stead_node::runtime::open(tier, options).expect("the tier opens"),
    );
    assert_eq!(
        exit(&bench.wait(&spec.id, super::is_over).await),
        (137, Some(9))
    );
    // In truth it is the same boot: what was taken for gone is ended by the runtime that knows better.
    kill(bench.shim_pid(&spec.id), Signal::TERM);
    before.kill(&spec.id).await.expect("it can be ended");
}

pub(crate) async fn each_pod_has_an_address_for_life(tier: Tier) {
    let mut bench = Bench::new(tier);
    let one = bench.prepare("one").await;
    let two = bench.prepare("two").await;
    assert_ne!(one, two);
    bench.restart();
    assert_eq!(bench.prepare("one").await, one);
    assert_eq!(bench.runtime.pods().expect("records").len(), 2);
    for uid in ["one", "two"] {
        bench
            .runtime
            .release(&bench.uid(uid))
            .await
            .expect("nothing holds the pod");
    }
}

async fn output(
    bench: &Bench,
    spec: &stead_node::runtime::ContainerSpec,
    argv: &[&str],
    input: Option<&str>,
    tty: bool,
) -> (String, String, i32) {
    let request = stead_node::runtime::ExecRequest {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        stdin: input.is_some(),
        tty,
    };
    let mut session = bench
        .runtime
        .exec(&spec.id, &request)
        .await
        .expect("a running container takes programs");
    if let (Some(mut stdin), Some(text)) = (session.stdin.take(), input) {
        stdin.write_all(text.as_bytes()).await.expect("it reads");
        stdin.flush().await.expect("it reads");
        drop(stdin);
    }
    let (mut stdout, mut stderr) = (String::new(), String::new());
    session
        .stdout
        .read_to_string(&mut stdout)
        .await
        .expect("text");
    if let Some(mut stream) = session.stderr {
        stream.read_to_string(&mut stderr).await.expect("text");
    }
    let code = session.exit.await.expect("it ends");
    (stdout, stderr, code)
}

pub(crate) async fn a_program_can_be_run_inside(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script("a", "sleep 1000");
    spec.cwd = Some("/usr".into());
    bench.start_running(&spec).await;
    let script = "echo $GREETING; pwd; echo bad >&2; exit 3";
    let told = output(&bench, &spec, &["sh", "-c", script], None, false).await;
    assert_eq!(told, ("good day\n/usr\n".to_owned(), "bad\n".to_owned(), 3));
    let told = output(&bench, &spec, &["cat"], Some("through\n"), false).await;
    assert_eq!(told, ("through\n".to_owned(), String::new(), 0));
    let told = output(&bench, &spec, &["sh", "-c", "kill -9 $$"], None, false).await;
    assert_eq!(told.2, 137);
    bench.runtime.kill(&spec.id).await.expect("it can be ended");
}

pub(crate) async fn a_program_inside_can_have_a_terminal(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script("a", "sleep 1000");
    bench.start_running(&spec).await;
    let request = stead_node::runtime::ExecRequest {
        argv: ["sh", "-c", "tty; read size; stty size; echo $TERM; exit 4"]
            .map(str::to_owned)
            .to_vec(),
        stdin: true,
        tty: true,
    };
    let mut session = bench
        .runtime
        .exec(&spec.id, &request)
        .await
        .expect("it runs");
    let resize = session.resize.take().expect("a terminal has a size");
    resize.send((100, 40)).await.expect("the terminal is there");
    let mut text = String::new();
    let mut stdin = session.stdin.take().expect("a terminal takes input");
    let mut buffer = [0; 256];
    // The size is set by another task: asked for only after the terminal has answered.
    while !text.contains("/dev/pts/") {
        let count = session.stdout.read(&mut buffer).await.expect("text");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    stdin.write_all(b"go\n").await.expect("it reads");
    session
        .stdout
        .read_to_string(&mut text)
        .await
        .expect("text");
    assert!(text.contains("40 100") && text.contains("xterm"), "{text}");
    assert_eq!(session.exit.await.expect("it ends"), 4);
    bench.runtime.kill(&spec.id).await.expect("it can be ended");
}

pub(crate) async fn a_program_inside_that_is_none_is_refused(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script("a", "sleep 1000");
    bench.start_running(&spec).await;
    let mut request = stead_node::runtime::ExecRequest {
        argv: vec!["no-such-command".to_owned()],
        stdin: false,
        tty: false,
    };
    match bench.runtime.exec(&spec.id, &request).await {
        Err(RuntimeError::System { source, .. }) => assert_eq!(
            source.to_string(),
            "exec: \"no-such-command\": executable file not found in $PATH"
        ),
        Ok(_) => panic!("it must be refused"),
        Err(other) => panic!("it must be refused as such: {other:?}"),
    }
    bench.runtime.kill(&spec.id).await.expect("it can be ended");
    request.argv = vec!["true".to_owned()];
    assert!(matches!(
        bench.runtime.exec(&spec.id, &request).await,
        Err(RuntimeError::NotRunning(_))
    ));
}

pub(crate) async fn a_program_inside_ends_with_its_session_and_with_its_container(tier: Tier) {
    let bench = Bench::new(tier);
    let volume = bench.volume("beat", "/beat");
    let folder = volume.source.clone();
    let mut spec = bench.script("a", "sleep 1000");
    place(&mut spec, &bench, volume);
    bench.start_running(&spec).await;
    let request = |name: &str| stead_node::runtime::ExecRequest {
        argv: [
            "sh".to_owned(),
            "-c".to_owned(),
            format!("while :; do date +%N >$PLACE/{name}; sleep 0.01; done"),
        ]
        .to_vec(),
        stdin: false,
        tty: false,
    };
    let beats = |name: &str| std::fs::read(folder.join(name)).unwrap_or_default();
    for name in ["session", "container"] {
        let session = bench
            .runtime
            .exec(&spec.id, &request(name))
            .await
            .expect("it runs");
        eventually("it beats", || !beats(name).is_empty()).await;
        if name == "session" {
            drop(session);
        } else {
            bench.runtime.kill(&spec.id).await.expect("it can be ended");
            assert_eq!(session.exit.await.expect("it ends"), 137);
        }
        // A session's program is ended a moment after the session; a container's before its end is told.
        let ended = std::cell::RefCell::new(beats(name));
        eventually("it beats no more", || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let before = ended.replace(beats(name));
            before == *ended.borrow()
        })
        .await;
    }
}

/// What the script printed, when it ended well.
async fn printed(bench: &Bench, spec: &ContainerSpec) -> String {
    let state = bench.run(spec).await;
    let log = std::fs::read_to_string(&spec.log_path).unwrap_or_default();
    match &state {
        ContainerState::Exited { code: 0, .. } => {}
        other => panic!("it did not end well: {other:?}\n{log}"),
    }
    bench
        .log(spec)
        .lines()
        .filter_map(|line| line.strip_prefix("stdout F "))
        .map(|line| format!("{line}\n"))
        .collect()
}

pub(crate) async fn mounts_are_where_they_were_promised(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script(
        "a",
        "for at in /data /data/inner /var/lib/stead-test/deep /run/stead-test /tmp/stead-test; do echo $at: $(cat $at/name); echo $at >$at/back; done; cat /etc/stead-test.conf",
    );
    let targets = [
        "/data",
        "/data/inner",
        "/var/lib/stead-test/deep",
        "/run/stead-test",
        "/tmp/stead-test",
    ];
    let mut want = String::new();
    for (number, target) in targets.into_iter().enumerate() {
        let name = format!("volume-{number}");
        let volume = bench.volume(&name, target);
        std::fs::write(volume.source.join("name"), &name).expect("a file");
        want.push_str(&format!("{target}: {name}\n"));
        spec.mounts.push(volume);
    }
    let file = bench.path().join("node/stead-test.conf");
    std::fs::write(&file, "configured\n").expect("a file");
    spec.mounts.push(stead_node::runtime::Mount {
        source: file,
        target: "/etc/stead-test.conf".into(),
        read_only: true,
        within: None,
    });
    want.push_str("configured\n");
    assert_eq!(printed(&bench, &spec).await, want);
    for (mount, target) in spec.mounts.iter().zip(targets) {
        let back = std::fs::read_to_string(mount.source.join("back")).expect("it was written");
        assert_eq!(back, format!("{target}\n"));
    }
    assert!(
        !std::path::Path::new("/data").exists()
            || !std::path::Path::new("/var/lib/stead-test").exists()
    );
}

pub(crate) async fn a_mount_that_is_read_only_cannot_be_written(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script("a", "cat /config/key; echo x >/config/key || echo refused");
    let mut volume = bench.volume("config", "/config");
    volume.read_only = true;
    std::fs::write(volume.source.join("key"), "value\n").expect("a file");
    spec.mounts.push(volume);
    assert_eq!(printed(&bench, &spec).await, "value\nrefused\n");
}

pub(crate) async fn a_container_writes_to_a_layer_of_its_own(tier: Tier) {
    let bench = Bench::new(tier);
    let script = "ls /tmp | wc -l; echo mine >/tmp/stead-private; echo mine >/stead-private; cat /tmp/stead-private /stead-private";
    for name in ["a", "b"] {
        let spec = bench.script(name, script);
        assert_eq!(printed(&bench, &spec).await, "0\nmine\nmine\n");
        bench.runtime.forget(&spec.id).await.expect("it has ended");
    }
    assert!(!std::path::Path::new("/stead-private").exists());
}

pub(crate) async fn the_data_folder_is_not_seen(tier: Tier) {
    // Not below /tmp, which is empty in a container anyway.
    let bench = Bench::new_in(tier, &super::visible_folder());
    let secret = bench.path().join("kubeconfig");
    std::fs::write(&secret, "secret").expect("a file");
    let folder = bench.path().display();
    let script = format!(
        "ls -A {folder} 2>/dev/null | wc -l; cat {} 2>/dev/null || echo hidden",
        secret.display()
    );
    let spec = bench.script("a", &script);
    assert_eq!(printed(&bench, &spec).await, "0\nhidden\n");
}

pub(crate) async fn a_read_only_root_cannot_be_written(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script(
        "a",
        "for at in / /usr /etc /tmp /run; do echo x >$at/stead-test 2>/dev/null && echo written $at; done; echo x >/data/file && echo volume",
    );
    spec.read_only_root = true;
    spec.mounts.push(bench.volume("data", "/data"));
    assert_eq!(printed(&bench, &spec).await, "volume\n");
}

pub(crate) async fn names_are_kept_up_to_date_in_a_running_container(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script(
        "a",
        "grep -c a.web.default.svc.cluster.local /etc/hosts; echo up; until grep neighbour /etc/hosts; do sleep 0.01; done",
    );
    bench.start_running(&spec).await;
    bench.wait_for_log(&spec, "stdout F up").await;
    let names = [(
        std::net::IpAddr::from([127, 9, 9, 9]),
        vec!["neighbour".to_owned()],
    )];
    bench
        .runtime
        .set_names(&names)
        .await
        .expect("names can be set");
    bench.wait(&spec.id, super::is_over).await;
    assert_eq!(
        bench.log(&spec),
        "stdout F 1\nstdout F up\nstdout F 127.9.9.9\tneighbour\n"
    );
}

pub(crate) async fn a_container_has_its_own_processes_and_host_name(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script(
        "a",
        "cat /proc/sys/kernel/hostname /etc/hostname; echo $$; ls -d /proc/[0-9]* | wc -l",
    );
    let told = printed(&bench, &spec).await;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..3], ["a", "a", "1"]);
    let processes: usize = lines[3].parse().expect("a number");
    assert!(processes < 5, "it sees the machine's processes: {told}");
}

pub(crate) async fn the_kernel_is_out_of_reach(tier: Tier) {
    let bench = Bench::new(tier);
    let spec = bench.script(
        "a",
        "for file in /proc/sys/kernel/panic /proc/sysrq-trigger /sys/kernel/mm/ksm/run; do (echo 0 >$file) 2>/dev/null && echo written $file; done; head -c1 /proc/kcore 2>/dev/null | wc -c; echo $(ls /dev)",
    );
    assert_eq!(
        printed(&bench, &spec).await,
        "0\nfd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n"
    );
}

pub(crate) async fn a_missing_working_folder_is_made(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script("a", "pwd; ls | wc -l");
    spec.cwd = Some("/var/lib/stead-test/work".into());
    assert_eq!(
        printed(&bench, &spec).await,
        "/var/lib/stead-test/work\n0\n"
    );
    assert!(!std::path::Path::new("/var/lib/stead-test").exists());
}

pub(crate) async fn a_log_goes_on_in_another_file_between_two_lines(tier: Tier) {
    let mut bench = Bench::new(tier);
    let log = LogLimits {
        max_bytes: 4_096,
        max_files: 3,
    };
    bench.limit_logs(log);
    let spec = bench.script(
        "a",
        "i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done",
    );
    bench.run(&spec).await;
    let folder = spec.log_path.parent().expect("a folder");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder of logs")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    // The one that is written comes last: its name is the others' without their number.
    files.sort_by_key(|path| (path == &spec.log_path, path.clone()));
    assert_eq!(files.len(), 3, "{files:?}");
    let texts: Vec<String> = files
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("a log"))
        .collect();
    assert!(
        texts
            .iter()
            .all(|text| text.len() <= 4_096 && text.ends_with('\n'))
    );
    let kept: Vec<u32> = texts
        .concat()
        .lines()
        .map(|line| {
            line.rsplit(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .expect("a number")
        })
        .collect();
    let first = kept[0];
    assert!(
        first > 0 && kept == (first..1_000).collect::<Vec<_>>(),
        "{kept:?}"
    );
}

pub(crate) async fn whoever_attaches_hears_and_speaks_and_the_container_outlives_it(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script(
        "a",
        "echo before; while read line; do echo heard $line; done",
    );
    spec.stdin = true;
    spec.stdin_once = true;
    let pid = bench.start_running(&spec).await;
    bench.wait_for_log(&spec, "stdout F before").await;
    let attach = async |stdin| {
        bench
            .runtime
            .attach(&spec.id, stdin)
            .await
            .expect("it runs")
    };
    let (mut listener, gone) = (attach(false).await, attach(false).await);
    drop(gone);
    let mut speaker = attach(true).await;
    let mut stdin = speaker.stdin.take().expect("it reads");
    stdin.write_all(b"one\n").await.expect("it is passed on");
    let mut heard = [0; 10];
    for session in [&mut speaker, &mut listener] {
        session
            .stdout
            .read_exact(&mut heard)
            .await
            .expect("it is told");
        assert_eq!(
            &heard, b"heard one\n",
            "what was written before is not told"
        );
    }
    assert!(lives(pid));
    stdin.write_all(b"two\n").await.expect("it is passed on");
    stdin.shutdown().await.expect("its end is passed on");
    drop(stdin);
    let mut rest = String::new();
    listener
        .stdout
        .read_to_string(&mut rest)
        .await
        .expect("it is told");
    assert_eq!(rest, "heard two\n");
    assert_eq!(listener.exit.await.ok(), Some(0));
    assert_eq!(exit(&bench.wait(&spec.id, super::is_over).await), (0, None));
    let late = bench.runtime.attach(&spec.id, false).await;
    assert!(matches!(late, Err(RuntimeError::NotRunning(_))));
}

pub(crate) async fn a_terminal_can_be_attached_to(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script("a", "read line; stty size; echo got $line");
    (spec.stdin, spec.tty) = (true, true);
    bench.start_running(&spec).await;
    let mut session = bench.runtime.attach(&spec.id, true).await.expect("it runs");
    assert!(session.stderr.is_none(), "a terminal has one output");
    let resize = session.resize.as_ref().expect("it has a size");
    resize.send((77, 33)).await.expect("it takes sizes");
    // The size is told before the line: they go the same way.
    let mut stdin = session.stdin.take().expect("it reads");
    stdin.write_all(b"typed\n").await.expect("it is passed on");
    bench.wait(&spec.id, super::is_over).await;
    let mut said = String::new();
    session
        .stdout
        .read_to_string(&mut said)
        .await
        .expect("it is told");
    assert!(
        said.contains("33 77\r\n") && said.ends_with("got typed\r\n"),
        "{said:?}"
    );
}

pub(crate) async fn a_container_with_a_terminal_has_one(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script(
        "a",
        "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo $TERM; echo again >&2",
    );
    spec.tty = true;
    bench.run(&spec).await;
    let log = std::fs::read_to_string(&spec.log_path).expect("a log");
    // A terminal writes a carriage return before each new line.
    let written: Vec<&str> = log
        .split('\n')
        .filter_map(|line| line.split_once(" stdout F "))
        .map(|(_, text)| text)
        .collect();
    assert_eq!(written, ["xterm\r", "again\r"]);
}

pub(crate) async fn a_container_with_standard_input_waits_for_it(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script("a", "cat; echo at the end");
    assert_eq!(printed(&bench, &spec).await, "at the end\n");
    spec = bench.script("b", "echo up; cat; echo at the end");
    spec.stdin = true;
    bench.start_running(&spec).await;
    bench.wait_for_log(&spec, "stdout F up").await;
    bench.runtime.kill(&spec.id).await.expect("it can be ended");
    assert_eq!(bench.log(&spec), "stdout F up\n");
}

pub(crate) async fn what_a_tier_cannot_honour_is_refused_with_the_reason(tier: Tier) {
    let bench = Bench::new(tier);
    let ask = |change: fn(&mut ContainerSpec)| {
        let mut spec = bench.script("a", "true");
        change(&mut spec);
        match bench.runtime.check(&spec) {
            Ok(()) => "fine".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let refused =
        |what: &str, why: &str| format!("{what} is not possible in the {tier:?} tier: {why}");
    let with_mounts = tier != Tier::Processes;
    let highest = tier == Tier::Containers;
    let either = |fine: bool, what: &str, why: &str| {
        if fine {
            "fine".to_owned()
        } else {
            refused(what, why)
        }
    };
    assert_eq!(
        ask(|spec| spec.privileged = true),
        either(
            highest,
            "a privileged container",
            "only the containers tier can give privileges; it needs root with the right to mount"
        ),
    );
    assert_eq!(
        ask(|spec| spec.add_capabilities.push("NET_ADMIN".to_owned())),
        either(
            highest,
            "capability NET_ADMIN",
            "only the containers tier can give capabilities; it needs root with the right to mount"
        ),
    );
    assert_eq!(
        ask(|spec| spec.drop_capabilities.push("NO_SUCH".to_owned())),
        refused(
            "capability NO_SUCH",
            "no kernel has a capability of this name"
        ),
    );
    assert_eq!(
        ask(|spec| spec.read_only_root = true),
        either(
            with_mounts,
            "a read-only root file system",
            "a plain process has the machine's own; use a machine that allows user namespaces"
        ),
    );
    assert_eq!(
        ask(|spec| spec.mounts.push(stead_node::runtime::Mount {
            source: "/somewhere".into(),
            target: "/data".into(),
            read_only: false,
            within: None,
        })),
        either(
            with_mounts,
            "a mount at /data",
            "a plain process has no file system of its own; let the container read its place from $STEAD_MOUNT_DATA, or use a machine that allows user namespaces"
        ),
    );
    assert_eq!(
        ask(|spec| {
            spec.mounts.push(stead_node::runtime::Mount {
                source: "/somewhere".into(),
                target: "/data".into(),
                read_only: false,
                within: None,
            });
            spec.argv = ["sh", "-c", "ls $STEAD_MOUNT_DATA"]
                .map(str::to_owned)
                .to_vec();
        }),
        "fine",
    );
    if tier == Tier::Processes && !rustix::process::geteuid().is_root() {
        let refusal = ask(|spec| spec.user = Some(4321));
        assert!(
            refusal.starts_with("runAsUser 4321 is not possible"),
            "{refusal}"
        );
    } else {
        assert_eq!(ask(|spec| spec.user = Some(4321)), "fine");
    }
}

pub(crate) async fn a_container_runs_as_the_user_that_it_asks_for(tier: Tier) {
    let bench = Bench::new(tier);
    let mut spec = bench.script(
        "a",
        "id -u; id -g; echo mine >/data/file; stat -c %u:%g /data/file",
    );
    spec.user = Some(4321);
    spec.group = Some(8765);
    let volume = bench.volume("data", "/data");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&volume.source, Some(4321), Some(8765)).expect("root may");
    }
    spec.mounts.push(volume);
    assert_eq!(printed(&bench, &spec).await, "4321\n8765\n4321:8765\n");
}

pub(crate) async fn the_probe_finds_that_it_is_possible(tier: Tier) {
    let bench = Bench::new(tier);
    let options = super::options(bench.path());
    let reports = tokio::task::spawn_blocking(move || stead_node::runtime::probe(&options))
        .await
        .expect("a probe ends");
    let report = reports
        .iter()
        .find(|report| report.tier == tier)
        .expect("a report of each tier");
    assert_eq!(report.refused, None);
    let left = std::fs::read_dir(bench.path().join("node"))
        .expect("a folder")
        .flatten();
    assert!(
        !left
            .into_iter()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("probe-"))
    );
}

/// upstream: a profile that allows all but what it names.
pub(crate) async fn a_seccomp_profile_holds(tier: Tier) {
    let bench = Bench::new(tier);
    for (name, seccomp, want) in [
        ("none", Seccomp::Unconfined, "0"),
        ("default", Seccomp::RuntimeDefault, "2"),
    ] {
        let mut spec = bench.script(name, "grep ^Seccomp: /proc/self/status | cut -f2");
        spec.confinement.seccomp = seccomp;
        bench.run(&spec).await;
        assert_eq!(bench.log(&spec), format!("stdout F {want}\n"));
    }
}

pub(crate) async fn what_a_tier_cannot_honour_of_a_pod_is_refused_with_the_reason(tier: Tier) {
    let bench = Bench::new(tier);
    let settings = [
        (
            "hostPID",
            PodSettings {
                host_pid: true,
                ..PodSettings::default()
            },
        ),
        (
            "hostIPC",
            PodSettings {
                host_ipc: true,
                ..PodSettings::default()
            },
        ),
        (
            "shareProcessNamespace",
            PodSettings {
                shared_pid: true,
                ..PodSettings::default()
            },
        ),
        (
            "sysctl net.ipv4.tcp_rmem",
            PodSettings {
                sysctls: vec![("net.ipv4.tcp_rmem".to_owned(), "4096 8192 16384".to_owned())],
                ..PodSettings::default()
            },
        ),
    ];
    for (number, (what, settings)) in settings.into_iter().enumerate() {
        let refused = match tier {
            Tier::Containers => false,
            Tier::Rootless => true,
            Tier::Processes => what.starts_with("sysctl"),
        };
        let name = format!("p{number}");
        let sandbox = PodSandbox {
            settings,
            ..pod(&bench.uid(&name), &name)
        };
        match bench.runtime.prepare(&sandbox).await {
            Ok(_) => assert!(!refused, "{what} was taken"),
            Err(error) => {
                let start = format!("{what} is not possible in the {tier:?} tier: ");
                assert!(refused && error.to_string().starts_with(&start), "{error}");
            }
        }
    }
}
