//! Server-side apply: `application/apply-patch+yaml`.

use crate::handle::{Outcome, Scene};
use crate::status::Status;

/// Applies a configuration.
pub(crate) fn apply(_scene: &mut Scene<'_>) -> Result<Outcome, Status> {
    Err(Status::unsupported_media_type("application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json"))
}
