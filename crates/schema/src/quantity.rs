//! `resource.Quantity`: parsing, canonical text, comparison.
//!
//! A quantity is kept as whole nano units, rounded away from zero as upstream rounds, and its suffix family.
//! Binary amounts beyond 2^63-1 are held at that, as upstream holds them.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

const NANO: i128 = 1_000_000_000;
/// The greatest amount, in nano units: 10^28, far beyond what anybody counts.
const MOST: i128 = 10_i128.pow(37);
/// The greatest amount with a binary suffix, in nano units.
const MOST_BINARY: i128 = (i64::MAX as i128) * NANO;
/// Digits after the point that binary amounts keep; more are rounded up.
const BINARY_DIGITS: usize = 18;

/// The family of suffixes that a quantity was written with, and is written with again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `100m`, `1k`, `5G`.
    DecimalSi,
    /// `64Ki`, `1Gi`.
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

/// A fixed-point number. Equality and order are those of the amounts: `1000m` equals `1`.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity; the words are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a suffix at all.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// A number, but no suffix that is known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// No digits.
    #[error("unable to parse numeric part of quantity")]
    Number,
}

impl Quantity {
    /// Reads `100m`, `1.5Gi`, `1e3`, `-2`.
    ///
    /// # Errors
    /// See [`QuantityError`].
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        Self::read(text).map(|(quantity, _)| quantity)
    }

    /// The quantity, and whether upstream takes its text for canonical.
    fn read(text: &str) -> Result<(Self, bool), QuantityError> {
        let parts = Parts::split(text)?;
        let (scale, format) = scale_of(parts.suffix)?;
        let amount = match scale {
            Scale::Decimal(exponent) if parts.fits_decimal(exponent) => parts.decimal(exponent),
            Scale::Binary(power) if parts.fits_binary(power) => parts.binary(power),
            // Numbers that upstream cannot count in 64 bits must have digits.
            Scale::Decimal(_) | Scale::Binary(_) if !parts.has_digits => {
                return Err(QuantityError::Number);
            }
            Scale::Decimal(exponent) => parts.decimal(exponent),
            Scale::Binary(power) => parts.binary(power),
        };
        let quantity = Self {
            nanos: if parts.negative { -amount } else { amount },
            format,
        };
        Ok((quantity, parts.is_canonical(&scale)))
    }

    /// The amount in whole units, rounded away from zero; held at the bounds of `i64`.
    #[must_use]
    pub fn value(&self) -> i64 {
        whole(divide_up(self.nanos, NANO))
    }

    /// The amount in thousandths, rounded away from zero; held at the bounds of `i64`.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        whole(divide_up(self.nanos, NANO / 1000))
    }

    /// The amount in billionths of one unit, exact.
    #[must_use]
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// The amount rounded away from zero to thousandths, as the API server stores resource lists.
    #[must_use]
    pub fn rounded_to_milli(&self) -> Self {
        Self {
            nanos: divide_up(self.nanos, NANO / 1000) * (NANO / 1000),
            format: self.format,
        }
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn sign(&self) -> i32 {
        match self.nanos.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// Whether the amount is no whole number of units.
    #[must_use]
    pub fn is_fractional(&self) -> bool {
        self.nanos % NANO != 0
    }

    /// The sum, in the family of `self`; held at the greatest amount.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            nanos: self.nanos.saturating_add(other.nanos).clamp(-MOST, MOST),
            format: self.format,
        }
    }

    /// The difference, in the family of `self`; held at the greatest amount.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(other.nanos).clamp(-MOST, MOST),
            format: self.format,
        }
    }
}

/// The canonical text of a quantity: `1000m` is `1`, `1024Mi` is `1Gi`, `0.5` is `500m`.
///
/// Texts that upstream takes for canonical at a glance stay as they are, with their leading zeros (`010k`).
///
/// # Errors
/// See [`QuantityError`].
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    let (quantity, is_canonical) = Quantity::read(text)?;
    Ok(if is_canonical {
        text.to_owned()
    } else {
        quantity.to_string()
    })
}

/// The text that the API server stores in a resource list: canonical, rounded up to thousandths.
///
/// # Errors
/// See [`QuantityError`].
pub fn canonical_in_list(text: &str) -> Result<String, QuantityError> {
    let (quantity, _) = Quantity::read(text)?;
    let rounded = quantity.rounded_to_milli();
    if rounded == quantity {
        canonical(text)
    } else {
        Ok(rounded.to_string())
    }
}

