//! Changes to path and authority before a request is sent.

use std::borrow::Cow;

use http::uri::Authority;
use regex::Regex;

use super::{authority, path};
use crate::invalid::{Invalid, Under};
use crate::route::matching;
use crate::{limits, proto};

/// Changes to path and authority before the request is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Takes the place of the matched prefix, or of the whole path where the match was no prefix.
    pub uri: Option<String>,
    /// The new authority.
    pub authority: Option<Authority>,
    /// Takes the place of what an expression finds in the path; never beside `uri`.
    pub uri_regex: Option<RegexRewrite>,
}

/// A regular expression, and what takes the place of everything that it matches. It runs in linear time.
#[derive(Debug, Clone)]
pub struct RegexRewrite {
    pattern: String,
    replacement: String,
    regex: Regex,
    pieces: Vec<Piece>,
}

/// A part of a replacement.
#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    /// What a group of the expression matched; 0 is the whole.
    Group(usize),
}

impl RegexRewrite {
    /// Compiles the expression, which is not anchored, and reads the replacement: `\0` is what matched, `\1` to `\9` are
    /// its groups, `\\` is a backslash.
    ///
    /// # Errors
    /// When the expression is none or too large, or the replacement names a group that it does not have.
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, Invalid> {
        if pattern.is_empty() {
            return Err(Invalid::new("pattern", "is empty"));
        }
        let regex = matching::unanchored(pattern).map_err(|e| Invalid::new("pattern", e.problem))?;
        if replacement.len() > limits::MAX_REGEX_LEN {
            let (len, most) = (replacement.len(), limits::MAX_REGEX_LEN);
            let problem = format!("has {len} bytes, {most} are allowed");
            return Err(Invalid::new("replacement", problem));
        }
        let pieces = pieces(replacement, regex.captures_len())?;
        Ok(Self {
            pattern: pattern.to_owned(),
            replacement: replacement.to_owned(),
            regex,
            pieces,
        })
    }

    /// The text with everything replaced that the expression matches; `None` when that has more than `most` bytes.
    #[must_use]
    pub fn apply<'t>(&self, text: &'t str, most: usize) -> Option<Cow<'t, str>> {
        let mut out = String::new();
        let mut copied = 0;
        for found in self.regex.captures_iter(text) {
            let whole = found.get(0)?;
            let between = text.get(copied..whole.start()).unwrap_or_default();
            copied = whole.end();
            out.push_str(between);
            for piece in &self.pieces {
                let text = match piece {
                    Piece::Text(text) => text.as_str(),
                    // A group that took no part in the match is empty.
                    Piece::Group(n) => found.get(*n).map_or("", |group| group.as_str()),
                };
                if out.len() + text.len() > most {
                    return None;
                }
                out.push_str(text);
            }
        }
        if copied == 0 && out.is_empty() {
            return Some(Cow::Borrowed(text));
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        (out.len() <= most).then_some(Cow::Owned(out))
    }
}

impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.replacement == other.replacement
    }
}

impl Eq for RegexRewrite {}

fn pieces(replacement: &str, groups: usize) -> Result<Vec<Piece>, Invalid> {
    let refused = |problem: String| Err(Invalid::new("replacement", problem));
    let (mut pieces, mut text) = (Vec::new(), String::new());
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('\\') => text.push('\\'),
            Some(digit @ '0'..='9') => {
                let group = digit as usize - '0' as usize;
                if group >= groups {
                    return refused(format!(
                        "names group \\{group}, and the expression has {}",
                        groups - 1
                    ));
                }
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Group(group));
            }
            Some(_) | None => {
                return refused("has a \\ that is followed by neither a digit nor another \\".to_owned());
            }
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

impl TryFrom<proto::Rewrite> for Rewrite {
    type Error = Invalid;

    fn try_from(pb: proto::Rewrite) -> Result<Self, Invalid> {
        let proto::Rewrite {
            uri,
            authority: host,
            uri_regex,
        } = pb;
        if !uri.is_empty() && uri_regex.is_some() {
            return Err(Invalid::new("uri_regex", "cannot stand beside uri"));
        }
        let regex = |proto::RegexRewrite { pattern, replacement }| RegexRewrite::new(&pattern, &replacement);
        Ok(Self {
            uri: path("uri", uri)?,
            authority: authority("authority", host)?,
            uri_regex: uri_regex.map(regex).transpose().under("uri_regex")?,
        })
    }
}

impl From<Rewrite> for proto::Rewrite {
    fn from(rewrite: Rewrite) -> Self {
        let Rewrite {
            uri,
            authority,
            uri_regex,
        } = rewrite;
        let regex = |regex: RegexRewrite| proto::RegexRewrite {
            pattern: regex.pattern,
            replacement: regex.replacement,
        };
        Self {
            uri: uri.unwrap_or_default(),
            authority: authority.map(|a| a.to_string()).unwrap_or_default(),
            uri_regex: uri_regex.map(regex),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_matches_is_replaced() {
        for (pattern, replacement, text, expected) in [
            (
                "^/service/([^/]+)(/.*)$",
                "\\2/instance/\\1",
                "/service/foo/v1/api",
                "/v1/api/instance/foo",
            ),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            (
                "^(.*?)one(.*)$",
                "\\1two\\2",
                "/xxx/one/yyy/one/zzz",
                "/xxx/two/yyy/one/zzz",
            ),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
            ("/none", "/x", "/some", "/some"),
            ("/(a)?b", "/\\1", "/b", "/"),
            ("b", "$0\\\\\\0", "/b", "/$0\\b"),
            ("/+", "", "//a", "a"),
        ] {
            let rewrite = RegexRewrite::new(pattern, replacement).unwrap();
            assert_eq!(
                rewrite.apply(text, 100).as_deref(),
                Some(expected),
                "{pattern} {replacement}"
            );
        }
    }

    #[test]
    fn what_grows_beyond_its_bound_is_none() {
        let twice = RegexRewrite::new(".*", "\\0\\0").unwrap();
        assert_eq!(twice.apply("/abc", 8).as_deref(), Some("/abc/abc"));
        assert_eq!(twice.apply("/abc", 7), None);
        let rest = RegexRewrite::new("^/", "/v2/").unwrap();
        assert_eq!(rest.apply("/abc", 6), None);
    }

    #[test]
    fn expressions_and_groups_that_are_none_are_refused() {
        for (pattern, replacement, field) in [
            ("", "/", "pattern"),
            ("(", "/", "pattern"),
            ("(a{500}){500}", "/", "pattern"),
            ("/(a)", "\\2", "replacement"),
            ("/a", "\\x", "replacement"),
            ("/a", "\\", "replacement"),
        ] {
            let refused = RegexRewrite::new(pattern, replacement).unwrap_err();
            assert_eq!(refused.field, field, "{pattern} {replacement}");
        }
        assert!(RegexRewrite::new("a", &"b".repeat(limits::MAX_REGEX_LEN + 1)).is_err());
    }
}
