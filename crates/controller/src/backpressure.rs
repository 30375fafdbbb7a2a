//! Respects what the API asks of us: after a `Retry-After` nothing at all is sent until that time is over.
//!
//! All calls of a controller are one flow to the API's fairness, so one refusal counts for all of them: writes are given
//! up (their decision would be old by then), reads and events wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::call::CallError;

/// Until when nothing may be sent; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Backpressure {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Backpressure {
    /// Notes what a refusal asks for, if it asks for anything.
    pub fn note(&self, error: &CallError) {
        if let Some(delay) = error.retry_after() {
            let mut until = self.lock();
            *until = until.max(Some(Instant::now() + delay));
        }
    }

    /// How long nothing may be sent yet; `None` when calls are welcome.
    pub fn remaining(&self) -> Option<Duration> {
        let mut until = self.lock();
        let remaining = until.map(|until| until.saturating_duration_since(Instant::now()));
        let remaining = remaining.filter(|remaining| !remaining.is_zero());
        if remaining.is_none() {
            *until = None;
        }
        remaining
    }

    /// Waits until calls are welcome.
    pub async fn welcome(&self) {
        while let Some(remaining) = self.remaining() {
            tokio::time::sleep(remaining).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(seconds: u64) -> CallError {
        CallError::Refused {
            method: http::Method::POST,
            path: "/api/v1/namespaces/d/pods".to_owned(),
            code: 429,
            reason: "TooManyRequests".to_owned(),
            message: "busy".to_owned(),
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn the_longest_that_was_asked_for_counts() {
        let backpressure = Backpressure::default();
        assert_eq!(backpressure.remaining(), None);
        backpressure.note(&busy(100));
        backpressure.note(&busy(1));
        let remaining = backpressure.remaining().expect("closed");
        assert!(remaining > Duration::from_secs(50), "{remaining:?}");
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten() {
        let backpressure = Backpressure::default();
        backpressure.note(&busy(0));
        backpressure.welcome().await;
        assert_eq!(backpressure.remaining(), None);
    }
}
