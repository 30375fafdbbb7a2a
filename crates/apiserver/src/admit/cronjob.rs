//! CronJobs: a schedule that can be read, names short enough for the jobs' own.

use serde_json::Value;

use super::cause::{Causes, Path};
use super::read::{dig, get, has, text, yes};
use super::strategy::{Generation, Strategy};
use super::{job, pod_warnings, workload};

pub(crate) const RULES: Strategy = Strategy {
    check: |cron, wrong| {
        let name = text(get(cron, "metadata"), "name");
        if name.len() > MOST_NAME {
            wrong.invalid(
                &Path::root("metadata").field("name"),
                name,
                &format!("must be no more than {MOST_NAME} characters"),
            );
        }
        check(cron, wrong);
    },
    check_update: |_, new, wrong| check(new, wrong),
    warnings: |cron| {
        let at = Path::root("spec")
            .field("jobTemplate")
            .field("spec")
            .field("template");
        pod_warnings::of_template(dig(cron, &["spec", "jobTemplate", "spec", "template"]), &at)
    },
    generation: Generation::Spec,
    ..Strategy::PLAIN
};

/// The jobs' names add eleven characters and must stay labels.
const MOST_NAME: usize = 52;
/// The least and the most of each field of a schedule.
const FIELDS: [(u32, u32); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
const WORDS: [&str; 19] = [
    "sun", "mon", "tue", "wed", "thu", "fri", "sat", "jan", "feb", "mar", "apr", "may", "jun",
    "jul", "aug", "sep", "oct", "nov", "dec",
];

fn check(cron: &Value, wrong: &mut Causes) {
    let (spec, at) = (get(cron, "spec"), Path::root("spec"));
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        wrong.required(&at.field("schedule"), "");
    } else if !is_schedule(schedule) {
        wrong.invalid(
            &at.field("schedule"),
            schedule,
            "expected 5 fields of numbers, ranges and steps, or @every, @hourly and their like",
        );
    }
    if schedule.contains("TZ=") {
        wrong.invalid(
            &at.field("schedule"),
            schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        );
    }
    workload::non_negative(
        spec,
        &[
            "startingDeadlineSeconds",
            "successfulJobsHistoryLimit",
            "failedJobsHistoryLimit",
        ],
        &at,
        wrong,
    );
    match text(spec, "concurrencyPolicy") {
        "" => wrong.required(&at.field("concurrencyPolicy"), ""),
        policy => wrong.one_of(
            &at.field("concurrencyPolicy"),
            policy,
            &["Allow", "Forbid", "Replace"],
        ),
    }
    if has(spec, "timeZone") && text(spec, "timeZone").is_empty() {
        wrong.invalid(
            &at.field("timeZone"),
            "",
            "timeZone must be nil or non-empty string",
        );
    }
    let job_at = at.field("jobTemplate").field("spec");
    let job_spec = dig(spec, &["jobTemplate", "spec"]);
    if yes(job_spec, "manualSelector") {
        wrong.not_supported(&job_at.field("manualSelector"), "true", &["nil", "false"]);
    }
    job::check_spec(job_spec, &job_at, wrong);
}

fn is_schedule(text: &str) -> bool {
    if let Some(word) = text.strip_prefix('@') {
        return matches!(
            word,
            "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly"
        ) || word
            .strip_prefix("every ")
            .is_some_and(|span| span.chars().next().is_some_and(|c| c.is_ascii_digit()));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    fields.len() == FIELDS.len()
        && fields
            .iter()
            .zip(FIELDS)
            .all(|(field, (least, most))| field.split(',').all(|part| is_part(part, least, most)))
}

/// `*`, `7`, `1-5`, `*/15`, `mon`.
fn is_part(part: &str, least: u32, most: u32) -> bool {
    let (range, step) = part
        .split_once('/')
        .map_or((part, None), |(range, step)| (range, Some(step)));
    let step_fits = step.is_none_or(|step| step.parse::<u32>().is_ok_and(|step| step > 0));
    let number = |word: &str| {
        WORDS.contains(&word.to_lowercase().as_str())
            || word
                .parse::<u32>()
                .is_ok_and(|number| (least..=most).contains(&number))
    };
    let range_fits = matches!(range, "*" | "?")
        || range
            .split_once('-')
            .map_or_else(|| number(range), |(from, to)| number(from) && number(to));
    step_fits && range_fits
}
