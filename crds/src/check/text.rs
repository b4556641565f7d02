//! Checks of text that is compared with, or put into, requests: patterns, header names and values, methods.

use std::collections::BTreeMap;

use regex::RegexBuilder;

use super::Report;
use crate::{
    path::At,
    string_match::{Pattern, StringMatch},
};

/// The most bytes the text of a regular expression may have.
pub const MAX_REGEX_LEN: usize = 1024;

/// The most bytes a regular expression may take once compiled, and again for its cache.
pub const MAX_REGEX_SIZE: usize = 1 << 20;

/// The most regular expressions one object may hold. Every proxy that uses the object compiles them all.
pub const MAX_REGEXES: usize = 1_000;

/// What an empty `StringMatch` means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// Present, with any value.
    Present,
    /// Nothing; it is a mistake.
    Refused,
}

/// A match of text: exactly one pattern, and that one sound. Returns it for what only its user knows.
pub(super) fn string_match<'a>(
    report: &mut Report,
    at: At<'_>,
    text: &'a StringMatch,
    empty: Empty,
) -> Option<Pattern<'a>> {
    let Some(pattern) = text.pattern() else {
        report.error(at, "has more than one of exact, prefix and regex; keep one");
        return None;
    };
    let (field, text) = match pattern {
        Pattern::Exact(text) => ("exact", text),
        Pattern::Prefix(text) => ("prefix", text),
        Pattern::Regex(text) => ("regex", text),
        Pattern::Present if empty == Empty::Refused => {
            report.error(at, "has no pattern; give it one of exact, prefix and regex");
            return None;
        }
        Pattern::Present => return Some(pattern),
    };
    if text.is_empty() {
        let remedy = match empty {
            Empty::Present => "; to ask only whether it is there, write {} instead",
            Empty::Refused => "; remove it to match anything",
        };
        report.error(at.field(field), format!("is empty{remedy}"));
        return None;
    }
    if field == "regex" {
        regex(report, at.field(field), text);
    }
    Some(pattern)
}

/// A regular expression that compiles within its bounds. Returns how many groups it has, if it is one.
pub(super) fn regex(report: &mut Report, at: At<'_>, pattern: &str) -> Option<usize> {
    report.regexes += 1;
    if report.regexes > MAX_REGEXES {
        if report.regexes == MAX_REGEXES + 1 {
            report.error(
                at,
                format!("is one regular expression too many; {MAX_REGEXES} in one object is the most"),
            );
        }
        return None;
    }
    if pattern.len() > MAX_REGEX_LEN {
        let len = pattern.len();
        report.error(
            at,
            format!("has {len} bytes; a regular expression has {MAX_REGEX_LEN} at most"),
        );
        return None;
    }
    let built = RegexBuilder::new(pattern)
        .size_limit(MAX_REGEX_SIZE)
        .dfa_size_limit(MAX_REGEX_SIZE)
        .build();
    match built {
        Ok(regex) => return Some(regex.captures_len() - 1),
        Err(regex::Error::CompiledTooBig(limit)) => report.error(
            at,
            format!(
                "is a regular expression that takes more than {limit} bytes once compiled; repeat less in it"
            ),
        ),
        Err(error) => {
            // The last line says what is wrong; those before it draw the place.
            let text = error.to_string();
            let reason = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            report.error(at, format!("is not a regular expression: {reason}"));
        }
    }
    None
}

/// The name of a header that is matched, set or removed. `pseudo` says what stands for `:authority` and its
/// like in that place.
pub(super) fn header_name(report: &mut Report, at: At<'_>, name: &str, pseudo: &str) {
    if name.starts_with(':') {
        report.error(at, format!("is not a header that can be named here; {pseudo}"));
    } else if !is_token(name) {
        report.error(at, "is not the name of a header; use letters, digits and -");
    }
}

