//! RFC 3339 times as Go reads and writes them.

use jiff::Timestamp;

/// Reads an RFC 3339 time as Go's `time.Parse(time.RFC3339, ..)` does: `T` and a zone are needed, fractions may follow.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[10] == b'T'
        && bytes[13] == b':'
        && bytes[16] == b':';
    let zoned = text.ends_with('Z')
        || text.len() >= 25
            && matches!(bytes[text.len() - 6], b'+' | b'-')
            && bytes[text.len() - 3] == b':';
    let leaps = text.get(17..19) == Some("60");
    if !shaped || !zoned || leaps || !text.is_ascii() {
        return None;
    }
    text.parse().ok()
}

/// Reads a `metav1.MicroTime`: as [`parse`], with exactly six digits after the point.
pub(crate) fn parse_micro(text: &str) -> Option<Timestamp> {
    let digits = text
        .get(20..)?
        .bytes()
        .take_while(u8::is_ascii_digit)
        .count();
    parse(text).filter(|_| text.as_bytes().get(19) == Some(&b'.') && digits == 6)
}

/// `metav1.Time`: UTC, whole seconds; `None` for Go's zero time, which is written as null.
pub(crate) fn seconds(time: Timestamp) -> Option<String> {
    let whole = Timestamp::from_second(floor_second(time)).ok()?;
    Some(whole.to_string()).filter(|text| text != "0001-01-01T00:00:00Z")
}

/// `metav1.MicroTime`: UTC, always six digits; `None` for Go's zero time.
pub(crate) fn micros(time: Timestamp) -> Option<String> {
    let second = floor_second(time);
    let whole = Timestamp::from_second(second).ok()?;
    let micros = (time.as_nanosecond() - i128::from(second) * 1_000_000_000) / 1000;
    let text = whole.to_string();
    (text != "0001-01-01T00:00:00Z" || micros != 0)
        .then(|| format!("{}.{micros:06}Z", text.trim_end_matches('Z')))
}

fn floor_second(time: Timestamp) -> i64 {
    time.as_second() - i64::from(time.subsec_nanosecond() < 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_and_whole_seconds() {
        for (text, want) in [
            ("2024-05-06T07:08:09Z", Some("2024-05-06T07:08:09Z")),
            ("2024-05-06T07:08:09.999Z", Some("2024-05-06T07:08:09Z")),
            ("2024-05-06T07:08:09+02:00", Some("2024-05-06T05:08:09Z")),
            ("1969-12-31T23:59:59.5Z", Some("1969-12-31T23:59:59Z")),
            ("0001-01-01T00:00:00Z", None),
            ("2024-05-06 07:08:09Z", None),
            ("2024-05-06T07:08:09", None),
            ("2024-05-06", None),
            ("", None),
        ] {
            assert_eq!(parse(text).and_then(seconds).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn micro_times_have_six_digits() {
        let micro = |text| parse_micro(text).and_then(micros);
        assert_eq!(
            micro("2024-05-06T07:08:09.123456Z").as_deref(),
            Some("2024-05-06T07:08:09.123456Z")
        );
        assert_eq!(
            micro("2024-05-06T07:08:09.120000+01:00").as_deref(),
            Some("2024-05-06T06:08:09.120000Z")
        );
        for text in [
            "2024-05-06T07:08:09Z",
            "2024-05-06T07:08:09.1234567Z",
            "2024-05-06T07:08:09.12345Z",
        ] {
            assert_eq!(parse_micro(text), None, "{text}");
        }
    }
}
