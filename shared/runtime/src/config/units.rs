//! Quantities as people write them. A size may be a bare number of octets; a length of time always
//! names its unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Binary and decimal units of octets, the ones we print first, each kind with the largest first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];
/// Units of time in milliseconds, the largest first.
const SPAN_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];
/// Longest length of time: a hundred years. Beyond it sums with the clock could overflow.
const SPAN_MAX: Duration = Duration::from_hours(100 * 366 * 24);

/// A number of octets: `50 MiB`, `4 KiB`, `1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Size(pub u64);

/// A length of time: `30 s`, `5 min`, `4 h`, `5 d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Span(pub Duration);

impl TryFrom<toml::Value> for Size {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let remedy = "write a whole number with a unit, such as \"50 MiB\" (B, KiB, MiB, GiB, TiB, or kB, MB, GB, TB)";
        match &value {
            toml::Value::Integer(octets) => u64::try_from(*octets).ok(),
            toml::Value::String(text) => quantity(text, &SIZE_UNITS),
            _ => None,
        }
        .map(Self)
        .ok_or_else(|| format!("{value} is no size; {remedy}"))
    }
}

impl TryFrom<toml::Value> for Span {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let remedy = "write a whole number with a unit, such as \"30 s\" (ms, s, min, h, d, w)";
        let span = match &value {
            toml::Value::String(text) if text.trim() == "0" => Some(0),
            toml::Value::String(text) => quantity(text, &SPAN_UNITS),
            _ => None,
        }
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{value} is no length of time; {remedy}"))?;
        if span > SPAN_MAX { Err(format!("{value} is longer than a hundred years")) } else { Ok(Self(span)) }
    }
}

/// For command lines.
impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(toml::Value::String(text.to_owned()))
    }
}

/// For command lines.
impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(toml::Value::String(text.to_owned()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quantity(f, self.0, &SIZE_UNITS)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quantity(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &SPAN_UNITS)
    }
}

/// `50 MiB` or `50MiB`; the case of the unit does not matter. None if it is no such thing, or too large.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// In the largest unit that leaves no remainder.
fn write_quantity(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let smallest = units.last().copied().unwrap_or(("", 1));
    let (unit, factor) =
        units.iter().copied().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor)).unwrap_or(smallest);
    write!(f, "{} {unit}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(value: impl Into<toml::Value>) -> Result<Size, String> {
        Size::try_from(value.into())
    }

    fn span(value: impl Into<toml::Value>) -> Result<Span, String> {
        Span::try_from(value.into())
    }

    #[test]
    fn sizes() {
        for (text, octets) in [
            ("50 MiB", 50 << 20),
            ("50MiB", 50 << 20),
            ("4 kib", 4096),
            ("4 kB", 4000),
            (" 7 B ", 7),
            ("16777215 TiB", 16_777_215 << 40),
        ] {
            assert_eq!(size(text), Ok(Size(octets)), "{text}");
        }
        assert_eq!(size(1000), Ok(Size(1000)));
    }

    #[test]
    fn what_is_no_size_is_named_with_what_would_be_right() {
        for text in ["", "MiB", "50", "1.5 GiB", "50 Mb i", "-1 B", "16777216 TiB", "99999999999999999999 B"] {
            let wrong = size(text).unwrap_err();
            assert!(wrong.starts_with(&format!("\"{text}\" is no size; write a whole number")), "{wrong}");
        }
        assert!(size(-1).is_err() && size(true).is_err() && size(1.5).is_err());
    }

    #[test]
    fn spans() {
        for (text, seconds) in
            [("30 s", 30), ("5 min", 300), ("4h", 14_400), ("5 d", 432_000), ("2 w", 1_209_600), ("0", 0)]
        {
            assert_eq!(span(text), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(span("250 ms"), Ok(Span(Duration::from_millis(250))));
    }

    #[test]
    fn what_is_no_span_is_named_with_what_would_be_right() {
        for text in ["", "30", "s", "5 m", "1.5 h", "-1 s", "99999999999999999999 s"] {
            let wrong = span(text).unwrap_err();
            assert!(wrong.starts_with(&format!("\"{text}\" is no length of time; write")), "{wrong}");
        }
        assert!(span(30).unwrap_err().starts_with("30 is no length of time"));
        assert!(span("40000 d").unwrap_err().contains("a hundred years"));
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for octets in [0, 1, 1000, 1024, 1_500_000, 50 << 20, u64::MAX] {
            assert_eq!(size(Size(octets).to_string()), Ok(Size(octets)));
        }
        for millis in [0, 1, 999, 1000, 90_000, 3_600_000, 86_400_000, 604_800_000, 3_153_600_000_000] {
            let printed = Span(Duration::from_millis(millis));
            assert_eq!(span(printed.to_string()), Ok(printed));
        }
        assert_eq!(Size(50 << 20).to_string(), "50 MiB");
        assert_eq!(Span(Duration::from_mins(90)).to_string(), "90 min");
    }
}
