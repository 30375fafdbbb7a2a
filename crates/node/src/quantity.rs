//! Amounts as Kubernetes writes them (`500m`, `1Gi`, `2e3`), exactly, in thousandths of a thousandth of a thousandth.

/// One unit, in the nano units that [`parse`] counts.
const UNIT: i128 = 1_000_000_000;

/// The amount in billionths of a unit; `None` when the text is no quantity.
///
/// Upstream: `resource.ParseQuantity`, which also rounds up below a billionth.
pub(crate) fn parse(text: &str) -> Option<i128> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (times, per) = scale(suffix)?;
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digit = |c: char| c.to_digit(10).map(i128::from);
    let mut value: i128 = 0;
    for c in whole.chars() {
        value = value.checked_mul(10)?.checked_add(digit(c)?)?;
    }
    let mut divisor: i128 = 1;
    for c in fraction.chars().take(18) {
        value = value.checked_mul(10)?.checked_add(digit(c)?)?;
        divisor = divisor.checked_mul(10)?;
    }
    let top = value.checked_mul(times)?.checked_mul(UNIT)?;
    let bottom = divisor.checked_mul(per)?;
    let rounded = top.checked_add(bottom - 1)? / bottom;
    Some(if negative { -rounded } else { rounded })
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, UNIT),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

/// The amount in whole units, rounded up; `None` when it is no quantity or below zero.
pub(crate) fn whole(text: &str) -> Option<u64> {
    divide(parse(text)?, UNIT)
}

/// The amount in thousandths, rounded up; `None` when it is no quantity or below zero.
pub(crate) fn millis(text: &str) -> Option<u64> {
    divide(parse(text)?, UNIT / 1_000)
}

/// `amount / divisor`, both quantities, rounded up: what `resourceFieldRef` gives.
pub(crate) fn ratio(amount: &str, divisor: &str) -> Option<u64> {
    let divisor = match parse(divisor)? {
        0 => UNIT,
        some => some,
    };
    divide(parse(amount)?, divisor)
}

fn divide(amount: i128, by: i128) -> Option<u64> {
    if by <= 0 || amount < 0 {
        return None;
    }
    u64::try_from(amount.checked_add(by - 1)? / by).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suffix_family_is_read_and_rounded_up() {
        for (text, millis_expected) in [
            ("1", 1_000),
            ("500m", 500),
            ("0.5", 500),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("2e3", 2_000_000),
            ("1E", 1_000_000_000_000_000_000_000_u128),
            ("1n", 1),
            (".5Mi", 524_288_000),
        ] {
            let got = parse(text).map(|nano| (nano + 999_999) / 1_000_000);
            assert_eq!(got, i128::try_from(millis_expected).ok(), "{text}");
        }
        for wrong in ["", "x", "1Q", "--1", "1.2.3", "e3"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(
            (whole("1.1"), millis("1u"), ratio("32Mi", "1Mi")),
            (Some(2), Some(1), Some(32))
        );
        assert_eq!((whole("-1"), ratio("33Mi", "10Mi")), (None, Some(4)));
    }
}