/// Two names that differ in case only are one header.
pub(super) fn one_spelling<V>(report: &mut Report, at: At<'_>, map: &BTreeMap<String, V>) {
    let mut seen = BTreeMap::new();
    for name in map.keys() {
        if let Some(first) = seen.insert(name.to_ascii_lowercase(), name) {
            report.error(at.field(name), format!("is the same header as {first}; keep one"));
        }
    }
}

/// The value a header is given.
pub(super) fn header_value(report: &mut Report, at: At<'_>, value: &str) {
    if value.bytes().any(|b| b != b'\t' && (b < 0x20 || b == 0x7f)) {
        report.error(at, "has control characters; a header is one line of text");
    } else if has_placeholder(value) {
        report.unsupported(at, "text between % signs is not replaced; write the value out");
    }
}

/// Elsewhere `%START_TIME%` or `%REQ(x)%` stand for something; here they would be sent as they are.
fn has_placeholder(value: &str) -> bool {
    value.split('%').skip(1).any(|after| {
        let name = after
            .bytes()
            .take_while(|b| b.is_ascii_uppercase() || *b == b'_')
            .count();
        name >= 2 && (after[name..].starts_with('(') || after.len() == name)
    }) && value.matches('%').count() >= 2
}

/// `Host`, with or without a port.
pub(super) fn authority(report: &mut Report, at: At<'_>, authority: &str) {
    let bad = |b: u8| b <= 0x20 || b >= 0x7f || matches!(b, b'/' | b'?' | b'#' | b'@' | b'\\');
    if authority.is_empty() || authority.bytes().any(bad) {
        report.error(at, "is not an authority; write a host, and its port if need be");
    }
}

/// A path as requests carry it.
pub(super) fn path(report: &mut Report, at: At<'_>, path: &str) {
    if !path.starts_with('/') {
        report.error(at, "must begin with /");
    } else if path.bytes().any(|b| b <= 0x20 || b == 0x7f) {
        report.error(
            at,
            "has spaces or control characters; write them as %20 and the like",
        );
    }
}

/// `token` of RFC 9110: methods, and names of headers.
pub(super) fn is_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=256).contains(&text.len()) && text.bytes().all(token)
}

/// Standard base64 with its padding.
pub(super) fn is_base64(text: &str) -> bool {
    let data = text.trim_end_matches('=');
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    text.len().is_multiple_of(4) && text.len() - data.len() <= 2 && data.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_of_other_proxies_are_recognised() {
        for value in ["%START_TIME%", "a %REQ(x-id)% b", "%DOWNSTREAM_REMOTE_ADDRESS%"] {
            assert!(has_placeholder(value), "{value}");
        }
        for value in ["100%", "a%20b%20c", "%", "%%", "50% OFF", "%a%"] {
            assert!(!has_placeholder(value), "{value}");
        }
    }

    #[test]
    fn base64_is_recognised() {
        for (text, expected) in [
            ("", true),
            ("aGk=", true),
            ("aGVsbG8h", true),
            ("aGk", false),
            ("a===", false),
            ("aG!=", false),
        ] {
            assert_eq!(is_base64(text), expected, "{text}");
        }
    }

    #[test]
    fn a_regex_is_bounded_in_text_size_and_number() {
        let message = |pattern: &str| {
            let mut report = Report::default();
            regex(&mut report, At::root("spec"), pattern);
            report
                .finish()
                .pop()
                .map(|finding| finding.message)
                .unwrap_or_default()
        };
        assert_eq!(message("^/v[0-9]+/.*$"), "");
        assert!(message(&"a".repeat(1025)).contains("1025 bytes"));
        assert!(message("(a{500}){500}").contains("once compiled"));
        assert!(message("a(b").contains("unclosed group"), "{}", message("a(b"));

        let mut report = Report::default();
        for _ in 0..MAX_REGEXES + 5 {
            regex(&mut report, At::root("spec"), "a");
        }
        assert_eq!(report.finish().len(), 1);
    }
}
