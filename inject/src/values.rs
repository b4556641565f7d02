//! Values of settings and annotations that are checked when they are read: times and log filters. Both are written as the
//! proxy reads them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize as _, Deserializer, Serializer};

/// A time, written as a number and a unit, as in `250ms` or `5s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    milliseconds: u64,
}

/// The longest time: a day. What is longer is a mistake in the unit.
const LONGEST: Time = Time {
    milliseconds: 86_400_000,
};

impl Time {
    /// So many seconds.
    #[must_use]
    pub const fn seconds(seconds: u32) -> Self {
        Self {
            milliseconds: seconds as u64 * 1000,
        }
    }

    /// In seconds, rounded up.
    #[must_use]
    pub const fn whole_seconds(self) -> u64 {
        self.milliseconds.div_ceil(1000)
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = u64::try_from(api::parse_time(text)?.as_millis()).ok();
        let time = time.map(|milliseconds| Self { milliseconds });
        time.filter(|time| *time <= LONGEST)
            .ok_or_else(|| format!("{text:?} is too long: write {LONGEST} at most"))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.milliseconds {
            ms if ms % 3_600_000 == 0 && ms > 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 && ms > 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => write!(f, "{}s", ms / 1_000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// A filter of the proxy's log: levels, each for all or for one module, as in `info,proxy::outbound=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        for part in text.split(',') {
            let (module, level) = part
                .split_once('=')
                .map_or((None, part), |(m, level)| (Some(m), level));
            if !LEVELS.contains(&level) {
                return Err(format!(
                    "{level:?} is not a level: write one of {}, alone or as in info,proxy::outbound=debug",
                    LEVELS.join(", ")
                ));
            }
            let is_path = |m: &str| {
                !m.is_empty()
                    && m.chars()
                        .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
            };
            if module.is_some_and(|m| !is_path(m)) {
                return Err(format!(
                    "{part:?} does not name a module: write as in proxy::outbound=debug"
                ));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text or a number, as templates write values that look like numbers.
pub(crate) fn scalar<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match serde_json::Value::deserialize(from)? {
        serde_json::Value::String(text) => Ok(text),
        serde_json::Value::Number(number) => Ok(number.to_string()),
        other => Err(serde::de::Error::custom(format!("{other} is not a text"))),
    }
}

/// Reads and writes a value as its text: `#[serde(with = "text")]`.
pub(crate) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserializer, Serializer};

    pub(crate) fn deserialize<'de, D, T>(from: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        super::scalar(from)?.parse().map_err(serde::de::Error::custom)
    }

    pub(crate) fn serialize<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }
}

/// The same for a value that may be absent; an empty text counts as absent, because templates write that.
pub(crate) mod optional_text {
    use super::{Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::Deserialize as _;

    pub(crate) fn deserialize<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        let value = serde_json::Value::deserialize(from)?;
        if value.is_null() || value == "" {
            return Ok(None);
        }
        let text = super::scalar(value).map_err(serde::de::Error::custom)?;
        text.parse().map(Some).map_err(serde::de::Error::custom)
    }

    pub(crate) fn serialize<S: Serializer>(value: &Option<impl Display>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_with_their_unit() {
        for (given, written, seconds) in [
            ("0s", "0s", 0),
            ("0ms", "0s", 0),
            ("250ms", "250ms", 1),
            ("5s", "5s", 5),
            ("120s", "2m", 120),
            ("1h", "1h", 3600),
        ] {
            let time: Time = given.parse().unwrap();
            assert_eq!(
                (time.to_string().as_str(), time.whole_seconds()),
                (written, seconds),
                "{given}"
            );
        }
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-1s",
            "25h",
            "99999999999999999999s",
            "1d",
            "5S",
        ] {
            assert!(bad.parse::<Time>().is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_hold_levels_and_modules() {
        for good in ["info", "debug,proxy::outbound=trace", "proxy=off"] {
            assert_eq!(good.parse::<LogFilter>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "verbose",
            "info,",
            "=info",
            "proxy outbound=debug",
            "info,x=loud",
            "INFO",
        ] {
            let error = bad.parse::<LogFilter>().unwrap_err();
            assert!(error.contains("proxy::outbound=debug"), "{error}");
        }
    }
}
