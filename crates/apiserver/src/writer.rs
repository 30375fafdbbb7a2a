//! The one writer: takes queued writes, evaluates each against the state so far, commits the batch durably, and only then publishes and answers.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::backend::{Backend, Put};
use crate::handle::{Environment, Operation, Outcome, Reply, perform};
use crate::status::Status;
use crate::store::{Change, Overlay, Store, Table, View};

/// Requests evaluated for one commit at most.
const BATCH_MAX: usize = 256;
/// Revisions reserved durably at a time: those of changes that live in memory only come from here.
const RESERVE: u64 = 10_000;

/// What the writer is sent.
pub(crate) enum Message {
    /// A write.
    Job(Job),
    /// Nothing more is to be written.
    Stop,
}

/// A write that waits for its turn.
pub(crate) struct Job {
    /// What is asked.
    pub(crate) operation: Box<Operation>,
    /// Who waits for the answer.
    pub(crate) answer: oneshot::Sender<Reply>,
}

/// The writer's own state: the next revision, what is reserved, and what a failed commit left uncertain.
pub(crate) struct Writer {
    store: Arc<Store>,
    environment: Arc<Environment>,
    backend: Box<dyn Backend>,
    start: u64,
    revision: u64,
    reserved: u64,
    uncertain: BTreeSet<(Table, Box<str>)>,
}

impl Writer {
    /// A writer that continues after `revision`, of which everything up to `reserved` is reserved durably.
    pub(crate) fn new(
        store: Arc<Store>,
        environment: Arc<Environment>,
        backend: Box<dyn Backend>,
        revision: u64,
    ) -> Self {
        Self {
            store,
            environment,
            backend,
            start: revision,
            revision,
            reserved: revision,
            uncertain: BTreeSet::new(),
        }
    }

    /// Works until it is told to stop or the last sender is gone.
    pub(crate) fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(Message::Job(first)) = messages.blocking_recv() {
            let mut batch = vec![first];
            let mut stop = false;
            while batch.len() < BATCH_MAX && !stop {
                match messages.try_recv() {
                    Ok(Message::Job(next)) => batch.push(next),
                    Ok(Message::Stop) => stop = true,
                    Err(
                        mpsc::error::TryRecvError::Empty | mpsc::error::TryRecvError::Disconnected,
                    ) => break,
                }
            }
            self.round(batch);
            if stop {
                return;
            }
        }
    }

    fn round(&mut self, batch: Vec<Job>) {
        let mut changes = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        {
            let store = self.store.clone();
            let mut overlay = Overlay::new(store.as_ref(), self.revision);
            for job in batch {
                let outcome = evaluate(&job.operation, &overlay, &self.environment);
                overlay.apply(&outcome.changes);
                answers.push((job.answer, outcome.reply));
                changes.extend(outcome.changes);
            }
            self.revision = overlay.revision();
        }
        let committed = self.commit(&changes);
        if committed.is_ok() && !changes.is_empty() {
            self.store.publish(self.start, self.revision, &changes);
        }
        for (answer, reply) in answers {
            // Answers of one batch may rest on each other's changes, so they fail together.
            let reply = match &committed {
                Err(status) => Reply::refused(status),
                Ok(()) => reply,
            };
            // Nobody waits any more when the client has gone; the write stands.
            drop(answer.send(reply));
        }
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), Status> {
        let durable: Vec<Put> = changes
            .iter()
            .filter(|change| is_durable(change))
            .map(put)
            .collect();
        let short = self.revision > self.reserved;
        // Heartbeats need no disk, so a full one does not stop them.
        if durable.is_empty() && !short {
            return Ok(());
        }
        let mut puts: Vec<Put> = self
            .uncertain
            .iter()
            .map(|(table, key)| self.restore(*table, key))
            .collect();
        puts.extend(durable);
        let reserved = if short {
            self.revision + RESERVE
        } else {
            self.reserved
        };
        match self.backend.commit(&puts, reserved) {
            Ok(()) => {
                self.reserved = reserved;
                self.uncertain.clear();
                Ok(())
            }
            Err(error) => {
                self.uncertain.extend(
                    changes
                        .iter()
                        .filter(|change| is_durable(change))
                        .map(|change| (change.table, change.key.clone())),
                );
                tracing::error!(%error, "the store could not commit; nothing of the batch was applied");
                Err(Status::insufficient_storage(format!(
                    "the change was not stored ({error}); nothing was applied, try again when there is room"
                )))
            }
        }
    }

    /// The published state of an entry that a failed commit may have left behind.
    fn restore(&self, table: Table, key: &str) -> Put {
        let object = self.store.get(table, key).map(|object| encode(&object));
        (whole_key(table, key), object)
    }
}

fn evaluate(operation: &Operation, view: &dyn View, environment: &Environment) -> Outcome {
    let now = jiff::Timestamp::now();
    let seed = seed();
    std::panic::catch_unwind(AssertUnwindSafe(|| {
        perform(operation, view, environment, now, seed)
    }))
    .unwrap_or_else(|_| {
        tracing::error!(
            path = operation.path(),
            "a request made the server panic; nothing of it was applied"
        );
        Outcome::refused(&Status::internal(
            "the request made the server fail; nothing of it was applied",
        ))
    })
}

/// 64 bits from the operating system. Uids need no secrecy, so without it the clock will do.
pub(crate) fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| jiff::Timestamp::now().as_nanosecond() as u64)
}

/// Heartbeats live in memory only: leases of nodes, which would else be most of an idle cluster's writes.
fn is_durable(change: &Change) -> bool {
    !(change.table == ("coordination.k8s.io", "leases")
        && change.key.starts_with("kube-node-lease/"))
}

fn put(change: &Change) -> Put {
    (
        whole_key(change.table, &change.key),
        (!change.deleted).then(|| encode(&change.object)),
    )
}

fn whole_key(table: Table, key: &str) -> String {
    format!("{}/{}|{key}", table.0, table.1)
}

/// On disk an object is its complete JSON.
fn encode(object: &crate::store::Stored) -> Vec<u8> {
    crate::render::object(object)
}
