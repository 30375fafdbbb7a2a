//! Kubernetes Events about pods: one object for the same news, with a count.
//!
//! Told in the background and never waited for; what cannot be told is dropped, for events are news, not records.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use crate::pod::Note;

/// Which pod an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct About {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// How many events are told at once: those of one pod one after another, those of others beside them.
const LANES: usize = 8;
/// News waiting to be told in one lane; more is dropped.
const QUEUE: usize = 256;
/// News remembered in one lane, so that a repetition is counted rather than told anew.
const REMEMBERED: usize = 512;

/// Takes events and tells them in order.
#[derive(Clone)]
pub(crate) struct Recorder {
    lanes: Arc<[mpsc::Sender<(About, Note, Timestamp)>]>,
}

impl Recorder {
    /// Starts to tell. Ends when the last clone is dropped.
    pub(crate) fn start(client: Client, node: String) -> Self {
        let lane = |_| {
            let (queue, told) = mpsc::channel(QUEUE);
            tokio::spawn(tell_all(client.clone(), node.clone(), told));
            queue
        };
        Self {
            lanes: (0..LANES).map(lane).collect(),
        }
    }

    /// Where news of this pod is told: always the same way, so that it is told in order.
    fn lane(&self, about: &About) -> Option<&mpsc::Sender<(About, Note, Timestamp)>> {
        let mut hasher = DefaultHasher::new();
        about.hash(&mut hasher);
        let number = usize::try_from(hasher.finish() % LANES as u64).ok()?;
        self.lanes.get(number)
    }

    /// Tells `note` about a pod.
    pub(crate) fn record(&self, about: &About, note: Note, now: Timestamp) {
        tracing::debug!(pod = %format!("{}/{}", about.namespace, about.name), reason = note.reason, "{}", note.message);
        // A full queue drops news rather than hold up a pod.
        if let Some(lane) = self.lane(about) {
            let _ = lane.try_send((about.clone(), note, now));
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    about: About,
    warning: bool,
    reason: &'static str,
    message: String,
    container: Option<String>,
}

struct Told {
    name: String,
    count: i32,
}

async fn tell_all(
    client: Client,
    node: String,
    mut queue: mpsc::Receiver<(About, Note, Timestamp)>,
) {
    let mut known: HashMap<Key, Told> = HashMap::new();
    let mut told_before: i128 = 0;
    while let Some((about, note, now)) = queue.recv().await {
        // A name of its own, also for two events of the same moment.
        told_before = now.as_nanosecond().max(told_before + 1);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let key = Key {
            about: about.clone(),
            warning: note.warning,
            reason: note.reason,
            message: note.message.clone(),
            container: note.about.as_ref().map(|(_, name)| name.clone()),
        };
        if let Some(told) = known.get_mut(&key)
            && again(&client, &about, told, now).await
        {
            continue;
        }
        let event = event(&node, &about, &note, now, told_before);
        let name = event.metadata.name.clone().unwrap_or_default();
        let api: Api<core::Event> = Api::namespaced(client.clone(), &about.namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                known.insert(key, Told { name, count: 1 });
            }
            Err(error) => tracing::debug!(%error, reason = note.reason, "could not tell an event"),
        }
    }
}

/// Counts a repetition; `false` when the event is not there any more.
async fn again(client: &Client, about: &About, told: &mut Told, now: Timestamp) -> bool {
    let api: Api<core::Event> = Api::namespaced(client.clone(), &about.namespace);
    told.count += 1;
    let patch = json!({"count": told.count, "lastTimestamp": Time(now)});
    api.patch(&told.name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .is_ok()
}

fn event(node: &str, about: &About, note: &Note, now: Timestamp, number: i128) -> core::Event {
    let path = note
        .about
        .as_ref()
        .map(|(list, container)| format!("spec.{list}{{{container}}}"));
    core::Event {
        metadata: kube::api::ObjectMeta {
            name: Some(format!("{}.{number:x}", about.name)),
            namespace: Some(about.namespace.clone()),
            ..kube::api::ObjectMeta::default()
        },
        involved_object: core::ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(about.namespace.clone()),
            name: Some(about.name.clone()),
            uid: Some(about.uid.clone()),
            field_path: path,
            ..core::ObjectReference::default()
        },
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(note.reason.to_owned()),
        message: Some(note.message.chars().take(1_024).collect()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(core::EventSource {
            component: Some("kubelet".to_owned()),
            host: Some(node.to_owned()),
        }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..core::Event::default()
    }
}
