//! Subresources that are more than another view of the object: scale, binding, eviction, finalize, tokens, and the streams of pods.

mod binding;
pub(crate) mod connect;
mod eviction;
mod scale;
mod token;

use crate::handle::{Outcome, Scene};
use crate::request::Verb;
use crate::reviews;
use crate::status::Status;

/// Answers what the generic verbs cannot; none for everything else.
pub(crate) fn special(scene: &mut Scene<'_>) -> Option<Result<Outcome, Status>> {
    let target = &scene.asked.target;
    if reviews::is_review(target) {
        return Some(reviews::review(scene));
    }
    match (
        target.kind.plural,
        target.subresource.as_str(),
        scene.asked.verb,
    ) {
        (_, "scale", _) => Some(scale::scale(scene)),
        ("pods", "binding", Verb::Create) | ("bindings", "", Verb::Create) => {
            Some(binding::bind(scene))
        }
        ("pods", "eviction", Verb::Create) => Some(eviction::evict(scene)),
        ("serviceaccounts", "token", Verb::Create) => Some(token::create(scene)),
        _ => None,
    }
}
