//! Kubernetes Events: written in the background, repeated ones counted instead of written again, floods cut off.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::backpressure::Backpressure;
use crate::call::{self, Method, Request};
use crate::resource::{Key, Resource, text};

/// How many different events are remembered for counting. upstream: 4096.
const REMEMBERED: usize = 4096;
/// Events that one object may cause at once. upstream: 25.
const BURST: f64 = 25.0;
/// One more event of an object is allowed after this time. upstream: 300 s.
const REFILL: Duration = Duration::from_secs(300);
/// Events that may wait to be written; more are dropped.
const WAITING: usize = 1024;

/// Normal or Warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody may have to act.
    Warning,
}

impl EventType {
    fn text(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// One event of one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KubeEvent {
    /// `involvedObject`.
    pub about: ObjectReference,
    /// Normal or Warning.
    pub event_type: EventType,
    /// One word in CamelCase, upstream's where it has one.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

/// The object that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectReference {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`; not part of what makes two events the same.
    pub resource_version: String,
}

impl ObjectReference {
    /// The reference to an object that carries its `apiVersion` and `kind`.
    pub fn of(object: &Value) -> ObjectReference {
        ObjectReference {
            api_version: text(object, "/apiVersion").to_owned(),
            kind: text(object, "/kind").to_owned(),
            key: Key::of(object),
            uid: text(object, "/metadata/uid").to_owned(),
            resource_version: text(object, "/metadata/resourceVersion").to_owned(),
        }
    }
}

/// Takes events and never waits; clones share it.
#[derive(Clone)]
pub struct Recorder {
    events: mpsc::Sender<KubeEvent>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// A recorder for one component, and the task that writes for it until every recorder is dropped.
    pub fn new(
        client: kube::Client,
        component: &'static str,
    ) -> (Recorder, impl Future<Output = ()>) {
        Recorder::patient(client, component, Backpressure::default())
    }

    /// The same, for one whose other calls share what the API asks of them.
    pub fn patient(
        client: kube::Client,
        component: &'static str,
        backpressure: Backpressure,
    ) -> (Recorder, impl Future<Output = ()>) {
        let (events, mut waiting) = mpsc::channel(WAITING);
        let writing = async move {
            let mut correlator = Correlator::default();
            while let Some(event) = waiting.recv().await {
                let Some(write) = correlator.next(event, component, Timestamp::now()) else {
                    continue;
                };
                backpressure.welcome().await;
                // An event is a courtesy: one that cannot be written is not worth a retry.
                if let Err(error) = write.send(&client).await {
                    backpressure.note(&error);
                    tracing::debug!(%error, "an event was not written");
                }
            }
        };
        (
            Recorder {
                events,
                dropped: Arc::new(AtomicU64::new(0)),
            },
            writing,
        )
    }

