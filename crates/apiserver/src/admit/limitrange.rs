//! LimitRanges: one item a type, known resources, and minimum <= default request <= default <= maximum.

use std::collections::BTreeSet;

use serde_json::Value;
use stead_schema::quantity;

use super::cause::{Causes, Path};
use super::pod_spec_resources::{check_quantity, resource_name};
use super::read::{entries, get, has, list, text};
use super::strategy::{Again, Strategy};
use super::syntax;

pub(crate) const RULES: Strategy = Strategy {
    check,
    check_update: |_, new, wrong| check(new, wrong),
    metadata_again: Again::Everything,
    create_on_update: true,
    ..Strategy::PLAIN
};

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
/// The bounds that must not cross, smaller first.
const ORDER: [(&str, &str); 6] = [
    ("min", "max"),
    ("min", "defaultRequest"),
    ("min", "default"),
    ("defaultRequest", "max"),
    ("defaultRequest", "default"),
    ("default", "max"),
];

fn check(range: &Value, wrong: &mut Causes) {
    let at = Path::root("spec").field("limits");
    let mut types = BTreeSet::new();
    for (index, limit) in list(get(range, "spec"), "limits").iter().enumerate() {
        let at = at.index(index);
        let own = text(limit, "type");
        wrong.complaints(&at.field("type"), own, &syntax::qualified_name(own));
        if !own.contains('/') && !TYPES.contains(&own) {
            wrong.invalid(
                &at.field("type"),
                own,
                "must be a standard limit type or fully qualified",
            );
        }
        if !types.insert(own) {
            wrong.duplicate(&at.field("type"), own);
        }
        check_limit(limit, own, &at, wrong);
    }
}

fn check_limit(limit: &Value, own: &str, at: &Path, wrong: &mut Causes) {
    let mut names = BTreeSet::new();
    for field in [
        "max",
        "min",
        "default",
        "defaultRequest",
        "maxLimitRequestRatio",
    ] {
        for (name, amount) in entries(limit, field) {
            resource_name(name, &at.field(field).key(name), wrong);
            check_quantity(name, amount, &at.field(field).key(name), wrong);
            names.insert(name);
        }
    }
    if own == "Pod" {
        for field in ["default", "defaultRequest"] {
            if has(limit, field) {
                wrong.forbidden(
                    &at.field(field),
                    "may not be specified when `type` is 'Pod'",
                );
            }
        }
    }
    if own == "PersistentVolumeClaim"
        && !has(get(limit, "min"), "storage")
        && !has(get(limit, "max"), "storage")
    {
        wrong.required(
            at,
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    for name in names {
        in_order(limit, name, at, wrong);
    }
}

fn in_order(limit: &Value, name: &str, at: &Path, wrong: &mut Causes) {
    for (low, high) in ORDER {
        let (least, most) = (get(get(limit, low), name), get(get(limit, high), name));
        if let (Some(below), Some(above)) = (quantity::nanos_of(least), quantity::nanos_of(most))
            && below > above
        {
            let (shown_low, shown_high) =
                (least.as_str().unwrap_or(""), most.as_str().unwrap_or(""));
            wrong.invalid(
                &at.field(low).key(name),
                least.clone(),
                &format!("{low} value {shown_low} is greater than {high} value {shown_high}"),
            );
        }
    }
    let ratio = quantity::nanos_of(get(get(limit, "maxLimitRequestRatio"), name));
    if let Some(ratio) = ratio.filter(|ratio| *ratio < 1_000_000_000) {
        let shown = get(get(limit, "maxLimitRequestRatio"), name).clone();
        wrong.invalid(
            &at.field("maxLimitRequestRatio").key(name),
            shown,
            &format!("ratio {ratio} is less than 1"),
        );
    }
}
