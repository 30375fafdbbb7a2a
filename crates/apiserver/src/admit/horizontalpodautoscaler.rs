//! HorizontalPodAutoscalers, in both of their versions: bounds in order, a target that can be named.

use serde_json::{Value, json};

use super::cause::{Causes, Path};
use super::read::{get, int, text};
use super::strategy::Strategy;
use super::syntax;

pub(crate) const RULES: Strategy = Strategy {
    first_status,
    check,
    check_update: |_, new, wrong| check(new, wrong),
    ..Strategy::PLAIN
};

fn first_status(scaler: &Value) -> Value {
    if text(scaler, "apiVersion") == "autoscaling/v1" {
        json!({"currentReplicas": 0, "desiredReplicas": 0})
    } else {
        json!({"desiredReplicas": 0, "currentMetrics": null})
    }
}

fn check(scaler: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(scaler, "spec"), Path::root("spec"));
    let least = int(spec, "minReplicas");
    if let Some(least) = least.filter(|least| *least < 1) {
        wrong.invalid(
            &at.field("minReplicas"),
            least,
            "must be greater than or equal to 1",
        );
    }
    let most = int(spec, "maxReplicas").unwrap_or(0);
    if most < 1 {
        wrong.invalid(&at.field("maxReplicas"), most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        wrong.invalid(
            &at.field("maxReplicas"),
            most,
            "must be greater than or equal to `minReplicas`",
        );
    }
    let (target, at) = (get(spec, "scaleTargetRef"), at.field("scaleTargetRef"));
    for field in ["kind", "name"] {
        match text(target, field) {
            "" => wrong.required(&at.field(field), ""),
            word => wrong.complaints(&at.field(field), word, &syntax::path_segment(word)),
        }
    }
}
