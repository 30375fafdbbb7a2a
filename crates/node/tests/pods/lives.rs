//! Lives told as text: what a pod's containers do, what is done to it, and every step and status that came of it.
//!
//! Above `----`: a pod's fields as `key value` (YAML-free on purpose), containers as `name: script`, then `at SECONDS act`.
//! Below: phases, readiness, states of each container, and the steps that matter to an operator.

use serde_json::{Value, json};

use crate::summary;
use crate::world::World;

/// Lives `story` and compares what came of it with the text below its line.
fn check(story: &str) {
    let (told, expected) = story
        .split_once("----\n")
        .expect("a line ---- between story and outcome");
    let mut pod =
        json!({"metadata": {}, "spec": {"containers": [], "terminationGracePeriodSeconds": 2}});
    let mut acts: Vec<(f64, String)> = Vec::new();
    for line in told
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "restart" => pod["spec"]["restartPolicy"] = json!(rest),
            // `rule CONTAINER CODE...`: it is started again after these exit codes.
            "rule" => {
                let mut words = rest.split_whitespace();
                let name = words.next().expect("a name");
                let codes: Vec<i32> = words.map(|code| code.parse().expect("a code")).collect();
                for list in ["containers", "initContainers"] {
                    for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                        if container["name"] == name {
                            container["restartPolicy"] = json!("Never");
                            container["restartPolicyRules"] = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": codes}}]);
                        }
                    }
                }
            }
            "grace" => {
                pod["spec"]["terminationGracePeriodSeconds"] =
                    json!(rest.parse::<i64>().expect("seconds"))
            }
            "at" => {
                let (at, act) = rest.split_once(' ').expect("at SECONDS ACT");
                acts.push((at.parse().expect("seconds"), act.to_owned()));
            }
            "init" | "sidecar" | "container" => add(&mut pod, word, rest),
            other => panic!("no such word: {other}"),
        }
    }
    assert_eq!(outcome(pod, &acts), expected, "{told}");
}

/// `NAME [probe=COMMAND] [stop=COMMAND]: SCRIPT`
fn add(pod: &mut Value, kind: &str, text: &str) {
    let (head, script) = text.split_once(": ").expect("NAME: SCRIPT");
    let mut words = head.split_whitespace();
    let mut container = json!({"name": words.next().expect("a name"), "image": "stead.dev/host", "command": ["sh", "-c", script]});
    for word in words {
        let exec =
            |command: &str| json!({"exec": {"command": ["sh", "-c", command.replace('_', " ")]}});
        let probe = |command: &str| {
            let mut probe = exec(command);
            probe["periodSeconds"] = json!(1);
            probe["failureThreshold"] = json!(1);
            probe
        };
        match word.split_once('=').expect("KEY=COMMAND") {
            ("ready", command) => container["readinessProbe"] = probe(command),
            ("live", command) => container["livenessProbe"] = probe(command),
            ("image", name) => container["image"] = json!(name),
            ("stop", command) => container["lifecycle"]["preStop"] = exec(command),
            (other, _) => panic!("no such word: {other}"),
        }
    }
    let list = if kind == "container" {
        "containers"
    } else {
        "initContainers"
    };
    if kind == "sidecar" {
        container["restartPolicy"] = json!("Always");
    }
    match &mut pod["spec"][list] {
        Value::Array(all) => all.push(container),
        none => *none = json!([container]),
    }
}

fn outcome(pod: Value, acts: &[(f64, String)]) -> String {
    let mut world = World::new(pod);
    for (at, act) in acts {
        world.until(*at);
        if act != "end" {
            world.act(act);
        }
    }
    let summary = summary::of(&world.trace, &world.events, !world.in_api);
    let words = |list: &Value| {
        let word = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let parts = parts
                    .iter()
                    .map(|p| p.as_str().map_or_else(|| p.to_string(), str::to_owned));
                parts.collect::<Vec<_>>().join("/")
            }
            other => other.to_string(),
        };
        list.as_array()
            .into_iter()
            .flatten()
            .map(word)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut text = format!(
        "phase {}\nready {}\n",
        words(&summary["phases"]),
        words(&summary["ready"])
    );
    for (name, states) in summary["containers"].as_object().expect("containers") {
        text.push_str(&format!("{name} {}\n", words(states)));
    }
    for line in world
        .log
        .iter()
        .filter(|line| !line.contains("event Normal"))
    {
        let line = line.split(": ").next().unwrap_or(line);
        text.push_str(&format!("{line}\n"));
    }
    text
}

#[test]
fn a_pod_is_stopped_in_its_grace_and_killed_after_it() {
    check(
        "grace 3
         container deaf: trap '' TERM; while :
         container good: trap 'exit 0' TERM; while :
         at 10 delete
         at 20 end
----
phase Pending Running Failed
ready False True False
deaf running terminated/Error/137
good running terminated/Completed/0
0.0 start deaf 0
0.0 start good 0
10.0 signal deaf 15
10.0 signal good 15
13.0 kill deaf
13.0 release
13.0 remove
",
    );
}