/// The amount of a JSON value (a text, or a number) in billionths of one unit; `None` when it is no quantity.
#[must_use]
pub fn nanos_of(value: &Value) -> Option<i128> {
    let quantity = match value {
        Value::String(text) => Quantity::parse(text),
        Value::Number(number) => Quantity::parse(&number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    quantity.ok().map(|quantity| quantity.nanos())
}

/// Whether an amount in billionths is a whole number of units.
#[must_use]
pub fn is_whole(nanos: i128) -> bool {
    nanos % NANO == 0
}

/// Compares two texts by amount; `None` if either is no quantity.
#[must_use]
pub fn compare(left: &str, right: &str) -> Option<Ordering> {
    Some(
        Quantity::parse(left)
            .ok()?
            .cmp(&Quantity::parse(right).ok()?),
    )
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return out.write_str("0");
        }
        match self.format {
            // Small or fractional amounts would lose by a binary suffix: upstream writes decimals.
            Format::BinarySi if self.nanos.abs() >= 1024 * NANO && !self.is_fractional() => {
                binary_text(self.nanos / NANO, out)
            }
            Format::BinarySi | Format::DecimalSi => decimal_text(self.nanos, false, out),
            Format::DecimalExponent => decimal_text(self.nanos, true, out),
        }
    }
}

fn binary_text(mut whole: i128, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut power = 0;
    while power + 1 < SUFFIXES.len() && whole % 1024 == 0 {
        whole /= 1024;
        power += 1;
    }
    write!(out, "{whole}{}", SUFFIXES[power])
}

fn decimal_text(mut nanos: i128, as_exponent: bool, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let mut thirds = 0;
    while thirds + 1 < SUFFIXES.len() && nanos % 1000 == 0 {
        nanos /= 1000;
        thirds += 1;
    }
    match (as_exponent, thirds) {
        (true, 3) => write!(out, "{nanos}"),
        (true, _) => write!(out, "{nanos}e{}", thirds.cast_signed() * 3 - 9),
        (false, _) => write!(out, "{nanos}{}", SUFFIXES[thirds]),
    }
}

