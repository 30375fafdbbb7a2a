//! What the controller counts, as OpenMetrics text: calls by verb and code, rounds, the queue, why sets wait.
//!
//! Names are upstream's where it has them: `rest_client_requests_total` of client-go, `workqueue_*` of its queues.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;

use crate::resource::Key;

/// Upper bounds of the buckets for durations, in seconds. upstream: ten times apart from 10 ns to 10 s.
const BUCKETS: [f64; 8] = [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0];

/// The counts; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    /// By method and code; 0 where there was no answer.
    calls: BTreeMap<(String, u16), u64>,
    adds: u64,
    retries: u64,
    depth: u64,
    queued: Durations,
    worked: Durations,
    /// Why each set waits, as of its last round.
    blocked: BTreeMap<Key, Vec<&'static str>>,
}

/// A histogram of durations.
#[derive(Debug, Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Durations {
    fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        for (bucket, bound) in self.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.seconds += seconds;
    }

    fn render(&self, name: &str, out: &mut String) {
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            line(
                out,
                &format!("{name}_bucket{{{NAME},le=\"{bound:?}\"}}"),
                bucket,
            );
        }
        line(
            out,
            &format!("{name}_bucket{{{NAME},le=\"+Inf\"}}"),
            self.count,
        );
        line(out, &format!("{name}_count{{{NAME}}}"), self.count);
        line(out, &format!("{name}_sum{{{NAME}}}"), self.seconds);
    }
}

/// The label of the queue. upstream: the same.
const NAME: &str = "name=\"statefulset\"";

impl Metrics {
    /// A client whose calls are counted.
    pub fn counted(&self, client: kube::Client) -> kube::Client {
        let namespace = client.default_namespace().to_owned();
        let metrics = self.clone();
        let inner = client;
        kube::Client::new(Counted { inner, metrics }, namespace)
    }

    /// Calls by method and code so far; the code is 0 where there was no answer.
    pub fn calls(&self) -> BTreeMap<(String, u16), u64> {
        self.lock().calls.clone()
    }

    /// A key was wanted; so many wait now.
    pub(crate) fn added(&self, depth: usize) {
        let mut counts = self.lock();
        counts.adds += 1;
        counts.depth = depth as u64;
    }

    /// A turn began after the key had waited.
    pub(crate) fn begun(&self, waited: Duration, depth: usize) {
        let mut counts = self.lock();
        counts.queued.observe(waited);
        counts.depth = depth as u64;
    }

    /// A turn ended.
    pub(crate) fn ended(&self, took: Duration, again: bool) {
        let mut counts = self.lock();
        counts.worked.observe(took);
        counts.retries += u64::from(again);
    }

    /// Why a set waits; nothing for a set that is done or gone.
    pub(crate) fn blocked(&self, set: &Key, mut reasons: Vec<&'static str>) {
        reasons.sort_unstable();
        reasons.dedup();
        let blocked = &mut self.lock().blocked;
        if reasons.is_empty() {
            blocked.remove(set);
        } else {
            blocked.insert(set.clone(), reasons);
        }
    }

    /// All of it, as OpenMetrics text.
    pub fn render(&self) -> String {
        let counts = self.lock();
        let mut out = String::new();
        family(
            &mut out,
            "rest_client_requests",
            "counter",
            "Calls to the API.",
        );
        for ((method, code), count) in &counts.calls {
            let code = match code {
                0 => "<error>".to_owned(),
                code => code.to_string(),
            };
            let name = format!("rest_client_requests_total{{code=\"{code}\",method=\"{method}\"}}");
            line(&mut out, &name, count);
        }
        family(
            &mut out,
            "workqueue_adds",
            "counter",
            "How often a set was wanted.",
        );
        line(
            &mut out,
            &format!("workqueue_adds_total{{{NAME}}}"),
            counts.adds,
        );
        family(
            &mut out,
            "workqueue_retries",
            "counter",
            "Rounds that are tried again.",
        );
        line(
            &mut out,
            &format!("workqueue_retries_total{{{NAME}}}"),
            counts.retries,
        );
        family(
            &mut out,
            "workqueue_depth",
            "gauge",
            "Sets that wait for their round.",
        );
        line(
            &mut out,
            &format!("workqueue_depth{{{NAME}}}"),
            counts.depth,
        );
        let name = "workqueue_queue_duration_seconds";
        family(
            &mut out,
            name,
            "histogram",
            "How long sets waited for their round.",
        );
        counts.queued.render(name, &mut out);
        let name = "workqueue_work_duration_seconds";
        family(&mut out, name, "histogram", "How long rounds took.");
        counts.worked.render(name, &mut out);
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for reason in counts.blocked.values().flatten() {
            *reasons.entry(reason).or_default() += 1;
        }
        family(
            &mut out,
            "stead_statefulset_blocked",
            "gauge",
            "Sets that wait, by reason.",
        );
        for (reason, sets) in reasons {
            line(
                &mut out,
                &format!("stead_statefulset_blocked{{reason=\"{reason}\"}}"),
                sets,
            );
        }
        out.push_str("# EOF\n");
        out
    }

    fn called(&self, method: &http::Method, code: u16) {
        let key = (method.to_string(), code);
        *self.lock().calls.entry(key).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a text cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{name} {value}");
}

/// A client that counts.
#[derive(Clone)]
struct Counted {
    inner: kube::Client,
    metrics: Metrics,
}

impl tower::Service<Request<Body>> for Counted {
    type Response = Response<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Response<Body>, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Counted { inner, metrics } = self.clone();
        Box::pin(async move {
            let method = request.method().clone();
            let answer = inner.send(request).await;
            let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
            metrics.called(&method, code);
            answer.map_err(Into::into)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_one_family_after_another_and_ends_with_its_mark() {
        let metrics = Metrics::default();
        metrics.called(&http::Method::POST, 201);
        metrics.called(&http::Method::POST, 201);
        metrics.called(&http::Method::GET, 0);
        metrics.added(3);
        metrics.ended(Duration::from_millis(5), true);
        metrics.blocked(&Key::new("d", "web"), vec!["NotReady", "NotReady"]);
        metrics.blocked(&Key::new("d", "db"), vec!["NotReady"]);
        let text = metrics.render();
        for wanted in [
            "rest_client_requests_total{code=\"201\",method=\"POST\"} 2\n",
            "rest_client_requests_total{code=\"<error>\",method=\"GET\"} 1\n",
            "workqueue_depth{name=\"statefulset\"} 3\n",
            "workqueue_work_duration_seconds_bucket{name=\"statefulset\",le=\"0.001\"} 0\n",
            "workqueue_work_duration_seconds_bucket{name=\"statefulset\",le=\"0.01\"} 1\n",
            "workqueue_retries_total{name=\"statefulset\"} 1\n",
            "stead_statefulset_blocked{reason=\"NotReady\"} 2\n",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
        metrics.blocked(&Key::new("d", "web"), Vec::new());
        metrics.blocked(&Key::new("d", "db"), Vec::new());
        assert!(!metrics.render().contains("NotReady"));
    }
}
