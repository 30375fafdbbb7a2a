//! ResourceQuota: refuses what would exceed a quota of its namespace. What is used is counted anew each time, so that no
//! status has to be trusted.

use serde_json::Value;
use stead_schema::Kind;

use crate::admit::read::{get, text};
use crate::admit::{Context, Refusal};
use crate::quota::{self, Amounts};

/// Refuses an object that exceeds a quota. `old` is what it replaces: only what it takes beyond that counts.
pub(super) fn check(
    kind: &Kind,
    old: Option<&Value>,
    object: &Value,
    context: &Context<'_>,
) -> Result<(), Refusal> {
    let namespace = text(get(object, "metadata"), "namespace");
    if namespace.is_empty() {
        return Ok(());
    }
    let more = beyond(
        quota::taken(kind.group, kind.plural, object),
        old.map(|old| quota::taken(kind.group, kind.plural, old)),
    );
    if more.is_empty() {
        return Ok(());
    }
    for own in context.cluster.list("", "resourcequotas", namespace) {
        let limits = quota::hard(&own);
        if !limits.keys().any(|name| more.contains_key(name)) && !is_pod(kind) {
            continue;
        }
        if !quota::is_about(&own, kind.group, kind.plural, object) {
            continue;
        }
        let used = used(&own, namespace, context);
        if let Some(why) = quota::why_not(&own, object, &more, &used) {
            return Err(Refusal::forbidden(why));
        }
    }
    Ok(())
}

fn is_pod(kind: &Kind) -> bool {
    (kind.group, kind.plural) == ("", "pods")
}

/// What is taken beyond what was before.
fn beyond(now: Amounts, before: Option<Amounts>) -> Amounts {
    let Some(before) = before else { return now };
    let less = |(name, amount): (String, _)| {
        let more = match before.get(&name) {
            Some(before) => stead_schema::quantity::Quantity::minus(&amount, before),
            None => amount,
        };
        (more.sign() > 0).then_some((name, more))
    };
    now.into_iter().filter_map(less).collect()
}

fn used(own: &Value, namespace: &str, context: &Context<'_>) -> Amounts {
    let mut used = Amounts::new();
    for (group, plural) in quota::counted(own) {
        for object in context.cluster.list(&group, &plural, namespace) {
            if quota::is_about(own, &group, &plural, &object) {
                quota::add(&mut used, &quota::taken(&group, &plural, &object));
            }
        }
    }
    quota::limited(own, &used)
}
