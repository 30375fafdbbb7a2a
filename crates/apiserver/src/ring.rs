//! The recent history of one table, bounded, in the order of revisions: what watches replay and lists of the past undo.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::store::Stored;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// It came.
    Added,
    /// It changed.
    Modified,
    /// It went; the event's object is its last state.
    Deleted,
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Event {
    /// What happened.
    pub(crate) kind: EventKind,
    /// At which revision.
    pub(crate) revision: u64,
    /// The object's key in its table.
    pub(crate) key: Box<str>,
    /// The object after the change; of a deletion the last state.
    pub(crate) object: Arc<Stored>,
    /// The object before the change.
    pub(crate) previous: Option<Arc<Stored>>,
}

/// Events kept in each table at most.
const EVENTS_MAX: usize = 8192;
/// Bytes of objects kept in each table's history at most, beyond the newest `EVENTS_MIN` events.
const BYTES_MAX: usize = 2 << 20;
/// Events that are kept however large they are.
const EVENTS_MIN: usize = 256;

/// A bounded queue of events. Everything after `since` is in it.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    events: VecDeque<Arc<Event>>,
    since: u64,
    bytes: usize,
}

impl Ring {
    /// An empty history that starts after a revision.
    pub(crate) fn since(revision: u64) -> Self {
        Self {
            events: VecDeque::new(),
            since: revision,
            bytes: 0,
        }
    }

    /// Adds the newest event and forgets the oldest where there are too many.
    pub(crate) fn push(&mut self, event: Event) {
        self.bytes += event.object.json.len();
        self.events.push_back(Arc::new(event));
        while self.events.len() > EVENTS_MAX
            || (self.bytes > BYTES_MAX && self.events.len() > EVENTS_MIN)
        {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.since = oldest.revision;
            self.bytes = self.bytes.saturating_sub(oldest.object.json.len());
        }
    }

    /// The events after a revision in order, at most `limit`. `None` if some of them are forgotten.
    pub(crate) fn after(&self, revision: u64, limit: usize) -> Option<Vec<Arc<Event>>> {
        if revision < self.since {
            return None;
        }
        let first = self
            .events
            .partition_point(|event| event.revision <= revision);
        Some(
            self.events
                .iter()
                .skip(first)
                .take(limit)
                .cloned()
                .collect(),
        )
    }
}
