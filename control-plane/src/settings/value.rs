//! From a setting's text to its value. Each function gives what is wrong and what would be right; the caller adds the
//! setting's name and where the text came from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Format;

pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("is empty: give a directory".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// What injected proxies are like, from the file of this name; without a name the defaults.
pub(crate) fn injection(path: &str) -> Result<inject::Config, String> {
    if path.is_empty() {
        return Ok(inject::Config::default());
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
    serde_saphyr::from_str(&text).map_err(|e| format!("says what cannot be used: {e}"))
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "is not an address with a port, such as 0.0.0.0:15010 or [::]:15010".to_owned())
}

/// A source by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceName {
    Directory,
    Kubernetes,
}

pub(crate) fn source(text: &str) -> Result<SourceName, String> {
    match text {
        "directory" => Ok(SourceName::Directory),
        "kubernetes" => Ok(SourceName::Kubernetes),
        _ => Err("is no source: use `directory` or `kubernetes`".to_owned()),
    }
}

pub(crate) fn format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("is no format: use `text` or `json`".to_owned()),
    }
}

pub(crate) fn log(text: &str) -> Result<String, String> {
    // No target has such a name, and the parser cuts text within characters.
    if !text.is_ascii() {
        return Err(
            "is no filter of the log: it has characters beyond ASCII; use a level such as `info`".to_owned(),
        );
    }
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        Ok(_) => Err("is empty: use a level such as `info`".to_owned()),
        Err(e) => Err(format!(
            "is no filter of the log: {e}; use a level such as `info`"
        )),
    }
}

/// A name as Kubernetes has them.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if text.is_empty() || text.len() > 253 || !text.bytes().all(good) {
        return Err("is not a Kubernetes name: 1 to 253 of a-z, 0-9, `-` and `.`".to_owned());
    }
    Ok(text.to_owned())
}

pub(crate) fn trust_domain(text: &str) -> Result<String, String> {
    name(text).map_err(|_| "is not a trust domain: 1 to 253 of a-z, 0-9, `-` and `.`".to_owned())
}

pub(crate) fn certificate_lifetime(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(10), Duration::from_secs(8760 * 3600))
}

pub(crate) fn token_lifetime(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1), Duration::from_secs(87_600 * 3600))
}

/// A time such as `90s`, `15m`, `24h` or `1h30m`, within bounds.
fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let wrong =
        || "is not a time: use whole numbers with s, m or h, such as `90s`, `24h` or `1h30m`".to_owned();
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let seconds = match unit.chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(seconds).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &unit[1..];
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let total = Duration::from_secs(total);
    if total < least || total > most {
        return Err(format!(
            "is out of bounds: {}s to {}h",
            least.as_secs(),
            most.as_secs() / 3600
        ));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_in_hours_minutes_and_seconds() {
        let read = |text| certificate_lifetime(text).ok().map(|d| d.as_secs());
        for (text, seconds) in [
            ("90s", Some(90)),
            ("24h", Some(86400)),
            ("1h30m", Some(5400)),
            ("5s", None),
            ("9000h", None),
            ("24", None),
            ("h", None),
            ("1d", None),
            ("-1h", None),
            ("", None),
            ("99999999999999999999h", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(read(text), seconds, "{text}");
        }
    }

    #[test]
    fn a_filter_of_the_log_is_a_level_or_directives() {
        for (text, good) in [
            ("info", true),
            ("warn,control_plane::push=debug", true),
            ("", false),
            ("a=b=c", false),
            ("\ta¡=", false),
        ] {
            assert_eq!(log(text).is_ok(), good, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_setting_panic(text in ".{0,40}") {
            let _ = (address(&text), log(&text), name(&text), token_lifetime(&text), format(&text));
        }
    }
}
