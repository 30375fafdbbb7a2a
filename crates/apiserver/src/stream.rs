//! The events of a watch as a response body: replay, then live, with bookmarks, until the time is over or the server ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Frame;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::convert;
use crate::negotiate::Shape;
use crate::render;
use crate::ring::{Event, EventKind};
use crate::status::Status;
use crate::store::{NoSuchRevision, Store, Stored, View};
use crate::watch::{Start, Watch};

/// How often a watch that asked for them gets bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Events taken from the ring at a time.
const EVENTS_AT_ONCE: usize = 500;
/// Bytes gathered into one frame before it is handed on.
const FRAME_BYTES: usize = 64 << 10;

/// Frames on their way to the client. Two may wait: a slow client holds its watch back, not the server.
pub(crate) type Frames = mpsc::Receiver<Frame<Bytes>>;

/// Starts a watch; its frames come from the receiver.
pub(crate) fn start(
    store: Arc<Store>,
    since: u64,
    plan: Watch,
    closing: watch::Receiver<bool>,
) -> Frames {
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        let mut stream = Stream {
            store,
            since,
            plan,
            sender,
            frame: BytesMut::new(),
        };
        // The only error is that nobody listens any more.
        drop(stream.run(closing).await);
    });
    receiver
}

/// The client has gone.
struct Gone;

struct Stream {
    store: Arc<Store>,
    /// Nothing is known of events up to this revision.
    since: u64,
    plan: Watch,
    sender: mpsc::Sender<Frame<Bytes>>,
    frame: BytesMut,
}

impl Stream {
    async fn run(&mut self, mut closing: watch::Receiver<bool>) -> Result<(), Gone> {
        let mut signal = self.store.subscribe(self.plan.table);
        let deadline = Instant::now() + Duration::from_secs(self.plan.timeout_seconds);
        let mut bookmark_at = Instant::now() + BOOKMARK_EVERY;
        let mut bookmark_due = false;
        let mut through = self.first().await?;
        loop {
            signal.mark_unchanged();
            match self.catch_up(through).await? {
                Some(revision) => through = revision,
                None => return Ok(()),
            }
            // After catching up: the bookmark's revision is as new as it can be.
            if std::mem::take(&mut bookmark_due) {
                self.bookmark(through, false);
                self.flush().await?;
            }
            let sender = self.sender.clone();
            tokio::select! {
                changed = signal.changed() => if changed.is_err() { return Ok(()) },
                () = sender.closed() => return Err(Gone),
                () = closed(&mut closing) => return Ok(()),
                () = tokio::time::sleep_until(deadline) => return Ok(()),
                () = tokio::time::sleep_until(bookmark_at), if self.plan.bookmarks => {
                    bookmark_at = Instant::now() + BOOKMARK_EVERY;
                    bookmark_due = true;
                }
            }
        }
    }

    /// The present objects where they are asked for; the revision from which events follow.
    async fn first(&mut self) -> Result<u64, Gone> {
        let bookmark = match self.plan.start {
            Start::After(revision) => return Ok(revision),
            Start::Now => return Ok(self.store.revision()),
            Start::Present { bookmark } => bookmark,
        };
        let listing = self.store.list(self.plan.table, &self.plan.prefix);
        for (key, stored) in listing.items {
            if self.plan.selector.matches(&key, &stored) {
                self.event("ADDED", &stored, stored.revision);
                self.flush_if_large().await?;
            }
        }
        if bookmark {
            self.bookmark(listing.revision, true);
        }
        self.flush().await?;
        Ok(listing.revision)
    }

    /// Sends everything after a revision; the revision reached, or none when the past is forgotten.
    async fn catch_up(&mut self, after: u64) -> Result<Option<u64>, Gone> {
        let mut through = after;
        loop {
            let events =
                match self
                    .store
                    .events_after(self.plan.table, through, EVENTS_AT_ONCE, self.since)
                {
                    Ok((events, reached)) => {
                        through = reached;
                        events
                    }
                    Err(NoSuchRevision::Expired | NoSuchRevision::Future(_)) => {
                        self.expired(through);
                        self.flush().await?;
                        return Ok(None);
                    }
                };
            for event in &events {
                self.passed_on(event);
                self.flush_if_large().await?;
            }
            self.flush().await?;
            if events.len() < EVENTS_AT_ONCE {
                return Ok(Some(through));
            }
        }
    }

