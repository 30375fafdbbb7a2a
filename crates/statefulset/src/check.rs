//! Rules that every decision must keep, whatever was observed.

use crate::decision::Decision;
use crate::observed::Observed;
use crate::step::Step;

/// A rule that a decision breaks: our own bug. Nothing of such a decision may be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Violation {
    /// The sentence that does not hold.
    pub rule: &'static str,
    /// What breaks it.
    pub what: String,
}

/// Every rule that the decision breaks; empty for a sound one.
pub fn all(seen: &Observed, decision: &Decision) -> Vec<Violation> {
    let mut violations = Vec::new();
    for step in decision.plan.steps() {
        if let Step::DeletePod { pod, uid, .. } = step
            && seen.pods.get(pod).is_none_or(|there| there.uid != *uid)
        {
            violations.push(Violation {
                rule: "a delete names a pod that was seen, by its UID",
                what: step.to_string(),
            });
        }
    }
    violations
}
