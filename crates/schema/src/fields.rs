//! Who owns which field: `metadata.managedFields`, kept on every write, and server-side apply on top of it.
//!
//! Managers are known by name, operation, version and subresource. A write moves the fields that it changes to its
//! writer; applying moves what the configuration names, refuses to take what others hold unless forced, and drops
//! what the applier no longer names. `upstream: apimachinery/pkg/util/managedfields, structured-merge-diff`

mod apply;
mod compare;
mod managers;
mod node;
mod set;

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};

pub use apply::{ApplyError, Conflict, apply};
pub use set::{FieldSet, PathElement, Scalar};

use crate::prune;
use crate::times;
use compare::Comparison;
use managers::{Entry, Identity, Managers, Operation};
use node::Node;

/// Update managers beyond this number are merged into one, the oldest first.
const UPDATE_MANAGERS_MAX: usize = 10;
/// The name of the manager that oldest updates are merged into.
const ANCIENT: &str = "ancient-changes";

/// Who writes, through which door, when.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager's name; empty is `unknown`.
    pub manager: &'a str,
    /// `apps/v1`: the version of the object that the request speaks.
    pub api_version: &'a str,
    /// `` or `status`, `scale`, ...
    pub subresource: &'a str,
    /// The entry's time; kept in whole seconds.
    pub now: Timestamp,
}

impl Writer<'_> {
    fn identity(&self, operation: Operation) -> Identity {
        let manager = if self.manager.is_empty() {
            "unknown"
        } else {
            self.manager
        };
        let api_version = if operation == Operation::Apply {
            ""
        } else {
            self.api_version
        };
        Identity {
            manager: manager.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: self.subresource.to_owned(),
        }
    }

    /// Scaling leaves no time behind. `upstream: ScaleHandler.ToParent`
    fn time(&self) -> Option<String> {
        if self.subresource == "scale" {
            None
        } else {
            times::seconds(self.now)
        }
    }
}

/// The set of all fields of an object of this kind: leaves, list elements, map entries.
///
/// `None` if the table does not know the kind.
#[must_use]
pub fn field_set(api_version: &str, kind: &str, object: &Value) -> Option<FieldSet> {
    Node::of_kind(api_version, kind).map(|root| compare::field_set(root, object))
}

/// Writes into `new` the `managedFields` that follow from this write: a create if `old` is none.
///
/// `old` and `new` are pruned and defaulted; `new` is what the request asks for, before the server fills in what is
/// its own (status on create, cluster addresses). `new` may bring managedFields of its own: `[]` or `[{}]` clears
/// them, others are taken as the state before this write, except through a subresource. An object without any
/// managedFields is not tracked from an update on, nor is scaling one whose replicas nobody owns. Scaling is written
/// as a change of the scaled object. Kinds that the table does not know are tracked as free-form.
pub fn after_update(old: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let text = |name: &str| {
        new.get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let root = Node::of_kind(&api_version, &kind).unwrap_or(Node::Deduced);
    let given = take_managed_fields(new);
    let before = managers_before(old.and_then(managed_fields), given, writer.subresource);
    let is_tracked = old.is_none()
        || if writer.subresource == "scale" {
            before.own(&replicas())
        } else {
            !before.is_empty()
        };
    if !is_tracked {
        return set_managed_fields(new, before.encode(Vec::new()));
    }
    let empty = old.is_none().then(|| empty_object(&api_version, &kind));
    let live = old.or(empty.as_ref()).unwrap_or(&Value::Null);
    let mut after = update(
        root,
        &kind,
        live,
        new,
        before,
        &writer.identity(Operation::Update),
        &writer,
    );
    let apart = if writer.subresource == "scale" {
        scaled(&mut after, live, new)
    } else {
        Vec::new()
    };
    set_managed_fields(new, after.encode(apart));
}

/// What scaling changes.
fn replicas() -> [PathElement; 2] {
    [PathElement::field("spec"), PathElement::field("replicas")]
}

/// What scaling does to the managers beyond the change itself; the entries that it sets apart.
fn scaled(managers: &mut Managers, live: &Value, new: &Value) -> Vec<(Identity, Entry)> {
    let replicas_of = |object: &Value| object.pointer("/spec/replicas").and_then(Value::as_i64);
    // To a Scale, no replicas is no field: who scales to zero, and who owned the field before, owns nothing.
    if replicas_of(new) == Some(0) && replicas_of(live) != Some(0) {
        managers.forget(&replicas());
    }
    managers.set_apart(&replicas())
}

/// The managers that the request starts from.
fn managers_before(live: Option<&Value>, given: Option<Value>, subresource: &str) -> Managers {
    let of_live = || Managers::decode(live.cloned()).unwrap_or_default();
    if live == given.as_ref() {
        return Managers::decode(given).unwrap_or_default();
    }
    if !subresource.is_empty() {
        return of_live();
    }
    if is_reset(given.as_ref()) {
        return Managers::default();
    }
    match Managers::decode(given) {
        Ok(managers) if !managers.is_empty() && managers.are_readable() => managers,
        Ok(_) | Err(_) => of_live(),
    }
}

fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

/// Whether a client asks to forget all managers: an empty list, or one with one empty entry.
fn is_reset(given: Option<&Value>) -> bool {
    match given.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        Some(_) | None => false,
    }
}

