//! Amounts as numbers: the quantities of the API in thousandths, for sums and comparisons.

use serde_json::Value;

/// A quantity (`"1500m"`, `"10Gi"`, `2`) in thousandths, rounded up; 0 for what is none: the API server refuses those.
pub(crate) fn millis(quantity: &Value) -> i128 {
    match quantity {
        Value::String(text) => parse(text).unwrap_or(0),
        Value::Number(number) => parse(&number.to_string()).unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => 0,
    }
}

fn parse(text: &str) -> Option<i128> {
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c)))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scaled = scale(&format!("{whole}{fraction}"), suffix)?;
    let divisor = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some(scaled.div_euclid(divisor) + i128::from(scaled.rem_euclid(divisor) != 0))
}

/// The digits times what the suffix means, in thousandths; suffixes below a thousandth round up.
fn scale(digits: &str, suffix: &str) -> Option<i128> {
    let number: i128 = digits.parse().ok()?;
    let binary = |power: u32| number.checked_mul(1024i128.pow(power) * 1000);
    let decimal = |power: u32| number.checked_mul(10i128.checked_pow(power)?);
    match suffix {
        "n" => Some(number.div_euclid(1_000_000) + i128::from(number.rem_euclid(1_000_000) != 0)),
        "u" => Some(number.div_euclid(1000) + i128::from(number.rem_euclid(1000) != 0)),
        "m" => Some(number),
        "" => decimal(3),
        "k" => decimal(6),
        "M" => decimal(9),
        "G" => decimal(12),
        "T" => decimal(15),
        "P" => decimal(18),
        "E" => decimal(21),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            decimal(exponent.checked_add(3)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_as_numbers() {
        for (text, thousandths) in [
            ("1", 1000),
            ("100m", 100),
            ("1.5", 1500),
            ("0.5Gi", 536_870_912_000),
            ("1Ki", 1_024_000),
            ("1e3", 1_000_000),
            ("2E2", 200_000),
            ("1u", 1),
            ("nonsense", 0),
        ] {
            assert_eq!(millis(&Value::from(text)), thousandths, "{text}");
        }
        assert_eq!(millis(&Value::from(2)), 2000);
    }
}
