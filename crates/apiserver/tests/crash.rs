//! `kill -9` in the middle of concurrent writes, 200 times on one data folder: every acknowledged write is there, and no
//! revision is ever used twice. Runs itself as the server (`--child DIR`); the parent kills it after a number of
//! acknowledgements that differs from round to round.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use stead_apiserver::{ApiServer, Options};

#[path = "support/mod.rs"]
mod support;
use support::{MAPS, config_map, ready, revision, send, send_as};

const ROUNDS: u64 = 200;
const WRITERS: u64 = 8;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.as_slice() {
        [_, flag, dir, round] if flag == "--child" => {
            child(Path::new(dir), round.parse().expect("a round"))
        }
        // `cargo test -- --list` and filters are libtest's; this is one test and always runs.
        _ => parent(),
    }
}

/// What the parent knows from acknowledgements.
#[derive(Default)]
struct Known {
    /// The newest acknowledged revision of each object.
    objects: BTreeMap<String, u64>,
    /// All revisions ever acknowledged.
    revisions: BTreeSet<u64>,
}

fn parent() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut known = Known::default();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        acknowledged += one_life(dir.path(), round, &mut known);
    }
    assert!(acknowledged > ROUNDS, "the servers hardly wrote anything");
    println!(
        "crash: {ROUNDS} kills, {acknowledged} acknowledged writes, {} objects, none lost, no revision used twice",
        known.objects.len()
    );
}

/// Starts a server, checks what it has, lets it write until it is killed. Gives the number of acknowledged writes.
fn one_life(dir: &Path, round: u64, known: &mut Known) -> u64 {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["--child", &dir.display().to_string(), &round.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a server");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut have = BTreeMap::new();
    let mut count = 0;
    let target = 1 + round * 7 % 60;
    let mut killed = false;
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["have", name, revision] => {
                have.insert(
                    (*name).to_owned(),
                    revision.parse::<u64>().expect("a revision"),
                );
            }
            ["ready"] => check(&have, known),
            [word @ ("wrote" | "beat"), name, revision] => {
                let revision = revision.parse().expect("a revision");
                assert!(
                    known.revisions.insert(revision),
                    "round {round}: revision {revision} was used twice"
                );
                if *word == "wrote" {
                    known.objects.insert((*name).to_owned(), revision);
                }
                count += 1;
            }
            // The kill cut the last line short.
            _ => {}
        }
        if count >= target && !killed {
            child.kill().expect("kill -9");
            killed = true;
        }
    }
    child.wait().expect("its end");
    assert!(
        killed,
        "round {round}: the server ended by itself after {count} writes"
    );
    count
}

/// Everything acknowledged is there, at that revision or, by a write whose answer the kill swallowed, a later one.
fn check(have: &BTreeMap<String, u64>, known: &mut Known) {
    for (name, revision) in &known.objects {
        let found = have
            .get(name)
            .unwrap_or_else(|| panic!("{name}, acknowledged at {revision}, is lost"));
        assert!(
            found >= revision,
            "{name} was acknowledged at {revision} and is at {found}"
        );
    }
    // Unacknowledged writes that were stored have used their revisions too.
    known.revisions.extend(have.values().copied());
}

fn child(dir: &Path, round: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let server = ApiServer::open(Options {
            data_dir: Some(dir.to_owned()),
            ..Options::default()
        })
        .expect("the server opens after any crash");
        let server = ready(server).await;
        let (_, list) = send(&server, "GET", MAPS, Value::Null).await;
        for item in list["items"].as_array().expect("items") {
            say(&format!(
                "have {} {}",
                item["metadata"]["name"].as_str().expect("a name"),
                revision(item)
            ));
        }
        say("ready");
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(server.clone(), round, writer)))
            .collect();
        for writer in writers {
            writer.await.expect("a writer");
        }
    });
}

/// Creates and changes objects until the end comes; a little of it is heartbeats that live in memory.
async fn write(server: ApiServer, round: u64, writer: u64) {
    for number in 0_u64.. {
        let name = format!("w{writer}-{}", number % 4);
        let path = format!("{MAPS}/{name}");
        let patch = json!({"data": {"k": format!("{round}-{number}")}});
        let (code, answer) = match send_as(
            &server,
            "PATCH",
            &path,
            "application/merge-patch+json",
            patch,
        )
        .await
        {
            (code, _) if code == 404 => send(&server, "POST", MAPS, config_map(&name, "0")).await,
            answered => answered,
        };
        assert!(code.is_success(), "{code}: {answer}");
        say(&format!("wrote {name} {}", revision(&answer)));
        if number % 5 == 0 {
            beat(&server, round, writer, number).await;
        }
    }
}

async fn beat(server: &ApiServer, round: u64, writer: u64, number: u64) {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": format!("n{round}-{writer}-{number}")}, "spec": {"holderIdentity": "n"}});
    let (code, answer) = send(server, "POST", leases, lease).await;
    assert!(code.is_success(), "{code}: {answer}");
    say(&format!("beat n{writer} {}", revision(&answer)));
}

/// One line, out at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}
