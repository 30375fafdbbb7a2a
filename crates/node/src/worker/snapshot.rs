//! What a decision reads, taken from the worker's state: no API calls.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::Worker;
use crate::container::{self, Files};
use crate::logs;
use crate::pod::{
    self, Actual, Attempt, AttemptState, Desired, Memory, OWN_CONDITIONS, Place, Presence,
};
use crate::runtime::{ContainerRecord, ContainerState};

/// What the worker keeps of one life of a container.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    /// The image it was started from.
    pub(super) image: Option<String>,
    /// Which bytes that was.
    pub(super) image_id: Option<String>,
    /// When its end was first seen, and what it left as its message.
    pub(super) end: Option<(Timestamp, Option<String>)>,
}

/// upstream: `MaxContainerTerminationMessageLength`.
const MESSAGE_MAX: u64 = 4_096;
/// upstream: how much of the log stands in for a message.
const LOG_TAIL: (usize, usize) = (80, 2_048);

impl Worker {
    pub(super) fn actual(&mut self, now: Timestamp) -> Actual {
        let attempts = self.attempts(now);
        let input = self.input.borrow().clone();
        self.adopt_foreign_conditions(&input.pod);
        if input.refreshed != self.refreshed {
            self.refreshed = input.refreshed;
            self.stale = true;
            self.memory.trouble = None;
        }
        if self.renew_at.is_some_and(|at| at <= now) {
            self.renew_at = None;
            self.stale = true;
        }
        Actual {
            place: self.place,
            volumes_ready: self.volumes.is_some(),
            volumes_stale: self.stale,
            attempts,
            verdicts: self.verdicts.clone(),
            hooks: self.hooks.clone(),
            reported: self.reported.clone(),
            host_ip: self.shared.options.host_ip,
            images: self.images(&input.pod),
            pulls: self.pulls.states(),
            rejected: input.rejected,
            excess: self.excess.clone(),
            former: input.former,
            removal_asked: self.removal_asked,
            memory: self.memory.clone(),
        }
    }

    /// The lives of the pod's containers, oldest first.
    pub(super) fn attempts(&mut self, now: Timestamp) -> BTreeMap<String, Vec<Attempt>> {
        let records = self.records.borrow().clone();
        let mut attempts: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
        for record in &records {
            let attempt = self.attempt(record, now);
            attempts
                .entry(record.id.container.clone())
                .or_default()
                .push(attempt);
        }
        for record in &records {
            self.ordered
                .remove(&(record.id.container.clone(), record.id.attempt));
        }
        // A start that the runtime has taken is one, also before its list says so: nothing is started twice.
        for (container, number) in &self.ordered {
            attempts
                .entry(container.clone())
                .or_default()
                .push(Attempt {
                    number: *number,
                    image: None,
                    image_id: None,
                    former_boot: false,
                    state: AttemptState::Created,
                    message: None,
                });
        }
        for lives in attempts.values_mut() {
            lives.sort_by_key(|life| life.number);
        }
        attempts
    }

    fn attempt(&mut self, record: &ContainerRecord, now: Timestamp) -> Attempt {
        let key = (record.id.container.clone(), record.id.attempt);
        let ended = matches!(
            record.state,
            ContainerState::Exited { .. } | ContainerState::Failed { .. }
        );
        let reported = self.reported_image(record);
        let known = self.lives.entry(key.clone()).or_default();
        if known.image.is_none() {
            (known.image, known.image_id) = reported.unzip();
        }
        if ended && known.end.is_none() {
            let message = self.message(record);
            self.lives.entry(key.clone()).or_default().end = Some((now, message));
        }
        let life = self.lives.get(&key).cloned().unwrap_or_default();
        let (seen, message) = life.end.unwrap_or((now, None));
        Attempt::of(record, (life.image, life.image_id), message, seen)
    }

    /// The image that the API has for this very life, from before the daemon.
    fn reported_image(&self, record: &ContainerRecord) -> Option<(String, String)> {
        let lists = [
            &self.reported.init_container_statuses,
            &self.reported.container_statuses,
        ];
        let status = lists
            .into_iter()
            .flatten()
            .flatten()
            .find(|status| status.name == record.id.container)?;
        let same = i64::from(status.restart_count) == i64::from(record.id.attempt);
        let began = status
            .state
            .as_ref()
            .is_some_and(|state| state.waiting.is_none());
        (same && began).then(|| (status.image.clone(), status.image_id.clone()))
    }

    /// What is true of the images of the pod's containers.
    fn images(&self, pod: &core::Pod) -> BTreeMap<String, Presence> {
        Desired::parse(pod)
            .containers
            .iter()
            .filter(|container| !pod::is_host(&container.image))
            .map(|container| {
                let presence = self.shared.images.presence(&container.image);
                (container.name.clone(), presence)
            })
            .collect()
    }

    /// What an ended container left as its last words.
    fn message(&self, record: &ContainerRecord) -> Option<String> {
        let files = Files::of(&self.shared.node, &record.id);
        let written = read_end(&files.message, MESSAGE_MAX).filter(|text| !text.is_empty());
        let pod = self.input.borrow().pod.clone();
        let policy = container::find(&pod, &record.id.container)?.termination_message_policy;
        let failed = !matches!(record.state, ContainerState::Exited { code: 0, .. });
        if written.is_none() && failed && policy.as_deref() == Some("FallbackToLogsOnError") {
            let (lines, bytes) = LOG_TAIL;
            return logs::last_words(&files.log, lines, bytes).filter(|text| !text.is_empty());
        }
        written
    }

    /// Conditions that others own come from the API, not from what this node last said.
    fn adopt_foreign_conditions(&mut self, pod: &core::Pod) {
        let foreign = |c: &&core::PodCondition| !OWN_CONDITIONS.contains(&c.type_.as_str());
        let theirs = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .filter(foreign)
            .cloned();
        let ours = self
            .reported
            .conditions
            .iter()
            .flatten()
            .filter(|c| !foreign(c))
            .cloned();
        let all: Vec<_> = ours.chain(theirs).collect();
        self.reported.conditions = (!all.is_empty()).then_some(all);
    }
}

/// The part of a snapshot whose change is news: not what the worker's own steps change.
pub(super) fn view(actual: &Actual) -> Actual {
    let foreign = |c: &&core::PodCondition| !OWN_CONDITIONS.contains(&c.type_.as_str());
    let conditions = actual
        .reported
        .conditions
        .iter()
        .flatten()
        .filter(foreign)
        .cloned()
        .collect();
    let mut view = Actual {
        memory: Memory::default(),
        place: Place::None,
        reported: core::PodStatus {
            conditions: Some(conditions),
            ..core::PodStatus::default()
        },
        ..actual.clone()
    };
    for life in view.attempts.values_mut().flatten() {
        life.image = None;
        life.image_id = None;
        // A shim that holds a container which has not started yet is no news.
        if let AttemptState::Created = life.state {
            life.number = u32::MAX;
        }
    }
    view.attempts
        .values_mut()
        .for_each(|lives| lives.retain(|life| life.number != u32::MAX));
    view.attempts.retain(|_, lives| !lives.is_empty());
    view
}

fn read_end(path: &Path, max: u64) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(max))).ok()?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
