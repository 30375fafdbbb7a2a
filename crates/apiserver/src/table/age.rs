//! Ages as people read them: two units at most, coarser the older a thing is.
//!
//! Upstream: `duration.HumanDuration`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::admit::read::{get, text};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How long ago the object was created.
pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    json!(since(
        text(get(object, "metadata"), "creationTimestamp"),
        now
    ))
}

/// How long ago a time was; `<unknown>` when there is no time.
pub(super) fn since(time: &str, now: Timestamp) -> String {
    time.parse::<Timestamp>().map_or_else(
        |_| "<unknown>".to_owned(),
        |then| human(now.as_second() - then.as_second()),
    )
}

/// A number of seconds as people read it.
pub(super) fn human(seconds: i64) -> String {
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}
