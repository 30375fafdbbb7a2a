//! The options of writes, from the query: dry run, field manager, field validation.

use crate::request::{Query, Verb};
use crate::status::{Cause, Status};

/// What to do about unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// The options of a create, update, patch or delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    /// As given, or made from the User-Agent.
    pub(crate) field_manager: String,
    pub(crate) field_validation: FieldValidation,
    /// Take fields over from others when applying.
    pub(crate) force: bool,
}

/// Reads and checks the options of a write.
///
/// # Errors
/// 422 about the options object.
pub(crate) fn write_options(
    query: &Query,
    verb: Verb,
    applies: bool,
    user_agent: &str,
) -> Result<WriteOptions, Status> {
    let mut causes = Vec::new();
    let field_validation = match query.get("fieldValidation") {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            causes.push(Cause::new("FieldValueNotSupported", "fieldValidation", format!("Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\"")));
            FieldValidation::Warn
        }
    };
    let dry_run = dry_run(&query.all("dryRun"), &mut causes);
    let manager = query.get("fieldManager");
    check_manager(manager, applies, &mut causes);
    if query.has("force") && !applies && verb == Verb::Patch {
        causes.push(Cause::new(
            "FieldValueForbidden",
            "force",
            "Forbidden: may not be specified for non-apply patch",
        ));
    }
    if !causes.is_empty() {
        return Err(Status::invalid(
            "meta.k8s.io",
            options_kind(verb),
            "",
            &causes,
        ));
    }
    let field_manager = if manager.is_empty() {
        default_manager(user_agent)
    } else {
        manager.to_owned()
    };
    Ok(WriteOptions {
        dry_run,
        field_manager,
        field_validation,
        force: query.flag("force"),
    })
}

/// Whether these `dryRun` values ask for a dry run; every value must be `All`.
pub(crate) fn dry_run(values: &[&str], causes: &mut Vec<Cause>) -> bool {
    if values.iter().any(|value| *value != "All") {
        causes.push(Cause::new(
            "FieldValueNotSupported",
            "dryRun",
            format!(
                "Unsupported value: \"{}\": supported values: \"All\"",
                values.join(",")
            ),
        ));
    }
    !values.is_empty()
}

fn check_manager(manager: &str, applies: bool, causes: &mut Vec<Cause>) {
    if applies && manager.is_empty() {
        causes.push(Cause::new(
            "FieldValueRequired",
            "fieldManager",
            "Required value: is required for apply patch",
        ));
    }
    if manager.len() > 128 {
        causes.push(Cause::new(
            "FieldValueTooLong",
            "fieldManager",
            "Too long: may not be more than 128 bytes",
        ));
    }
    if manager.chars().any(char::is_control) {
        causes.push(Cause::new(
            "FieldValueInvalid",
            "fieldManager",
            format!("Invalid value: {manager:?}: should only contain printable characters"),
        ));
    }
}

/// The kind of the options object in errors.
pub(crate) fn options_kind(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        Verb::Get | Verb::List | Verb::Watch | Verb::Connect => "ListOptions",
    }
}

/// Upstream's default: the User-Agent up to its first slash.
fn default_manager(user_agent: &str) -> String {
    let name: String = user_agent
        .split('/')
        .next()
        .unwrap_or("")
        .chars()
        .filter(|letter| !letter.is_control())
        .collect();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name.chars().take(128).collect()
    }
}
