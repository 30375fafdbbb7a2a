//! Server-side apply: merge a configuration into the live object, by who owns what.

mod merge;
mod remove;

use serde_json::{Map, Value};

use super::compare::{self, Comparison};
use super::managers::{Entry, Identity, Managers, Operation};
use super::node::Node;
use super::set::FieldSet;
use super::{NEVER_OWNED, Writer, empty_object, managed_fields, reset_fields, set_managed_fields};
use crate::{prune, set_defaults};

/// The annotation in which client-side apply keeps its configuration.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager that owns what was there before an object was first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// A field that somebody else owns with another value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// `"bob" using apps/v1`, as upstream names the manager.
    pub manager: String,
    /// `.spec.template.spec.containers[name="main"].image`.
    pub field: String,
}

/// Why a configuration cannot be applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApplyError {
    /// Others own fields with other values: 409, one cause of type `FieldManagerConflict` each.
    #[error("{}", conflict_message(.0))]
    Conflicts(
        /// By manager and field.
        Vec<Conflict>,
    ),
    /// The configuration has another version than the endpoint: 400.
    #[error(
        "Incorrect version specified in apply patch. Specified patch version: {specified}, expected: {expected}"
    )]
    WrongVersion {
        /// What the configuration says.
        specified: String,
        /// What the endpoint serves.
        expected: String,
    },
    /// The configuration brings managedFields: 400.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsGiven,
    /// The configuration does not fit the type: an unknown field, a wrong type, a duplicate key.
    #[error("failed to create typed patch object: {path}: {message}")]
    NotTyped {
        /// `.spec.foo`.
        path: String,
        /// `field not declared in schema`, or the like.
        message: String,
    },
    /// The live object's managedFields cannot be read.
    #[error("failed to decode managed fields of the live object")]
    BadManagedFields,
    /// Kinds without a schema cannot be applied.
    #[error("no schema is known for {api_version} {kind}")]
    UnknownKind {
        /// As the configuration says.
        api_version: String,
        /// As the configuration says.
        kind: String,
    },
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.manager, only.field
        );
    }
    let mut said = format!("Apply failed with {} conflicts: ", conflicts.len());
    let mut last = "";
    for conflict in conflicts {
        if conflict.manager != last {
            said.push_str(&format!(
                "{}conflicts with {}:",
                if last.is_empty() { "" } else { "\n" },
                conflict.manager
            ));
            last = &conflict.manager;
        }
        said.push_str(&format!("\n- {}", conflict.field));
    }
    said
}

/// Applies `config` to `live` (create if none): the object that results, pruned and defaulted, with its managedFields.
///
/// `config` is the request's object as it came. With `force`, fields are taken from those who own them.
///
/// # Errors
/// See [`ApplyError`]; nothing is changed then.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let text = |name: &str| {
        config
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version != writer.api_version {
        return Err(ApplyError::WrongVersion {
            specified: api_version,
            expected: writer.api_version.to_owned(),
        });
    }
    if managed_fields(config).is_some_and(|given| !given.is_null()) {
        return Err(ApplyError::ManagedFieldsGiven);
    }
    let root = Node::of_kind(&api_version, &kind).ok_or(ApplyError::UnknownKind {
        api_version: api_version.clone(),
        kind: kind.clone(),
    })?;
    merge::check(root, config)?;
    let managers = Managers::decode(live.and_then(managed_fields).cloned())
        .map_err(|_| ApplyError::BadManagedFields)?;
    let mut base = live
        .cloned()
        .unwrap_or_else(|| empty_object(&api_version, &kind));
    set_managed_fields(&mut base, None);
    let application = Application {
        root,
        kind: &kind,
        api_version: &api_version,
        live: &base,
        config,
        writer,
    };
    let managers = application.managers_to_start_with(managers);
    let forced = force || application.may_take_over(&managers);
    let (object, managers) = application.run(managers, forced)?;
    Ok(application.finish(object, managers, live))
}

/// One application, with what it needs throughout.
struct Application<'a> {
    root: Node,
    kind: &'a str,
    api_version: &'a str,
    /// Without managedFields.
    live: &'a Value,
    config: &'a Value,
    writer: Writer<'a>,
}

