//! Logs, exec, attach and port forwarding, through the built binary in the tier that every machine has.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

mod stead;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use stead::Stead;

/// A pod `p` whose container `main` runs this shell text.
fn pod(program: &str, extra: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: stead.dev/host
      command: ["/bin/sh", "-c", {program:?}]
      {extra}
"#
    )
}

/// A Stead whose logs go on in another file every few lines, with this pod running.
fn with_pod(manifest: &str) -> Stead {
    let stead = Stead::new();
    stead.ok(&[
        "up",
        "-d",
        "--listen",
        "127.0.0.1:0",
        "--tier",
        "processes",
        "--container-log-max-size",
        "1Ki",
        "--container-log-max-files",
        "1000",
    ]);
    assert_eq!(stead.feed(&["apply", "-f", "-"], manifest).code, 0);
    stead
}

/// A command that goes on while the test does; ended when dropped.
struct Running(Child);

impl Running {
    fn start(stead: &Stead, args: &[&str]) -> Running {
        let mut command = stead.command(args);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Running(command.spawn().unwrap())
    }

    fn out(&mut self) -> BufReader<std::process::ChildStdout> {
        BufReader::new(self.0.stdout.take().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_follower_hears_every_line_across_rotations_and_ends_with_the_container() {
    let program = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; printf end";
    let stead = with_pod(&pod(program, "").replace("spec:", "spec:\n  restartPolicy: Never"));
    stead.until(&["logs", "p"], "line 0\n");
    let want: String = (0..2000).map(|i| format!("line {i}\n")).collect::<String>() + "end";
    assert_eq!(stead.ok(&["logs", "-f", "p"]), want);
    assert_eq!(stead.ok(&["logs", "p"]), want, "the same again");
    assert_eq!(
        stead.ok(&["logs", "p", "--tail", "3"]),
        "line 1998\nline 1999\nend"
    );
    assert_eq!(stead.ok(&["logs", "p", "--limit-bytes", "9"]), "line 0\nli");
    assert_eq!(stead.ok(&["logs", "p", "--since", "1h"]), want);
    let stamped = stead.ok(&["logs", "p", "--timestamps", "--tail", "2"]);
    let time = stamped.split_once(' ').unwrap().0;
    let since = stead.ok(&["logs", "p", "--since-time", time]);
    assert!(
        since.ends_with("line 1999\nend") && want.ends_with(&since),
        "{since}"
    );
    let prefixed = stead.ok(&["logs", "p", "--prefix", "--tail", "2"]);
    assert_eq!(prefixed, "[pod/p/main] line 1999\n[pod/p/main] end");
    let files = std::fs::read_dir(stead.data_dir.join("node/logs")).unwrap();
    assert_eq!(files.count(), 1, "one pod has one folder of logs");
}

#[test]
fn what_cannot_be_read_or_run_is_refused_in_the_kubelets_words() {
    let stead = with_pod(&pod("echo up; sleep 3600", ""));
    stead.until(&["logs", "p"], "up\n");
    for (args, words) in [
        (
            &["logs", "p", "-c", "nope"][..],
            "container nope is not valid for pod p",
        ),
        (
            &["logs", "p", "-p"],
            "previous terminated container \"main\" in pod \"p\" not found",
        ),
        (
            &["logs", "p", "--tail", "1", "--limit-bytes", "0"],
            "limitBytes: Invalid value: 0: must be greater than 0",
        ),
        (&["logs", "p", "--since-time", "today"], "sinceTime"),
        (
            &["exec", "p", "--", "/no/such/program"],
            "error executing command in container",
        ),
        (&["port-forward", "nobody", "80"], "there is no pod nobody"),
    ] {
        let said = stead.run(args);
        assert!(
            said.code != 0 && said.err.contains(words),
            "{args:?}: {said:?}"
        );
    }
}

#[test]
fn the_life_before_the_restart_is_told_apart() {
    let program = "if [ -e $HOME/stead-was-here ]; then echo second; sleep 3600; fi; echo first; : > $HOME/stead-was-here; exit 3";
    let home = tempfile::tempdir().unwrap();
    let extra = format!("env: [{{name: HOME, value: {:?}}}]", home.path());
    let stead = with_pod(&pod(program, &extra));
    stead.until(&["logs", "p"], "second\n");
    assert_eq!(stead.ok(&["logs", "p"]), "second\n");
    assert_eq!(stead.ok(&["logs", "p", "--previous"]), "first\n");
}

#[test]
fn several_attachers_hear_the_container_and_one_speaks_to_it() {
    let program = "echo before; while read line; do echo heard $line; echo aside >&2; done; echo over; sleep 3600";
    let stead = with_pod(&pod(program, "stdin: true\n      stdinOnce: true"));
    stead.until(&["logs", "p"], "before\n");
    let mut listener = Running::start(&stead, &["attach", "p"]);
    let mut heard = listener.out();
    let mut speaker = Running::start(&stead, &["attach", "-i", "p"]);
    let mut answers = speaker.out();
    let mut input = speaker.0.stdin.take().unwrap();
    let mut line = String::new();
    // Until the listener is attached for sure, something is said again and again.
    let said = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = std::sync::Arc::clone(&said);
    let waiting = std::thread::spawn(move || {
        heard.read_line(&mut line).unwrap();
        told.store(true, std::sync::atomic::Ordering::SeqCst);
        (heard, line)
    });
    while !said.load(std::sync::atomic::Ordering::SeqCst) {
        writeln!(input, "hello").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert_eq!(
            answer, "heard hello\n",
            "what was written before is not told"
        );
    }
    let (mut heard, line) = waiting.join().unwrap();
    assert_eq!(line, "heard hello\n");
    // The one that spoke goes: the input was for once.
    drop(input);
    let mut rest = String::new();
    while !rest.ends_with("over\n") {
        assert!(
            heard.read_line(&mut rest).unwrap() > 0,
            "it ended with {rest:?}"
        );
    }
    stead.ok(&["delete", "pod", "p"]);
    assert_eq!(
        listener.0.wait().unwrap().code(),
        Some(0),
        "its end is no failure"
    );
}

#[test]
fn a_program_inside_has_streams_and_a_code_of_its_own() {
    let stead = with_pod(&pod("echo up; sleep 3600", ""));
    stead.until(&["logs", "p"], "up\n");
    let said = stead.feed(
        &[
            "exec",
            "-i",
            "p",
            "--",
            "/bin/sh",
            "-c",
            "cat; echo aside >&2; exit 7",
        ],
        "typed\n",
    );
    assert_eq!((said.code, said.out.as_str()), (7, "typed\n"));
    assert!(said.err.contains("aside\n"), "{said:?}");
    let large = "0123456789abcdef".repeat(1 << 16);
    let said = stead.feed(&["exec", "-i", "p", "--", "wc", "-c"], &large);
    assert_eq!((said.code, said.out.trim()), (0, "1048576"));
}

#[test]
fn a_program_whose_asker_vanishes_or_whose_pod_goes_is_ended() {
    let stead = with_pod(&pod("echo up; sleep 3600", ""));
    stead.until(&["logs", "p"], "up\n");
    let endless = &[
        "exec",
        "-i",
        "p",
        "--",
        "/bin/sh",
        "-c",
        "echo $$; sleep 3600 & wait",
    ];
    let mut asker = Running::start(&stead, endless);
    let mut pid = String::new();
    asker.out().read_line(&mut pid).unwrap();
    let lives = |pid: &str| std::path::Path::new("/proc").join(pid.trim()).exists();
    assert!(lives(&pid));
    drop(asker);
    wait_until(|| !lives(&pid));

    let mut asker = Running::start(&stead, endless);
    asker.out().read_line(&mut pid).unwrap();
    stead.ok(&["delete", "pod", "p"]);
    assert_eq!(asker.0.wait().unwrap().code(), Some(137));
}

#[test]
fn ports_lead_to_the_pods_own_address() {
    let stead = with_pod(&pod("echo up; sleep 3600", ""));
    stead.until(&["logs", "p"], "up\n");
    // In this tier pods are on the machine's own loopback: the test answers in the pod's place.
    let address = stead.get("pod/p")["status"]["podIP"]
        .as_str()
        .unwrap()
        .to_owned();
    let server = TcpListener::bind((address.as_str(), 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let mut forwarding = Running::start(&stead, &["port-forward", "p", &format!(":{port}"), ":1"]);
    let mut out = forwarding.out();
    let mut address = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let word = line.strip_prefix("Forwarding from ").unwrap();
        word.split_once(' ').unwrap().0.to_owned()
    };
    let (here, nobody) = (address(), address());
    let streams: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(&here).unwrap()).collect();
    for (number, mut stream) in streams.iter().enumerate() {
        writeln!(stream, "hello from {number}").unwrap();
    }
    for (number, stream) in streams.iter().enumerate() {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert_eq!(line, format!("hello from {number}\n"));
        stream.shutdown(Shutdown::Both).unwrap();
    }
    let mut refused = Vec::new();
    TcpStream::connect(&nobody)
        .unwrap()
        .read_to_end(&mut refused)
        .unwrap();
    assert!(refused.is_empty());
}

/// Looks again until it is so; fails after a minute.
fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "it never came so far");
        std::thread::yield_now();
    }
}
