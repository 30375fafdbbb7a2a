//! Priority: a pod's class becomes its number; at most one class is the default.

use serde_json::{Value, json};

use crate::admit::priorityclass::SYSTEM;
use crate::admit::read::{get, has, int, map_mut, text, yes};
use crate::admit::{Context, Refusal};

const GROUP: &str = "scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";

struct Resolved {
    name: String,
    value: i64,
    preemption: String,
}

/// Fills in the priority of a new pod from its class, or from the default class, or with zero.
pub(super) fn resolve(pod: &mut Value, context: &Context<'_>) -> Result<(), Refusal> {
    let spec = get(pod, "spec");
    let found = match text(spec, "priorityClassName") {
        "" => default_class(context),
        name => named(name, context).ok_or_else(|| {
            Refusal::forbidden(format!("no PriorityClass with name {name} was found"))
        })?,
    };
    if let Some(said) = int(spec, "priority").filter(|said| *said != found.value) {
        let computed = found.value;
        return Err(Refusal::forbidden(format!(
            "the integer value of priority ({said}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
        )));
    }
    let said = text(spec, "preemptionPolicy");
    if !said.is_empty() && said != found.preemption {
        let computed = &found.preemption;
        return Err(Refusal::forbidden(format!(
            "the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
        )));
    }
    let spec = map_mut(pod, "spec");
    if !found.name.is_empty() {
        spec.insert("priorityClassName".to_owned(), found.name.into());
    }
    spec.insert("priority".to_owned(), json!(found.value));
    spec.insert("preemptionPolicy".to_owned(), found.preemption.into());
    Ok(())
}

fn named(name: &str, context: &Context<'_>) -> Option<Resolved> {
    if let Some(class) = context.cluster.get(GROUP, "priorityclasses", "", name) {
        return Some(of_class(&class));
    }
    let (name, value) = SYSTEM.iter().find(|(system, _)| *system == name)?;
    Some(Resolved {
        name: (*name).to_owned(),
        value: *value,
        preemption: PREEMPT.to_owned(),
    })
}

fn default_class(context: &Context<'_>) -> Resolved {
    let classes = context.cluster.list(GROUP, "priorityclasses", "");
    // upstream: of several defaults the lowest counts.
    let default = classes
        .iter()
        .filter(|class| yes(class, "globalDefault"))
        .min_by_key(|class| int(class, "value"));
    default.map_or_else(
        || Resolved {
            name: String::new(),
            value: 0,
            preemption: PREEMPT.to_owned(),
        },
        of_class,
    )
}

fn of_class(class: &Value) -> Resolved {
    let preemption = match text(class, "preemptionPolicy") {
        "" => PREEMPT,
        policy => policy,
    };
    Resolved {
        name: text(get(class, "metadata"), "name").to_owned(),
        value: int(class, "value").unwrap_or(0),
        preemption: preemption.to_owned(),
    }
}

/// A client that writes a pod back without its priority means the same pod.
pub(super) fn keep(old: &Value, new: &mut Value) {
    for field in ["priority", "preemptionPolicy"] {
        let before = get(get(old, "spec"), field);
        if !before.is_null() && !has(get(new, "spec"), field) {
            map_mut(new, "spec").insert(field.to_owned(), before.clone());
        }
    }
}

/// At most one class is the default.
pub(super) fn one_default(class: &Value, context: &Context<'_>) -> Result<(), Refusal> {
    if !yes(class, "globalDefault") {
        return Ok(());
    }
    let name = text(get(class, "metadata"), "name");
    let classes = context.cluster.list(GROUP, "priorityclasses", "");
    let other = classes
        .iter()
        .find(|other| yes(other, "globalDefault") && text(get(other, "metadata"), "name") != name);
    match other {
        None => Ok(()),
        Some(other) => {
            let theirs = text(get(other, "metadata"), "name");
            Err(Refusal::forbidden(format!(
                "PriorityClass {theirs} is already marked as default. Only one default can exist"
            )))
        }
    }
}
