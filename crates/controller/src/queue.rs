//! A keyed work queue: a key waits at most once, never runs twice at the same time, and comes back after its failures.
//!
//! Events only name keys; what to do is read from the caches when the key's turn comes. A key that is added while it
//! runs, runs once more afterwards.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// First delay after a failure; doubles with each further one. upstream: 5 ms.
const FIRST_DELAY: Duration = Duration::from_millis(5);
/// Longest delay after a failure. upstream: 1000 s; a machine's owner waits less patiently.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What became of one turn of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until an event names the key again.
    Done,
    /// Look again after this time, event or not.
    Recheck(Duration),
    /// It failed: try again later, each time later still.
    Retry,
    /// It failed, and the server said when to try again.
    RetryAfter(Duration),
}

/// A keyed queue; clones share it.
pub struct Queue<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    keys: Mutex<Keys<K>>,
    changed: Notify,
    metrics: Metrics,
}

struct Keys<K> {
    /// Each with the time since when it waits.
    ready: VecDeque<(K, Instant)>,
    waiting: HashSet<K>,
    running: HashSet<K>,
    /// Named again while running.
    again: HashSet<K>,
    /// By time and a number that tells keys of the same time apart.
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    next_number: u64,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Queue<K> {
        Queue {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<K: Clone + Eq + Hash + Debug + Send + 'static> Default for Queue<K> {
    fn default() -> Queue<K> {
        Queue::new()
    }
}

impl<K: Clone + Eq + Hash + Debug + Send + 'static> Queue<K> {
    /// An empty queue.
    pub fn new() -> Queue<K> {
        Queue::measured(Metrics::default())
    }

    /// An empty queue that counts.
    pub fn measured(metrics: Metrics) -> Queue<K> {
        let keys = Keys {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            running: HashSet::new(),
            again: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            next_number: 0,
        };
        Queue {
            shared: Arc::new(Shared {
                keys: Mutex::new(keys),
                changed: Notify::new(),
                metrics,
            }),
        }
    }

    /// Wants a turn for the key, now.
    pub fn add(&self, key: K) {
        let mut keys = self.keys();
        if keys.add(key) {
            self.shared.metrics.added(keys.ready.len());
            self.shared.changed.notify_one();
        }
    }

    /// Wants a turn for the key no later than after this time.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.keys().add_at(key, Instant::now() + delay);
        self.shared.changed.notify_one();
    }

    /// Takes turns, at most `concurrency` at once, until `shutdown`; turns that run then are finished first.
    pub async fn serve<F>(
        &self,
        concurrency: usize,
        work: impl Fn(K) -> F,
        shutdown: impl Future<Output = ()>,
    ) where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut shutdown = pin!(shutdown);
        let mut turns: JoinSet<Outcome> = JoinSet::new();
        let mut who: HashMap<tokio::task::Id, (K, Instant)> = HashMap::new();
        loop {
            let next_due = self.start_turns(concurrency, &mut turns, &mut who, &work);
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = turns.join_next_with_id() => self.finish(ended, &mut who),
                () = self.shared.changed.notified() => {}
                () = at(next_due) => {}
            }
        }
        while let Some(ended) = turns.join_next_with_id().await {
            self.finish(ended, &mut who);
        }
    }

    /// Starts what may start; answers when the next delayed key is due.
    fn start_turns<F>(
        &self,
        concurrency: usize,
        turns: &mut JoinSet<Outcome>,
        who: &mut HashMap<tokio::task::Id, (K, Instant)>,
        work: &impl Fn(K) -> F,
    ) -> Option<Instant>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        self.keys().wake(Instant::now());
        while turns.len() < concurrency {
            // No lock is held while the turn is made: its maker may wait for somebody who adds a key.
            let (next, depth) = {
                let mut keys = self.keys();
                (keys.take(), keys.ready.len())
            };
            let Some((key, since)) = next else { break };
            self.shared.metrics.begun(since.elapsed(), depth);
            let turn = turns.spawn(work(key.clone()));
            who.insert(turn.id(), (key, Instant::now()));
        }
        self.keys().delayed.keys().next().map(|(at, _)| *at)
    }

    fn finish(
        &self,
        ended: Result<(tokio::task::Id, Outcome), tokio::task::JoinError>,
        who: &mut HashMap<tokio::task::Id, (K, Instant)>,
    ) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            // A panic in one turn is our bug, and must not end the turns of the others.
            Err(error) => (error.id(), Outcome::Retry),
        };
        if let Some((key, since)) = who.remove(&id) {
            let again = matches!(outcome, Outcome::Retry | Outcome::RetryAfter(_));
            self.shared.metrics.ended(since.elapsed(), again);
            self.keys().done(key, outcome);
        }
    }

    fn keys(&self) -> MutexGuard<'_, Keys<K>> {
        self.shared
            .keys
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Waits until an instant; for ever without one.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl<K: Clone + Eq + Hash + Debug> Keys<K> {
    /// Whether the key became ready by it.
    fn add(&mut self, key: K) -> bool {
        if self.running.contains(&key) {
            self.again.insert(key);
            return false;
        }
        if !self.waiting.insert(key.clone()) {
            return false;
        }
        self.ready.push_back((key, Instant::now()));
        true
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if let Some(earlier) = self.due.get(&key).copied() {
            if earlier.0 <= at {
                return;
            }
            self.delayed.remove(&earlier);
        }
        let place = (at, self.next_number);
        self.next_number += 1;
        self.due.insert(key.clone(), place);
        self.delayed.insert(place, key);
    }

    /// Moves keys whose time has come to the ready ones.
    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self
            .delayed
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }

    /// The next key, and since when it has waited.
    fn take(&mut self) -> Option<(K, Instant)> {
        let (key, since) = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone());
        Some((key, since))
    }

    fn done(&mut self, key: K, outcome: Outcome) {
        self.running.remove(&key);
        match outcome {
            Outcome::Done => {
                self.failures.remove(&key);
            }
            Outcome::Recheck(delay) => {
                self.failures.remove(&key);
                self.add_at(key.clone(), Instant::now() + delay);
            }
            Outcome::Retry => {
                let failures = self.failures.entry(key.clone()).or_insert(0);
                let delay = backoff(*failures);
                *failures = failures.saturating_add(1);
                self.add_at(key.clone(), Instant::now() + delay);
            }
            Outcome::RetryAfter(delay) => {
                // The server is busy: not even news of the key may bring it back earlier.
                self.again.remove(&key);
                self.add_at(key.clone(), Instant::now() + delay);
            }
        }
        if self.again.remove(&key) {
            self.add(key);
        }
    }
}

