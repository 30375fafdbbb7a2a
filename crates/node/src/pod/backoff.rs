//! The wait before a restart: 10 s, doubling to 300 s, forgotten after ten quiet minutes.
//!
//! Upstream: `flowcontrol.Backoff` as the kubelet uses it: the first restart is free, the wait counts from the end
//! of the former life, and twice the longest wait without a restart starts anew.

use jiff::{SignedDuration, Timestamp};

/// The first wait.
const FIRST: SignedDuration = SignedDuration::from_secs(10);
/// The longest wait.
const LONGEST: SignedDuration = SignedDuration::from_secs(300);
/// Without a restart for this long, the next one is free again.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// How long one container must wait before its next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    entry: Option<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    wait: SignedDuration,
    updated: Timestamp,
}

impl Backoff {
    /// Until when a container that ended at `ended` must wait; `None` when it may start now.
    pub fn waits_until(&self, ended: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entry.filter(|entry| !entry.is_stale(ended))?;
        let until = ended.saturating_add(entry.wait).unwrap_or(Timestamp::MAX);
        (until > now).then_some(until)
    }

    /// Notes the restart of a container that ended at `ended`, which makes the next wait twice as long. Whether its life
    /// was a quiet one is judged by its end: the wait after it does not count.
    pub fn restarted(&mut self, ended: Timestamp, now: Timestamp) {
        let wait = match self.entry.filter(|entry| !entry.is_stale(ended)) {
            Some(entry) => (entry.wait * 2).min(LONGEST),
            None => FIRST,
        };
        self.entry = Some(Entry { wait, updated: now });
    }

    /// The wait that holds after the next end.
    pub fn wait(&self) -> SignedDuration {
        self.entry.map_or(SignedDuration::ZERO, |entry| entry.wait)
    }
}

impl Entry {
    fn is_stale(&self, ended: Timestamp) -> bool {
        ended.duration_since(self.updated) > FORGOTTEN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each life lasts `lives[n]` seconds; gives the wait before each restart.
    fn waits(lives: &[i64]) -> Vec<i64> {
        let mut now = Timestamp::UNIX_EPOCH;
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for life in lives {
            now += SignedDuration::from_secs(*life);
            let ended = now;
            now = backoff.waits_until(ended, now).unwrap_or(now);
            waits.push(now.duration_since(ended).as_secs());
            backoff.restarted(ended, now);
        }
        waits
    }

    #[test]
    fn the_first_restart_is_free_and_the_wait_doubles_to_five_minutes() {
        assert_eq!(waits(&[0; 8]), [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_start_anew() {
        assert_eq!(waits(&[0, 0, 0, 599, 0]), [0, 10, 20, 40, 80]);
        assert_eq!(waits(&[0, 0, 0, 601, 0]), [0, 10, 20, 0, 10]);
    }
}
