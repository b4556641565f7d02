//! Durations as manifests write them: `1.5s`, `100ms`, `1h30m`. Read into whole nanoseconds without any
//! floating point, so that what was written is what is kept.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time, written as a number with a unit (`ns`, `us`, `ms`, `s`, `m`, `h`), or several of
/// them after one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration: {problem}")]
pub struct DurationError {
    text: String,
    problem: &'static str,
}

impl Duration {
    /// The longest that is accepted: ten years. Timers are armed with these values, and nothing a user
    /// means is longer.
    pub const MAX: Self = Self(std::time::Duration::from_secs(10 * 365 * 24 * 3600));

    /// A duration of so many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// A duration of so many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    /// The value for timers.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// Whether this is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let fail = |problem| DurationError {
            text: shorten(text),
            problem,
        };
        if text.is_empty() {
            return Err(fail(
                "it is empty; write a number with a unit, such as 1.5s or 100ms",
            ));
        }
        if text.starts_with('-') {
            return Err(fail("it is negative"));
        }
        let mut rest = text;
        let mut nanos: u128 = 0;
        while !rest.is_empty() {
            let (part, after) = one_part(rest).map_err(fail)?;
            nanos = nanos.checked_add(part).ok_or_else(|| fail(TOO_LONG))?;
            rest = after;
        }
        if nanos > Self::MAX.0.as_nanos() {
            return Err(fail(TOO_LONG));
        }
        let secs = u64::try_from(nanos / NANOS_PER_SEC).map_err(|_| fail(TOO_LONG))?;
        let subsec = u32::try_from(nanos % NANOS_PER_SEC).map_err(|_| fail(TOO_LONG))?;
        Ok(Self(std::time::Duration::new(secs, subsec)))
    }
}

impl fmt::Display for Duration {
    /// The canonical spelling: seconds, with as many decimals as it takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if nanos == 0 {
            return write!(f, "{secs}s");
        }
        let fraction = format!("{nanos:09}");
        write!(f, "{secs}.{}s", fraction.trim_end_matches('0'))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with a unit, such as 1.5s or 100ms")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 64,
            "pattern": r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$",
        })
    }
}

const NANOS_PER_SEC: u128 = 1_000_000_000;
const TOO_LONG: &str = "it is longer than ten years (87600h)";
const NO_UNIT: &str = "a unit is missing; add one of ns, us, ms, s, m, h";

/// Reads one number and its unit from the front of `text`; returns its nanoseconds and what is left.
fn one_part(text: &str) -> Result<(u128, &str), &'static str> {
    let (whole, rest) = digits(text);
    if whole.is_empty() {
        return Err("a number is missing; write it as in 1.5s or 100ms");
    }
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => digits(after),
        None => ("", rest),
    };
    let (unit, rest) = unit(rest)?;
    // More digits than this cannot be within the ten years, nor finer than a nanosecond.
    if whole.len() > 20 {
        return Err(TOO_LONG);
    }
    if fraction.trim_end_matches('0').len() > 15 {
        return Err("it has more decimals than a nanosecond can hold");
    }
    let whole: u128 = whole.parse().map_err(|_| TOO_LONG)?;
    let mut nanos = whole.checked_mul(unit).ok_or(TOO_LONG)?;
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        let digits: u128 = fraction.parse().map_err(|_| TOO_LONG)?;
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| TOO_LONG)?);
        if !(digits * unit).is_multiple_of(scale) {
            return Err("it has more decimals than a nanosecond can hold");
        }
        nanos += digits * unit / scale;
    }
    Ok((nanos, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn unit(text: &str) -> Result<(u128, &str), &'static str> {
    let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, rest) = text.split_at(letters);
    let nanos = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SEC,
        "m" => 60 * NANOS_PER_SEC,
        "h" => 3600 * NANOS_PER_SEC,
        "" => return Err(NO_UNIT),
        _ => return Err("its unit is unknown; use ns, us, ms, s, m or h"),
    };
    Ok((nanos, rest))
}

/// A text from a manifest may be megabytes long; an error message must not be.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, millis) in [
            ("1.5s", 1_500),
            ("100ms", 100),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("0.25s", 250),
        ] {
            assert_eq!(text.parse(), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(
            "3us2ns".parse::<Duration>().map(|d| d.get().as_nanos()),
            Ok(3_002)
        );
    }

    #[test]
    fn what_is_not_a_duration_says_why() {
        for (text, why) in [
            ("", "it is empty"),
            ("5", "a unit is missing"),
            ("1.5", "a unit is missing"),
            ("-1s", "it is negative"),
            ("s", "a number is missing"),
            ("1 s", "a unit is missing"),
            ("1s ", "a number is missing"),
            ("1d", "its unit is unknown"),
            ("1.0000000001s", "more decimals"),
            ("999999h", "longer than ten years"),
            (
                "99999999999999999999999999999999999999999h",
                "longer than ten years",
            ),
            ("1µs", "a unit is missing"),
        ] {
            let error = text.parse::<Duration>().unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_a_huge_text() {
        let error = "9".repeat(1 << 20).parse::<Duration>().unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn the_canonical_spelling_reads_back(nanos in 0..=Duration::MAX.get().as_nanos()) {
            let secs = u64::try_from(nanos / NANOS_PER_SEC).unwrap();
            let subsec = u32::try_from(nanos % NANOS_PER_SEC).unwrap();
            let duration = Duration(std::time::Duration::new(secs, subsec));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Duration>();
        }
    }
}
