//! What a controller's turn comes to when a call of it fails: wait as told, try again, or leave it to the next event.

use stead_controller::call::CallError;
use stead_controller::queue::Outcome;

/// Turns the end of a turn into what the queue should do. An object that is gone or changed meanwhile causes an event
/// of its own; all else is tried again.
pub(crate) fn of(
    controller: &'static str,
    key: &(impl std::fmt::Debug + Sync),
    done: Result<Outcome, CallError>,
) -> Outcome {
    match done {
        Ok(outcome) => outcome,
        Err(error) if error.is_not_found() || error.is_conflict() => {
            tracing::debug!(controller, ?key, %error, "overtaken; trying again");
            Outcome::Retry
        }
        Err(error) => {
            tracing::warn!(controller, ?key, %error, "failed; trying again");
            error
                .retry_after()
                .map_or(Outcome::Retry, Outcome::RetryAfter)
        }
    }
}