/// Delay after so many earlier failures.
fn backoff(failures: u32) -> Duration {
    FIRST_DELAY
        .saturating_mul(1 << failures.min(20))
        .min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys<&'static str> {
        Queue::new().shared_keys()
    }

    fn taken(keys: &mut Keys<&'static str>) -> Option<&'static str> {
        keys.take().map(|(key, _)| key)
    }

    impl Queue<&'static str> {
        fn shared_keys(self) -> Keys<&'static str> {
            let shared = Arc::into_inner(self.shared).expect("the only holder");
            shared.keys.into_inner().expect("nobody panicked")
        }
    }

    #[test]
    fn a_key_waits_once_however_often_it_is_named() {
        let mut keys = keys();
        assert!(keys.add("a"));
        assert!(!keys.add("a"));
        assert_eq!(taken(&mut keys), Some("a"));
        assert_eq!(taken(&mut keys), None);
    }

    #[test]
    fn a_key_named_while_it_runs_runs_once_more_afterwards_and_never_at_once() {
        let mut keys = keys();
        keys.add("a");
        keys.take();
        keys.add("a");
        keys.add("a");
        assert_eq!(taken(&mut keys), None, "it still runs");
        keys.done("a", Outcome::Done);
        assert_eq!(taken(&mut keys), Some("a"));
        keys.done("a", Outcome::Done);
        assert_eq!(taken(&mut keys), None);
    }

    #[test]
    fn failures_delay_a_key_twice_as_long_each_time_and_success_forgets_them() {
        let mut keys = keys();
        for expected in [5, 10, 20] {
            let before = Instant::now();
            keys.done("a", Outcome::Retry);
            let (due, _) = *keys.due.get("a").expect("delayed");
            assert!(due - before >= Duration::from_millis(expected));
            keys.wake(due);
            assert_eq!(taken(&mut keys), Some("a"));
        }
        keys.done("a", Outcome::Done);
        assert!(keys.failures.is_empty());
        assert_eq!(backoff(u32::MAX), LONGEST_DELAY);
    }

    #[test]
    fn the_earlier_of_two_delays_counts() {
        let mut keys = keys();
        let now = Instant::now();
        keys.add_at("a", now + Duration::from_secs(5));
        keys.add_at("a", now + Duration::from_secs(1));
        keys.add_at("a", now + Duration::from_secs(9));
        keys.wake(now + Duration::from_secs(1));
        assert_eq!(taken(&mut keys), Some("a"));
        assert!(keys.delayed.is_empty());
    }

    #[tokio::test]
    async fn a_turn_that_panics_is_tried_again_and_stops_nobody() {
        let queue: Queue<u8> = Queue::new();
        queue.add(1);
        queue.add(2);
        let (seen, mut turns) = tokio::sync::mpsc::unbounded_channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let work = move |key| {
            let (seen, first) = (seen.clone(), Arc::clone(&first));
            async move {
                assert!(
                    !(key == 1 && first.swap(false, std::sync::atomic::Ordering::SeqCst)),
                    "on purpose"
                );
                seen.send(key).expect("the test listens");
                Outcome::Done
            }
        };
        let serving = tokio::spawn(async move {
            queue
                .serve(2, work, async { stopped.await.unwrap_or(()) })
                .await;
        });
        let mut got = vec![
            turns.recv().await.expect("a turn"),
            turns.recv().await.expect("a turn"),
        ];
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
        stop.send(()).expect("still serving");
        serving.await.expect("ends");
    }
}
