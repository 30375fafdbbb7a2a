//! What one decision costs, at 100, 1,000 and 5,000 replicas, in the situations that a controller meets most or fears most.
//!
//! `cargo bench -p stead-statefulset` prints, for each, criterion's estimate of the mean and a line of its own: the least, the median
//! and the 99th percentile of single calls, in CPU time of the thread (so that a busy machine does not count), the drop of the answer
//! included. A percentile of means would hide what a percentile is asked for.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{BenchmarkId, Criterion, Throughput};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use stead_statefulset::{Action, Freshness, Objects, Observed, Resource, Step, decide};

/// Replicas of the sets.
const SIZES: [u32; 3] = [100, 1_000, 5_000];
/// Single calls measured, and those before that are not.
const CALLS: usize = 400;
const WARM_UP_CALLS: usize = 20;

/// Something for a set to meet, from a set that is at rest.
type Situation = (&'static str, fn(&mut World));

const SITUATIONS: [Situation; 7] = [
    ("steady", |_| {}),
    ("create ordered", |world| {
        world.manage("OrderedReady");
        world.pods.pop();
        world.claims.pop();
    }),
    ("create parallel", |world| {
        world.pods.clear();
        world.claims.clear();
    }),
    ("roll ordered", |world| {
        world.manage("OrderedReady");
        world.set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
    }),
    ("roll parallel 10%", |world| {
        world.set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
        world.set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = json!("10%");
    }),
    ("scale to 0, claims go", |world| {
        world.set["spec"]["replicas"] = json!(0);
        world.set["spec"]["persistentVolumeClaimRetentionPolicy"] =
            json!({"whenScaled": "Delete", "whenDeleted": "Retain"});
    }),
    ("one pod unready", |world| {
        let middle = world.pods.len() / 2;
        world.pods[middle]["status"]["conditions"][0]["status"] = json!("False");
    }),
];

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    for (name, happens) in SITUATIONS {
        let mut group = criterion.benchmark_group(name);
        for replicas in SIZES {
            let mut world = World::at_rest(replicas);
            happens(&mut world);
            let seen = world.observed();
            group.throughput(Throughput::Elements(u64::from(replicas)));
            group.bench_function(BenchmarkId::from_parameter(replicas), |bencher| {
                bencher.iter(|| decide(black_box(&seen)));
            });
            print_percentiles(name, replicas, &seen);
        }
        group.finish();
    }
    criterion.final_summary();
}

/// Measures single calls, each with the drop of what it answered.
fn print_percentiles(name: &str, replicas: u32, seen: &Observed) {
    let call = |_| {
        let begun = thread_time();
        drop(black_box(decide(black_box(seen))));
        thread_time() - begun
    };
    let mut took: Vec<Duration> = (0..WARM_UP_CALLS + CALLS)
        .map(call)
        .skip(WARM_UP_CALLS)
        .collect();
    took.sort_unstable();
    let at = |hundredths: usize| took[(took.len() - 1) * hundredths / 100].as_secs_f64() * 1e3;
    println!(
        "decide: {name:24} {replicas:>5} replicas, {:>5} steps: least {:>7.3} ms, p50 {:>7.3} ms, p99 {:>7.3} ms of CPU in {CALLS} calls",
        decide(seen).plan.steps().count(),
        at(0),
        at(50),
        at(99),
    );
}

/// The CPU time that this thread has used.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// The objects of one set.
struct World {
    set: Value,
    pods: Vec<Value>,
    claims: Vec<Value>,
    revisions: Vec<Value>,
}

impl World {
    /// A Parallel set whose pods are all ready and whose status says so: made by carrying out what `decide` wants.
    fn at_rest(replicas: u32) -> World {
        let mut world = World {
            set: set(replicas),
            pods: Vec::new(),
            claims: Vec::new(),
            revisions: Vec::new(),
        };
        for _ in 0..2 {
            let seen = world.observed();
            for step in decide(&seen).plan.steps() {
                world.carry_out(&seen, step);
            }
        }
        world
    }

    fn carry_out(&mut self, seen: &Observed, step: &Step) {
        let call = step.call(&seen.set);
        match call.action {
            Action::Create { mut object } => {
                let uid = format!(
                    "0f0e0d0c-0000-4000-8000-{:012}",
                    self.pods.len() + self.claims.len()
                );
                object["metadata"]["uid"] = json!(uid);
                object["metadata"]["resourceVersion"] = json!("1000");
                match call.resource {
                    Resource::Pods => self.pods.push(ready(object)),
                    Resource::Claims => self.claims.push(object),
                    Resource::Revisions => self.revisions.push(object),
                    Resource::StatefulSets => {}
                }
            }
            Action::Patch { patch, .. } => self.set["status"] = patch["status"].clone(),
            Action::Delete { .. } => {}
        }
    }

    fn manage(&mut self, policy: &str) {
        self.set["spec"]["podManagementPolicy"] = json!(policy);
    }

    fn observed(&self) -> Observed {
        let objects = Objects {
            set: &self.set,
            pods: &self.pods,
            claims: &self.claims,
            revisions: &self.revisions,
        };
        let now = Timestamp::from_second(1_800_000_000).unwrap_or_default();
        Observed::parse(objects, now, Freshness::default())
    }
}

fn ready(mut pod: Value) -> Value {
    pod["status"] = json!({"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    pod
}

fn set(replicas: u32) -> Value {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10});
    let container = json!({"name": "app", "image": "app:1", "ports": [{"containerPort": 8080, "name": "http"}],
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "readinessProbe": probe, "livenessProbe": probe,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "config", "mountPath": "/etc/app"}]});
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"namespace": "default", "name": "web", "uid": "5e7", "resourceVersion": "7", "generation": 1},
        "spec": {"replicas": replicas, "serviceName": "web", "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "web"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": "web", "tier": "store"}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 30,
                    "volumes": [{"name": "config", "configMap": {"name": "web"}}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "10Gi"}}}}]}})
}

/// The CPU time of this thread, as criterion's measure.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        thread_time()
    }

    fn end(&self, begun: Duration) -> Duration {
        thread_time() - begun
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        criterion::measurement::WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        criterion::measurement::WallTime.formatter()
    }
}
