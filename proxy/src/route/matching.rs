//! Whether the conditions of a match hold for a request.

use std::borrow::Cow;
use std::fmt;

use api::{HttpMatch, NamedMatch, StringMatch};
use http::HeaderMap;

use super::Facts;

/// Whether every condition holds.
pub(super) fn holds(m: &HttpMatch, facts: &Facts<'_>) -> bool {
    let HttpMatch {
        name: _,
        uri,
        method,
        authority,
        scheme,
        headers,
        without_headers,
        query,
        ignore_uri_case,
    } = m;
    is(method, facts.method.as_str())
        && uri.as_ref().is_none_or(|uri| {
            if *ignore_uri_case {
                uri.is_match_ignoring_case(facts.path)
            } else {
                uri.is_match(facts.path)
            }
        })
        && is(scheme, facts.scheme)
        && authority
            .as_ref()
            .is_none_or(|a| facts.authority.is_some_and(|host| a.is_match(&lower(host))))
        && headers.iter().all(|h| has_header(facts.headers, h))
        && !without_headers.iter().any(|h| has_header(facts.headers, h))
        && query.iter().all(|q| has_parameter(facts.query.unwrap_or(""), q))
}

fn is(condition: &Option<StringMatch>, value: &str) -> bool {
    condition
        .as_ref()
        .is_none_or(|condition| condition.is_match(value))
}

fn lower(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// Values that are not visible ASCII can only be present.
fn has_header(headers: &HeaderMap, condition: &NamedMatch) -> bool {
    headers
        .get_all(&condition.name)
        .iter()
        .any(|value| match &condition.value {
            StringMatch::Present => true,
            pattern => value.to_str().is_ok_and(|value| pattern.is_match(value)),
        })
}

fn has_parameter(query: &str, condition: &NamedMatch<String>) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        decoded(name) == condition.name && condition.value.is_match(&decoded(value))
    })
}

/// Undoes percent-encoding and `+` (the form encoding of URLs). What is not UTF-8 afterwards stays as it was.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = &after[2..];
            }
            (b'+', ..) => {
                out.push(b' ');
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The conditions of a match, in words.
pub(super) struct Why<'a>(pub(super) &'a HttpMatch);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        if !m.name.is_empty() {
            write!(f, "match `{}`: ", m.name)?;
        }
        let mut first = true;
        let mut condition = |f: &mut fmt::Formatter<'_>, what: fmt::Arguments<'_>, value: &StringMatch| {
            let and = if std::mem::take(&mut first) { "" } else { ", " };
            write!(f, "{and}{what} {}", Pattern(value))
        };
        let singles = [
            ("uri", &m.uri),
            ("method", &m.method),
            ("authority", &m.authority),
            ("scheme", &m.scheme),
        ];
        for (name, value) in singles {
            if let Some(value) = value {
                condition(f, format_args!("{name}"), value)?;
            }
        }
        for h in &m.headers {
            condition(f, format_args!("header {}", h.name), &h.value)?;
        }
        for h in &m.without_headers {
            condition(f, format_args!("no header {}", h.name), &h.value)?;
        }
        for q in &m.query {
            condition(f, format_args!("parameter {}", q.name), &q.value)?;
        }
        Ok(())
    }
}

struct Pattern<'a>(&'a StringMatch);

impl fmt::Display for Pattern<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            StringMatch::Exact(text) => write!(f, "is {text:?}"),
            StringMatch::Prefix(text) => write!(f, "begins with {text:?}"),
            StringMatch::Regex(pattern) => write!(f, "matches /{}/", pattern.as_str()),
            StringMatch::Present => f.write_str("is present"),
        }
    }
}