    /// Records an event.
    pub fn record(&self, event: KubeEvent) {
        if self.events.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records an event about an object that carries its `apiVersion` and `kind`.
    pub fn about(
        &self,
        object: &Value,
        event_type: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.record(KubeEvent {
            about: ObjectReference::of(object),
            event_type,
            reason,
            message: message.into(),
        });
    }

    /// Events that were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// What makes two events the same: everything but the resource version.
type Fingerprint = (String, Key, String, EventType, &'static str, String);

/// Tells new events from repeated ones, and floods from news.
#[derive(Default)]
struct Correlator {
    known: HashMap<Fingerprint, Known>,
    /// Oldest first, for forgetting.
    order: VecDeque<Fingerprint>,
    budgets: HashMap<String, Budget>,
}

struct Known {
    key: Key,
    count: u64,
}

struct Budget {
    tokens: f64,
    since: Timestamp,
}

/// One write of the recorder.
enum Write {
    Create(Value),
    /// Counts a known event up; creates it again when it has expired meanwhile.
    Count {
        key: Key,
        patch: Value,
        otherwise: Value,
    },
}

impl Write {
    async fn send(self, client: &kube::Client) -> Result<(), call::CallError> {
        let create = match self {
            Write::Create(event) => event,
            Write::Count {
                key,
                patch,
                otherwise,
            } => {
                let request = Request::patch(Method::MergePatch, &Resource::EVENTS, &key, patch);
                match call::call(client, request).await {
                    Err(error) if error.is_not_found() => otherwise,
                    other => return other.map(drop),
                }
            }
        };
        call::call(client, Request::create(&Resource::EVENTS, create))
            .await
            .map(drop)
    }
}

impl Correlator {
    /// The write for an event; `None` when its object has used up what it may cause.
    fn next(&mut self, event: KubeEvent, component: &str, now: Timestamp) -> Option<Write> {
        self.budget(&event.about.uid, now)?;
        let fingerprint = (
            event.about.uid.clone(),
            event.about.key.clone(),
            event.about.kind.clone(),
            event.event_type,
            event.reason,
            event.message.clone(),
        );
        if let Some(known) = self.known.get_mut(&fingerprint) {
            known.count += 1;
            let patch = json!({"count": known.count, "lastTimestamp": now_text(now)});
            let otherwise = render(&event, component, &known.key, known.count, now);
            return Some(Write::Count {
                key: known.key.clone(),
                patch,
                otherwise,
            });
        }
        let key = name(&event.about, now);
        self.remember(
            fingerprint,
            Known {
                key: key.clone(),
                count: 1,
            },
        );
        Some(Write::Create(render(&event, component, &key, 1, now)))
    }

    fn remember(&mut self, fingerprint: Fingerprint, known: Known) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(fingerprint.clone());
        self.known.insert(fingerprint, known);
    }

    fn budget(&mut self, uid: &str, now: Timestamp) -> Option<()> {
        if self.budgets.len() >= REMEMBERED {
            self.budgets.retain(|_, budget| budget.tokens(now) < BURST);
        }
        let budget = self.budgets.entry(uid.to_owned()).or_insert(Budget {
            tokens: BURST,
            since: now,
        });
        budget.tokens = budget.tokens(now);
        budget.since = now;
        if budget.tokens < 1.0 {
            return None;
        }
        budget.tokens -= 1.0;
        Some(())
    }
}

impl Budget {
    fn tokens(&self, now: Timestamp) -> f64 {
        let elapsed = now.duration_since(self.since).as_secs_f64().max(0.0);
        (self.tokens + elapsed / REFILL.as_secs_f64()).min(BURST)
    }
}

/// Namespace and name of a new event. Objects without a namespace have theirs in `default`.
fn name(about: &ObjectReference, now: Timestamp) -> Key {
    let namespace = if about.key.namespace.is_empty() {
        "default"
    } else {
        &about.key.namespace
    };
    Key::new(
        namespace,
        format!("{}.{:x}", about.key.name, now.as_nanosecond()),
    )
}

/// Times of the core group have no fraction of a second.
fn now_text(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn render(event: &KubeEvent, component: &str, key: &Key, count: u64, now: Timestamp) -> Value {
    let KubeEvent {
        about,
        event_type,
        reason,
        message,
    } = event;
    let mut involved = json!({
        "apiVersion": about.api_version,
        "kind": about.kind,
        "name": about.key.name,
        "uid": about.uid,
        "resourceVersion": about.resource_version,
    });
    if !about.key.namespace.is_empty() {
        involved["namespace"] = about.key.namespace.clone().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": key.namespace, "name": key.name},
        "involvedObject": involved,
        "type": event_type.text(),
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
        "firstTimestamp": now_text(now),
        "lastTimestamp": now_text(now),
        "count": count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> KubeEvent {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": "web-0", "uid": "u", "resourceVersion": "7"}});
        KubeEvent {
            about: ObjectReference::of(&pod),
            event_type: EventType::Warning,
            reason: "FailedScheduling",
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_repeated_event_is_counted_and_a_new_one_created() {
        let now = Timestamp::UNIX_EPOCH;
        let mut correlator = Correlator::default();
        let first = correlator.next(event("no room"), "binder", now);
        let Some(Write::Create(created)) = first else {
            panic!("the first is created")
        };
        assert_eq!(created["involvedObject"]["name"], "web-0");
        assert_eq!(created["firstTimestamp"], "1970-01-01T00:00:00Z");
        let Some(Write::Count { key, patch, .. }) =
            correlator.next(event("no room"), "binder", now)
        else {
            panic!("the second is counted")
        };
        assert_eq!(
            (key.name.as_str(), &patch["count"]),
            (text(&created, "/metadata/name"), &json!(2))
        );
        assert!(matches!(
            correlator.next(event("no claim"), "binder", now),
            Some(Write::Create(_))
        ));
    }

    #[test]
    fn one_object_cannot_flood_the_store() {
        let now = Timestamp::UNIX_EPOCH;
        let mut correlator = Correlator::default();
        let written = (0..100)
            .filter_map(|n| correlator.next(event(&n.to_string()), "binder", now))
            .count();
        assert_eq!(written, 25);
        let later = now + jiff::SignedDuration::from_secs(301);
        assert!(correlator.next(event("later"), "binder", later).is_some());
    }
}