#[test]
fn sidecars_come_up_first_and_go_last_in_reverse() {
    check(
        "sidecar one: trap 'exit 0' TERM; while :
         init prepare: sleep 1
         sidecar two: trap 'exit 0' TERM; while :
         container main: trap 'exit 0' TERM; while :
         at 5 delete
         at 9 end
----
phase Pending Running Succeeded
ready False True False
main running terminated/Completed/0
one running terminated/Completed/0
prepare running terminated/Completed/0
two running terminated/Completed/0
0.0 start one 0
0.0 start prepare 0
1.0 start two 0
1.0 start main 0
5.0 signal main 15
5.0 signal two 15
5.1 signal one 15
5.2 release
5.2 remove
",
    );
}

#[test]
fn a_pre_stop_hook_runs_before_the_signal_and_within_the_grace() {
    check(
        "grace 5
         container quick stop=sleep_1: trap 'exit 0' TERM; while :
         container hung stop=sleep_60: trap 'exit 0' TERM; while :
         at 4 delete
         at 20 end
----
phase Pending Running Succeeded
ready False True False
hung running terminated/Completed/0
quick running terminated/Completed/0
0.0 start quick 0
0.0 start hung 0
5.0 signal quick 15
9.0 event Warning FailedPreStopHook
9.0 signal hung 15
9.1 release
9.1 remove
",
    );
}

#[test]
fn a_crash_loop_waits_ten_twenty_forty_seconds() {
    check(
        "container c: exit 1
         at 75 end
----
phase Pending Running
ready False True False True False True False True False True False
c running terminated/Error/1 running terminated/Error/1 waiting/CrashLoopBackOff running terminated/Error/1 waiting/CrashLoopBackOff running terminated/Error/1 waiting/CrashLoopBackOff running terminated/Error/1
0.0 start c 0
0.0 start c 1
0.0 event Warning BackOff
10.0 start c 2
10.0 event Warning BackOff
30.0 start c 3
30.0 event Warning BackOff
70.0 start c 4
70.0 event Warning BackOff
",
    );
}

#[test]
fn an_image_that_cannot_be_had_is_asked_for_again_ever_more_rarely() {
    check(
        "container c image=example.com/db:1: true
         at 25 end
----
phase Pending
ready False
c waiting/ErrImagePull waiting/ImagePullBackOff waiting/ErrImagePull
0.0 event Warning Failed
0.0 event Warning Failed
0.0 event Warning Failed
10.0 event Warning Failed
10.0 event Warning Failed
10.0 event Warning Failed
",
    );
}

#[test]
fn an_init_container_that_fails_is_tried_again_before_anything_else_starts() {
    check(
        "restart OnFailure
         init i: exit 3
         container c: while :
         at 9 end
----
phase Pending
ready False
c 
i running terminated/Error/3 running terminated/Error/3
0.0 start i 0
0.0 start i 1
0.0 event Warning BackOff
",
    );
}

#[test]
fn a_forced_deletion_leaves_a_second_to_go() {
    check(
        "grace 30
         container c: trap '' TERM; while :
         at 3 force
         at 9 end
----
phase Pending Running
ready False True
c running
0.0 start c 0
3.0 signal c 15
4.0 kill c
4.0 release
",
    );
}

#[test]
fn init_containers_run_again_after_the_machine_was_started_anew() {
    check(
        "init prepare: sleep 1
         sidecar proxy: while :
         container main: while :
         at 5 reboot
         at 9 end
----
phase Pending Running
ready False True False True
main running terminated/Error/137 running
prepare running terminated/Completed/0 running terminated/Completed/0
proxy running terminated/Error/137 running
0.0 start prepare 0
1.0 start proxy 0
1.0 start main 0
5.0 start prepare 1
6.0 start proxy 1
6.0 start main 1
",
    );
}

#[test]
fn a_pod_that_takes_too_much_of_the_disk_is_evicted_within_a_second() {
    check(
        "grace 30
         container c: trap '' TERM; while :
         at 4 evict
         at 9 end
----
phase Pending Running Failed
ready False True False
c running terminated/Error/137
0.0 start c 0
4.0 event Warning Evicted
4.0 signal c 15
5.0 kill c
5.0 release
",
    );
}

#[test]
fn a_container_is_started_again_by_its_own_rules() {
    check(
        "restart Never
         container c: exit 42
         container d: sleep 1; exit 1
         rule c 42
         rule d 7
         at 5 end
----
phase Pending Running
ready False True False True False
c running terminated/Error/42 running terminated/Error/42 waiting/CrashLoopBackOff
d running terminated/Error/1
0.0 start c 0
0.0 start d 0
0.0 start c 1
0.0 event Warning BackOff
",
    );
}

#[test]
fn an_init_container_that_is_not_started_again_fails_the_pod() {
    check(
        "init i: exit 3
         container c: while :
         rule i 7
         at 5 end
----
phase Pending Failed
ready False
c 
i running terminated/Error/3
0.0 start i 0
0.0 release
",
    );
}