impl Application<'_> {
    /// An object without managers gets one that owns all it has, so that applying finds conflicts.
    fn managers_to_start_with(&self, managers: Managers) -> Managers {
        if !managers.is_empty() {
            return managers;
        }
        let before = Writer {
            manager: BEFORE_FIRST_APPLY,
            ..self.writer
        };
        let empty = empty_object(self.api_version, self.kind);
        super::update(
            self.root,
            self.kind,
            &empty,
            self.live,
            managers,
            &before.identity(Operation::Update),
            &before,
        )
    }

    /// Merges, drops what is no longer applied, and works out who owns what; the object is none if it stays as it is.
    fn run(
        &self,
        mut managers: Managers,
        force: bool,
    ) -> Result<(Option<Value>, Managers), ApplyError> {
        let identity = self.writer.identity(Operation::Apply);
        let merged = merge::merge(self.root, self.live, self.config);
        let reset = reset_fields(self.kind, self.writer.subresource);
        let applied = compare::field_set(self.root, self.config).recursive_difference(&reset);
        let last = managers.0.get(&identity).cloned();
        let time = last.as_ref().and_then(|entry| entry.time.clone());
        let entry = Entry::new(self.api_version, applied, time);
        managers.0.insert(identity.clone(), entry);
        let merged = match &last {
            Some(last) if !last.is_empty() => {
                self.without_what_is_no_longer_applied(merged, &managers, &last.set())
            }
            Some(_) | None => merged,
        };
        let comparison = compare::compare(self.root, self.live, &merged).without(&reset);
        if !force {
            refuse_conflicts(&managers, &comparison, &identity)?;
        }
        managers.take_away(&comparison, Some(&identity));
        let changed = *self.live != merged;
        strip(&mut managers, &identity);
        if let Some(entry) = managers.0.get_mut(&identity).filter(|_| changed) {
            entry.time = self.writer.time();
        }
        Ok((changed.then_some(merged), managers))
    }

    /// Removes fields that this manager applied last time, does not apply now, and that nobody else owns.
    fn without_what_is_no_longer_applied(
        &self,
        merged: Value,
        managers: &Managers,
        last: &FieldSet,
    ) -> Value {
        let named = |set: &FieldSet| remove::with_named_fields(self.root, set);
        let fields = |object: &Value| named(&compare::field_set(self.root, object));
        let last = named(last);
        let all = fields(&merged);
        let pruned = remove::remove(self.root, &merged, &last);
        let owned = managers
            .0
            .values()
            .fold(FieldSet::default(), |sum, entry| sum.union(&entry.set()));
        let kept = fields(&pruned).union(&named(&owned));
        let pruned = remove::remove(self.root, &merged, &all.difference(&kept));
        let gone = all.difference(&fields(&pruned)).intersection(&last);
        remove::remove(self.root, &merged, &gone)
    }

    /// kubectl moves from client-side to server-side apply: conflicts over what it applied last are its own.
    fn may_take_over(&self, managers: &Managers) -> bool {
        if self.writer.manager != "kubectl" {
            return false;
        }
        let Err(ApplyError::Conflicts(conflicts)) = self.run(managers.clone(), false) else {
            return false;
        };
        let Some(allowed) = self.fields_last_applied() else {
            return false;
        };
        let allowed: Vec<String> = allowed
            .paths()
            .iter()
            .map(|path| path.iter().map(ToString::to_string).collect())
            .collect();
        conflicts
            .iter()
            .all(|conflict| allowed.contains(&conflict.field))
    }

    /// Fields that the annotation names and that are still as it says.
    fn fields_last_applied(&self) -> Option<FieldSet> {
        let annotation = self
            .live
            .get("metadata")?
            .get("annotations")?
            .get(LAST_APPLIED)?
            .as_str()?;
        let last: Value = serde_json::from_str(annotation).ok()?;
        if last.get("apiVersion")?.as_str()? != self.api_version {
            return None;
        }
        let Comparison {
            added,
            modified,
            removed,
        } = compare::compare(self.root, &last, self.live);
        Some(
            compare::field_set(self.root, &last)
                .difference(&modified)
                .difference(&added)
                .difference(&removed),
        )
    }

    fn finish(&self, object: Option<Value>, mut managers: Managers, live: Option<&Value>) -> Value {
        let mut object = object.unwrap_or_else(|| self.live.clone());
        object["apiVersion"] = Value::from(self.api_version);
        object["kind"] = Value::from(self.kind);
        prune(self.api_version, self.kind, &mut object);
        set_defaults(&mut object);
        self.keep_annotation(&mut object);
        if let Some(live) = live.filter(|_| object == *self.live) {
            keep_times(&mut managers, live);
        }
        set_managed_fields(&mut object, managers.encode(Vec::new()));
        object
    }

    /// kubectl keeps the annotation of client-side apply true where there is one.
    fn keep_annotation(&self, object: &mut Value) {
        if self.writer.manager != "kubectl" {
            return;
        }
        let annotation = object
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut);
        let Some(annotation) = annotation
            .and_then(|all| all.get_mut(LAST_APPLIED))
            .filter(|text| text.as_str().is_some_and(|text| !text.is_empty()))
        else {
            return;
        };
        let mut config = self.config.clone();
        if let Some(annotations) = config
            .pointer_mut("/metadata/annotations")
            .and_then(Value::as_object_mut)
        {
            annotations.remove(LAST_APPLIED);
        }
        *annotation = Value::String(format!("{config}\n"));
    }
}

fn refuse_conflicts(
    managers: &Managers,
    comparison: &Comparison,
    applier: &Identity,
) -> Result<(), ApplyError> {
    let changed = comparison.modified.union(&comparison.added);
    let mut conflicts = Vec::new();
    for (identity, entry) in managers
        .0
        .iter()
        .filter(|(identity, _)| *identity != applier)
    {
        for path in entry.set().intersection(&changed).paths() {
            conflicts.push(Conflict {
                manager: identity.sentence(),
                field: path.iter().map(ToString::to_string).collect(),
            });
        }
    }
    conflicts.sort();
    if conflicts.is_empty() {
        Ok(())
    } else {
        Err(ApplyError::Conflicts(conflicts))
    }
}

/// The applier never owns the object's identity; without any field it is no manager.
fn strip(managers: &mut Managers, identity: &Identity) {
    if let Some(entry) = managers.0.get_mut(identity) {
        entry.lose(&NEVER_OWNED);
    }
    managers.0.retain(|_, entry| !entry.is_empty());
}

/// Where nothing but times changed, nothing changed.
fn keep_times(managers: &mut Managers, live: &Value) {
    let Ok(before) = Managers::decode(managed_fields(live).cloned()) else {
        return;
    };
    for (identity, entry) in &mut managers.0 {
        if let Some(old) = before
            .0
            .get(identity)
            .filter(|old| old.set() == entry.set())
        {
            entry.time.clone_from(&old.time);
        }
    }
}

/// An empty JSON object, borrowed for as long as anything.
fn no_fields() -> &'static Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    &EMPTY
}
