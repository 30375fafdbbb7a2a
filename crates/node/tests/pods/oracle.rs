//! The recorded lives under a real kubelet, lived in the simulation.
//!
//! Left out are lives that the scheduler decides, and the texts of termination messages, which need a real shell.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use serde_json::Value;

use crate::summary;
use crate::world::World;

/// Decided before any node is asked.
const SCHEDULER: [&str; 3] = ["node-selector", "unbound-claim", "missing-claim"];

fn recorded() -> Vec<Value> {
    let folder = std::env::var_os("STEAD_ORACLE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle"),
        PathBuf::from,
    );
    let path = folder.join("pod-lives.jsonl.gz");
    let file = std::fs::File::open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; set STEAD_ORACLE", path.display()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("a gzip file");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

fn live(life: &Value) -> (Value, Vec<String>) {
    let text = life["pod"]
        .to_string()
        .replace("\"IMAGE\"", "\"stead.dev/host\"");
    let mut pod: Value = serde_json::from_str(&text).expect("a pod");
    pod["metadata"]["labels"] = serde_json::json!({"life": life["life"]});
    let default_limits = |container: &mut Value| {
        let limits = container["resources"]["limits"].clone();
        for (name, amount) in limits.as_object().into_iter().flatten() {
            if container["resources"]["requests"][name].is_null() {
                container["resources"]["requests"][name] = amount.clone();
            }
        }
    };
    pod["spec"]["containers"]
        .as_array_mut()
        .expect("containers")
        .iter_mut()
        .for_each(default_limits);
    let bound_by_hand = !pod["spec"]["nodeName"].is_null();
    let mut world = World::new(pod);
    if bound_by_hand {
        world.forget_scheduling();
    } else {
        world
            .events
            .insert(("Normal".to_owned(), "Scheduled".to_owned()));
    }
    let mut ends = false;
    for action in life["actions"].as_array().expect("actions") {
        let what = action[1].as_str().expect("a word");
        world.until(action[0].as_f64().expect("seconds"));
        world.act(what);
        ends |= ["delete", "force", "unfinalize"].contains(&what);
    }
    let seconds = life["seconds"].as_f64().expect("seconds").max(
        life["actions"]
            .as_array()
            .and_then(|a| a.last())
            .map_or(0.0, |a| a[0].as_f64().unwrap_or(0.0)),
    );
    world.until(if ends { seconds + 15.0 } else { seconds });
    (
        summary::of(&world.trace, &world.events, !world.in_api),
        world.log,
    )
}

/// Lives that loop are compared as the oracle's own tool does it.
fn is_same(key: &str, want: &Value, got: &Value, loops: bool) -> bool {
    let maps = |a: &Value, b: &Value| a.as_object().cloned().zip(b.as_object().cloned());
    match (key, loops) {
        ("containers", true) => maps(want, got).is_some_and(|(want, got)| {
            want.len() == got.len()
                && want.iter().all(|(name, want)| {
                    let (Some(want), Some(got)) =
                        (want.as_array(), got.get(name).and_then(Value::as_array))
                    else {
                        return false;
                    };
                    let upto = want.len().min(got.len()).saturating_sub(1);
                    want[..upto] == got[..upto]
                })
        }),
        ("restarts", true) => maps(want, got).is_some_and(|(want, got)| {
            want.iter().all(|(name, count)| {
                let got = got.get(name).and_then(Value::as_i64).unwrap_or(-99);
                (count.as_i64().unwrap_or(0) - got).abs() <= 1
            })
        }),
        ("ready" | "conditions", true) => true,
        _ => want == got,
    }
}

#[test]
fn every_life_that_a_node_decides_is_lived_as_under_the_kubelet() {
    let mut failed = BTreeMap::new();
    let lives = recorded();
    let own: Vec<_> = lives
        .iter()
        .filter(|l| !SCHEDULER.iter().any(|name| l["life"] == *name))
        .collect();
    for life in &own {
        let want = &life["summary"];
        let text = want["containers"].to_string();
        let loops = text.contains("CrashLoopBackOff") || text.contains("RunContainerError");
        let (got, log) = live(life);
        let wrong: Vec<String> = want
            .as_object()
            .expect("a summary")
            .iter()
            .filter(|(key, _)| *key != "messages")
            .filter(|(key, want)| !is_same(key, want, &got[key.as_str()], loops))
            .map(|(key, want)| format!("  {key}\n    want {want}\n    got  {}", got[key.as_str()]))
            .collect();
        if !wrong.is_empty() {
            failed.insert(
                life["life"].to_string(),
                format!("{}\n  {}", wrong.join("\n"), log.join("\n  ")),
            );
        }
    }
    let report: String = failed
        .iter()
        .map(|(name, why)| format!("{name}\n{why}\n"))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} lives differ:\n{report}",
        failed.len(),
        own.len()
    );
    assert!(own.len() >= 56, "only {} lives were found", own.len());
}
