//! Rollouts of large sets: the controller as a process of its own against the API server, beside the same writes sent back to back.

mod floor;
mod lab;
mod part;
mod process;

use std::process::{Command, ExitCode};
use std::time::Duration;

use serde_json::Value;

use self::lab::Lab;
use self::part::Calls;
use self::process::{Part, Usage};

/// What Kubernetes' own controller took on a kube-apiserver 1.36 with two cores and its throttle lifted: not in the same run.
const KUBERNETES: [(&str, [f64; 3]); 2] = [
    ("300 OrderedReady", [5.6, 10.9, 6.6]),
    ("1000 Parallel", [5.1, 69.8, 4.3]),
];
const KUBERNETES_CALLS: &str = "Kubernetes 1.36: 17,900, 3,400 of them conflicting creates";
const KUBERNETES_CPU: f64 = 47.0;
const KUBERNETES_MEMORY_MB: f64 = 132.0;

/// The phases of a set's life here.
const PHASES: [&str; 3] = ["create", "roll", "scale to 0"];

/// Runs it with a release build of this very program.
pub(super) fn run() -> Result<(), String> {
    let root = crate::root();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "-p", "xtask"])
        .current_dir(&root)
        .status()
        .map_err(|error| format!("could not run cargo: {error}"))?;
    if !built.success() {
        return Err(format!("the release build ended with {built}"));
    }
    let program = super::target_dir(&root).join("release/xtask");
    let ended = Command::new(&program)
        .args(["bench", "rollout-here"])
        .status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the bench ended with {status}")),
        Err(error) => Err(format!("could not run {}: {error}", program.display())),
    }
}

/// One of the processes of the bench, when this is one; `None` when it is not.
pub(super) fn part(args: &[String]) -> Option<ExitCode> {
    part::run(args)
}

/// All of it with this build: the figures of a debug build say nothing.
pub(super) async fn here() -> Result<(), String> {
    let mut server = Part::start("server")?;
    let kubeconfig = server.first_line()?;
    let mut controller = Part::start_with("controller", &kubeconfig)?;
    controller.first_line()?;
    let lab = Lab::open(&kubeconfig).await?;
    let mut lives = Vec::new();
    for (name, policy, replicas) in [
        ("ordered", "OrderedReady", 300),
        ("parallel", "Parallel", 1000),
    ] {
        lives.push(live(&lab, &controller, name, policy, replicas).await?);
    }
    let whole = controller.usage()?;
    for life in &lives {
        life.print();
    }
    println!();
    for policy in ["OrderedReady", "Parallel"] {
        scaling(&lab, &controller, policy).await?;
    }
    let calls = Calls::parse(&controller.end()?)?;
    print_whole(&whole, &calls);
    Ok(())
}

/// What one set's life took.
struct Life {
    title: String,
    phases: Vec<Phase>,
}

struct Phase {
    took: Duration,
    floor: Duration,
    used: Usage,
}

async fn live(
    lab: &Lab,
    controller: &Part,
    name: &str,
    policy: &str,
    replicas: u32,
) -> Result<Life, String> {
    let mut phases = Vec::new();
    for (number, phase) in PHASES.iter().enumerate() {
        let before = controller.usage()?;
        let statuses = lab.statuses(name);
        let took = match number {
            0 => lab.create(name, policy, replicas).await?,
            1 => lab.roll(name, replicas).await?,
            _ => lab.scale(name, 0).await?,
        };
        let used = controller.usage()?.since(&before);
        let statuses = lab.statuses(name) - statuses;
        println!("# {replicas} {policy}: {phase} took {took:.1?}, {statuses} statuses of the set");
        phases.push((took, used, statuses));
    }
    lab.delete(name).await?;
    let floors = floor::of(lab, policy, replicas, phases.iter().map(|phase| phase.2)).await?;
    let phases = phases
        .into_iter()
        .zip(floors)
        .map(|((took, used, _), floor)| Phase { took, floor, used });
    Ok(Life {
        title: format!("{replicas} {policy}"),
        phases: phases.collect(),
    })
}

impl Life {
    fn print(&self) {
        let Life { title, phases } = self;
        let kubernetes = KUBERNETES.iter().find(|(name, _)| name == title);
        for (number, phase) in phases.iter().enumerate() {
            let Phase { took, floor, used } = phase;
            let ratio = took.as_secs_f64() / floor.as_secs_f64();
            let theirs = kubernetes.map_or_else(String::new, |(_, all)| {
                format!("; Kubernetes 1.36: {:.1} s", all[number])
            });
            super::figure(
                &format!("{title}: {}", PHASES[number]),
                &format!("{:.2} s", took.as_secs_f64()),
                &format!(
                    "{ratio:.2} x the floor of {:.2} s; {:.2} s of CPU{theirs}",
                    floor.as_secs_f64(),
                    used.cpu_seconds
                ),
            );
        }
    }
}

/// Time and CPU a pod of a large set beside those of a small one.
async fn scaling(lab: &Lab, controller: &Part, policy: &str) -> Result<(), String> {
    let mut a_pod = Vec::new();
    for replicas in [100_u32, 3000] {
        let name = format!("n{replicas}");
        let before = controller.usage()?;
        let took = lab.create(&name, policy, replicas).await?;
        let used = controller.usage()?.since(&before);
        lab.delete(&name).await?;
        let millis = |seconds: f64| seconds * 1e3 / f64::from(replicas);
        a_pod.push((millis(took.as_secs_f64()), millis(used.cpu_seconds)));
    }
    let [(small, small_cpu), (large, large_cpu)] = a_pod[..] else {
        return Err("two sets were to be measured".to_owned());
    };
    super::figure(
        &format!("time a pod at 3,000 replicas, {policy}"),
        &format!("{large:.2} ms"),
        &format!(
            "{:.2} x the {small:.2} ms at 100; CPU {large_cpu:.2} ms beside {small_cpu:.2} ms",
            large / small
        ),
    );
    Ok(())
}

fn print_whole(used: &Usage, calls: &Calls) {
    super::figure(
        "the controller's CPU, both sets",
        &format!("{:.1} s", used.cpu_seconds),
        &format!(
            "{:.2} x Kubernetes' {KUBERNETES_CPU} s",
            used.cpu_seconds / KUBERNETES_CPU
        ),
    );
    super::figure(
        "the controller's peak memory (RSS)",
        &format!("{:.1} MB", used.peak_mb),
        &format!(
            "{:.2} x Kubernetes' {KUBERNETES_MEMORY_MB} MB",
            used.peak_mb / KUBERNETES_MEMORY_MB
        ),
    );
    println!("calls of the whole run, the sets of 100 and 3,000 included ({KUBERNETES_CALLS}):");
    for ((method, code), count) in &calls.0 {
        println!("    {method:<6} {code:>3}  {count:>7}");
    }
    super::figure(
        "conflicting creates",
        &calls.count("POST", 409).to_string(),
        "goal: none",
    );
}

/// The text at a place of an answer.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}
