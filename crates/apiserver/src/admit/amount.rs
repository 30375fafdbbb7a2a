//! Quantities as numbers that can be compared: thousandths of a billionth, exact for everything the schema admits.

use serde_json::Value;

const NANO: i128 = 1_000_000_000;

/// The quantity in billionths of one; nothing when it is no quantity.
pub(crate) fn nano(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => parse(text),
        Value::Number(number) => number.as_i64().map(|whole| i128::from(whole) * NANO),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn parse(text: &str) -> Option<i128> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (factor, divisor) = scale(suffix)?;
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut value = scaled(whole, 0, factor, divisor)?;
    value = value.checked_add(scaled(fraction, fraction.len(), factor, divisor)?)?;
    Some(if negative { -value } else { value })
}

/// `digits` / 10^`places`, times `factor` / `divisor` billionths; what is smaller is rounded up as upstream does.
fn scaled(digits: &str, places: usize, factor: i128, divisor: i128) -> Option<i128> {
    if digits.is_empty() {
        return Some(0);
    }
    let number: i128 = digits.parse().ok()?;
    let divisor = divisor.checked_mul(10_i128.checked_pow(u32::try_from(places).ok()?)?)?;
    let product = number.checked_mul(factor)?;
    Some(product / divisor + i128::from(product % divisor != 0))
}

/// What a suffix multiplies with, as billionths and a divisor.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |power: u32| NANO.checked_mul(10_i128.checked_pow(power)?);
    let binary = |power: u32| NANO.checked_mul(1024_i128.checked_pow(power)?);
    let factor = match suffix {
        "" => Some(NANO),
        "n" => return Some((1, 1)),
        "u" => return Some((1_000, 1)),
        "m" => return Some((1_000_000, 1)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => return exponent(suffix),
    };
    Some((factor?, 1))
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let ten = 10_i128.checked_pow(power.unsigned_abs())?;
    if power < 0 {
        Some((NANO, ten))
    } else {
        Some((NANO.checked_mul(ten)?, 1))
    }
}

/// Whether the quantity is a whole number.
pub(crate) fn is_whole(nano: i128) -> bool {
    nano % NANO == 0
}