fn take_managed_fields(object: &mut Value) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    metadata.remove("managedFields")
}

fn set_managed_fields(object: &mut Value, entries: Option<Value>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    match entries {
        Some(entries) => metadata.insert("managedFields".to_owned(), entries),
        None => metadata.remove("managedFields"),
    };
}

/// What Go's empty object of a kind looks like.
fn empty_object(api_version: &str, kind: &str) -> Value {
    let mut object = Value::Object(Map::new());
    prune::prune(api_version, kind, &mut object);
    object
}

/// The managers after the change from `live` to `new` by `identity`.
fn update(
    root: Node,
    kind: &str,
    live: &Value,
    new: &Value,
    mut managers: Managers,
    identity: &Identity,
    writer: &Writer<'_>,
) -> Managers {
    let comparison =
        compare::compare(root, live, new).without(&reset_fields(kind, writer.subresource));
    managers.take_away(&comparison, None);
    let Comparison {
        added,
        modified,
        removed: _,
    } = comparison;
    let mut changed = added;
    changed.absorb(modified);
    changed.subtract(&NEVER_OWNED);
    if !changed.is_empty() {
        if let Some(entry) = managers.0.get(identity) {
            changed.absorb(entry.set().into_owned());
        }
        let entry = Entry::new(writer.api_version, changed, writer.time());
        managers.0.insert(identity.clone(), entry);
    }
    managers.cap(UPDATE_MANAGERS_MAX, ANCIENT);
    managers
}

/// Fields that nobody owns: the object's identity and what the server keeps.
static NEVER_OWNED: LazyLock<FieldSet> = LazyLock::new(never_owned);

fn never_owned() -> FieldSet {
    let mut set = FieldSet::default();
    for name in ["apiVersion", "kind", "metadata"] {
        set.insert(&[PathElement::field(name)]);
    }
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.insert(&[PathElement::field("metadata"), PathElement::field(name)]);
    }
    set
}

/// Fields that writing through this door resets, so that nobody comes to own them by it.
///
/// `upstream: GetResetFields of the strategies in pkg/registry`
fn reset_fields(kind: &str, subresource: &str) -> FieldSet {
    let paths: &[&[&str]] = match (subresource, kind) {
        ("", _) | ("finalize", "Namespace") => &[&["status"]],
        ("status", "Pod") => &[
            &["spec"],
            &["metadata", "deletionTimestamp"],
            &["metadata", "ownerReferences"],
        ],
        ("status", "Deployment") => &[&["spec"], &["metadata", "labels"]],
        ("status", _) => &[&["spec"]],
        (_, _) => &[],
    };
    let mut set = FieldSet::default();
    for path in paths {
        set.insert(
            &path
                .iter()
                .copied()
                .map(PathElement::field)
                .collect::<Vec<_>>(),
        );
    }
    set
}

#[cfg(test)]
mod tests;