    /// An object that enters the selection is added, one that leaves it is deleted.
    fn passed_on(&mut self, event: &Event) {
        if !event.key.starts_with(&self.plan.prefix) {
            return;
        }
        let selects = |stored: &Stored| self.plan.selector.matches(&event.key, stored);
        let before = event
            .previous
            .as_ref()
            .is_some_and(|previous| selects(previous));
        let after = event.kind != EventKind::Deleted && selects(&event.object);
        match (before, after) {
            (false, true) => self.event("ADDED", &event.object, event.revision),
            (true, true) => self.event("MODIFIED", &event.object, event.revision),
            (true, false) if event.kind == EventKind::Deleted => {
                self.event("DELETED", &event.object, event.revision)
            }
            (true, false) => {
                // Upstream sends the state that was still selected, at the revision that unselected it.
                if let Some(previous) = &event.previous {
                    let last = at_revision(previous, event.revision);
                    self.event("DELETED", &last, event.revision);
                }
            }
            (false, false) => {}
        }
    }

    fn event(&mut self, word: &str, stored: &Arc<Stored>, _revision: u64) {
        let stored = convert::to(self.plan.kind, stored.clone());
        self.frame
            .put_slice(format!("{{\"type\":\"{word}\",\"object\":").as_bytes());
        match self.plan.format.shape {
            Shape::Whole => {
                self.frame
                    .put_slice(render::type_prefix(stored.kind).as_bytes());
                self.frame.put_slice(stored.json.get(1..).unwrap_or(b"}"));
            }
            shape @ (Shape::Table(_) | Shape::Partial(_) | Shape::PartialList(_)) => {
                let body = render::one(
                    self.plan.kind,
                    &stored,
                    shape,
                    &self.plan.include,
                    jiff::Timestamp::now(),
                );
                self.frame.put_slice(&body);
            }
        }
        self.frame.put_slice(b"}\n");
    }

    fn bookmark(&mut self, revision: u64, initial_events_end: bool) {
        let kind = self.plan.kind;
        let mut object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": {"resourceVersion": revision.to_string()}});
        if initial_events_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.plan.format.shape {
            Shape::Whole => {}
            Shape::Table(version) => {
                let metadata = object["metadata"].clone();
                let row = json!({"cells": [], "object": {"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata}});
                object = json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": [], "rows": [row]});
            }
            Shape::Partial(version) | Shape::PartialList(version) => {
                object["kind"] = "PartialObjectMetadata".into();
                object["apiVersion"] = format!("meta.k8s.io/{version}").into();
            }
        }
        self.line(&json!({"type": "BOOKMARK", "object": object}));
    }

    fn expired(&mut self, revision: u64) {
        let status = Status::expired(format!(
            "too old resource version: {revision} ({})",
            self.store.revision()
        ));
        self.line(&json!({"type": "ERROR", "object": status.body()}));
    }

    fn line(&mut self, value: &serde_json::Value) {
        self.frame.put_slice(value.to_string().as_bytes());
        self.frame.put_u8(b'\n');
    }

    async fn flush_if_large(&mut self) -> Result<(), Gone> {
        if self.frame.len() >= FRAME_BYTES {
            self.flush().await
        } else {
            Ok(())
        }
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let bytes = self.frame.split().freeze();
        self.sender.send(Frame::data(bytes)).await.map_err(|_| Gone)
    }
}

/// Waits until the server ends.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // A server that is gone is closing too.
    drop(closing.wait_for(|closing| *closing).await);
}

/// The same state, carrying another revision.
fn at_revision(stored: &Stored, revision: u64) -> Arc<Stored> {
    let mut object = stored.value();
    crate::object::set_meta(&mut object, "resourceVersion", revision.to_string());
    Arc::new(Stored::new(stored.kind, revision, object))
}