fn whole(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

fn divide_up(amount: i128, by: i128) -> i128 {
    amount / by + if amount % by == 0 { 0 } else { amount.signum() }
}

/// A text taken apart: sign, digits before and after the point, suffix.
struct Parts<'a> {
    negative: bool,
    /// Without leading zeros.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
    /// Whether any digit stood there, zeros included.
    has_digits: bool,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let (whole, rest) = digits(unsigned);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
        if !suffix_is_well_formed(suffix) {
            return Err(QuantityError::Format);
        }
        let has_digits = !whole.is_empty() || !fraction.is_empty();
        Ok(Self {
            negative,
            whole: whole.trim_start_matches('0'),
            fraction,
            suffix,
            has_digits,
        })
    }

    /// The digits that count, as upstream counts them: no whole part is one zero.
    fn length(&self) -> i64 {
        i64::try_from(self.whole.len().max(1) + self.fraction.len()).unwrap_or(i64::MAX)
    }

    /// Whether upstream counts the decimal amount in 64 bits.
    fn fits_decimal(&self, exponent: i32) -> bool {
        let places = i64::try_from(self.fraction.len()).unwrap_or(i64::MAX / 2);
        self.length() <= 18 && i64::from(exponent) - places >= -9
    }

    /// Whether upstream counts the binary amount in 64 bits.
    fn fits_binary(&self, power: u32) -> bool {
        self.fraction.is_empty() && self.length() + i64::from(power) * 3 < 15
    }

    /// Whether upstream keeps the text as it is: a quick look says that it is canonical.
    fn is_canonical(&self, scale: &Scale) -> bool {
        match scale {
            Scale::Binary(power) => {
                self.fits_binary(*power)
                    && self
                        .whole
                        .bytes()
                        .fold(0_u64, |sum, byte| (sum * 10 + u64::from(byte - b'0')) % 8)
                        != 0
            }
            Scale::Decimal(exponent) => {
                let places = i64::try_from(self.fraction.len()).unwrap_or(i64::MAX / 2);
                let thousands = self.fraction.ends_with("000")
                    || self.fraction.len() < 3
                        && format!("{}{}", self.whole, self.fraction).ends_with("000");
                self.fits_decimal(*exponent)
                    && (i64::from(*exponent) - places) % 3 == 0
                    && !thousands
                    && !self.whole.is_empty()
            }
        }
    }

    /// The amount in nano units with the point moved `exponent` places to the right.
    fn decimal(&self, exponent: i32) -> i128 {
        let mut left =
            i64::from(exponent) + 9 + i64::try_from(self.whole.len()).unwrap_or(i64::MAX / 2);
        let mut amount: i128 = 0;
        for digit in self
            .whole
            .bytes()
            .chain(self.fraction.bytes())
            .map(|byte| i128::from(byte - b'0'))
        {
            if left <= 0 {
                if digit != 0 {
                    return (amount + 1).min(MOST);
                }
                continue;
            }
            amount = amount.saturating_mul(10).saturating_add(digit).min(MOST);
            left -= 1;
        }
        while left > 0 && amount != 0 && amount < MOST {
            amount = amount.saturating_mul(10).min(MOST);
            left -= 1;
        }
        amount
    }

    /// The amount in nano units times 1024 to the `power`.
    fn binary(&self, power: u32) -> i128 {
        let unit = 1024_i128.pow(power);
        let whole = self.whole.bytes().fold(0_i128, |sum, byte| {
            sum.saturating_mul(10)
                .saturating_add(i128::from(byte - b'0'))
        });
        let mut fraction: i128 = 0;
        for at in 0..BINARY_DIGITS {
            fraction = fraction * 10
                + self
                    .fraction
                    .as_bytes()
                    .get(at)
                    .map_or(0, |byte| i128::from(byte - b'0'));
        }
        if self
            .fraction
            .bytes()
            .skip(BINARY_DIGITS)
            .any(|byte| byte != b'0')
        {
            fraction += 1;
        }
        // 18 fractional digits less the 9 of nano units.
        let fraction = divide_up(fraction.saturating_mul(unit), NANO);
        whole
            .saturating_mul(unit)
            .saturating_mul(NANO)
            .saturating_add(fraction)
            .min(MOST_BINARY)
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.bytes()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`
fn suffix_is_well_formed(suffix: &str) -> bool {
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let number = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    number.bytes().all(|byte| byte.is_ascii_digit())
}

enum Scale {
    /// Powers of ten.
    Decimal(i32),
    /// Powers of 1024.
    Binary(u32),
}

fn scale_of(suffix: &str) -> Result<(Scale, Format), QuantityError> {
    let decimal = |exponent| Ok((Scale::Decimal(exponent), Format::DecimalSi));
    let binary = |power| Ok((Scale::Binary(power), Format::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
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
        _ => {
            let exponent = suffix
                .strip_prefix(['e', 'E'])
                .and_then(|number| number.parse::<i32>().ok());
            exponent
                .map(|exponent| (Scale::Decimal(exponent), Format::DecimalExponent))
                .ok_or(QuantityError::Suffix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_texts_or_numbers() {
        for (value, nanos) in [
            (Value::from("1500m"), Some(1_500_000_000)),
            (Value::from("0.5Gi"), Some(536_870_912_000_000_000)),
            (Value::from(2), Some(2_000_000_000)),
            (Value::from(0.5), Some(500_000_000)),
            (Value::from("nonsense"), None),
            (Value::Null, None),
        ] {
            assert_eq!(nanos_of(&value), nanos, "{value}");
        }
        assert!(is_whole(2_000_000_000) && !is_whole(1_500_000_000));
    }

    #[test]
    fn texts_become_canonical() {
        let cases = "
            0 0 | 0Ki 0 | -0 0 | 1000m 1 | 1024Mi 1Gi | 0.5 500m | 1.5Gi 1536Mi | 100e3 100e3 | 1e3 1e3 | 1E 1E | 1e0 1e0
            0.1Ki 102400m | 1023 1023 | 1025Ki 1025Ki | 0.5Mi 512Ki | 1500 1500 | 0.1Gi 107374182400m | 1000 1k
            0.0000000001 1n | -0.0000000001 -1n | 1000000 1M | 1.001 1.001 | 1.0010 1001m | -1.5 -1500m | .5 500m | 5. 5. | 1e-3 1e-3
            9Ei 9223372036854775807 | 9223372036854775807 9223372036854775807 | 10e20 1000e18 | 0920k 0920k | 08Ki 8Ki
        ";
        for case in cases
            .split(['|', '\n'])
            .map(str::trim)
            .filter(|case| !case.is_empty())
        {
            let (text, want) = case.split_once(' ').expect("each case is two words");
            assert_eq!(canonical(text).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(canonical_in_list("100u").as_deref(), Ok("1m"));
        assert_eq!(canonical_in_list("1024Mi").as_deref(), Ok("1Gi"));
    }

    #[test]
    fn what_is_no_quantity_says_why() {
        for (text, why) in [
            ("", QuantityError::Format),
            ("a", QuantityError::Format),
            ("1x", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1 ", QuantityError::Format),
            ("1mi", QuantityError::Suffix),
            ("1KiB", QuantityError::Format),
            ("1K", QuantityError::Suffix),
            ("Pi", QuantityError::Number),
        ] {
            assert_eq!(canonical(text), Err(why), "{text}");
        }
    }

    #[test]
    fn amounts_are_compared_and_not_texts() {
        assert_eq!(compare("1000m", "1"), Some(Ordering::Equal));
        assert_eq!(compare("1Gi", "1G"), Some(Ordering::Greater));
        assert_eq!(compare("1", "x"), None);
        let quantity = Quantity::parse("1500m").expect("it is one");
        assert_eq!((quantity.value(), quantity.milli_value()), (2, 1500));
        assert_eq!(quantity.plus(&quantity).to_string(), "3");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,40}") {
            let _ = canonical(&text);
        }

        #[test]
        fn canonical_texts_are_stable_and_keep_the_amount(text in "[-+]?[0-9]{0,22}(\\.[0-9]{1,14})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,3})?") {
            if let Ok(once) = canonical(&text) {
                prop_assert_eq!(canonical(&once).expect("canonical texts parse"), once);
            }
        }
    }
}
