//! Conditions on a request. The proxy's `route::select` evaluates them; here they are parsed and bounded.

use http::HeaderName;
use regex::{Regex, RegexBuilder};

use crate::invalid::{Invalid, Under, each, required};
use crate::{limits, proto};

/// A regular expression that must match a whole value. It runs in linear time and has bounded size.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles an expression; it is anchored at both ends.
    ///
    /// # Errors
    /// When it is too long, is not an expression, or compiles to more than [`limits::MAX_REGEX_SIZE`].
    pub fn new(text: &str) -> Result<Self, Invalid> {
        if text.len() > limits::MAX_REGEX_LEN {
            return Err(too_long(text));
        }
        // Parsed alone first: `a)|(b` would become valid inside the anchors' group.
        regex_syntax_check(text)?;
        let regex = RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(limits::MAX_REGEX_SIZE)
            .dfa_size_limit(limits::MAX_REGEX_SIZE)
            .build()
            .map_err(|e| refused(&e))?;
        Ok(Self {
            text: text.to_owned(),
            regex,
        })
    }

    /// The expression as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole value matches.
    #[must_use]
    pub fn is_match(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }
}

fn regex_syntax_check(text: &str) -> Result<(), Invalid> {
    RegexBuilder::new(text)
        .size_limit(limits::MAX_REGEX_SIZE)
        .build()
        .map(drop)
        .map_err(|e| refused(&e))
}

/// An expression that may match anywhere in a text, held to the same bounds.
pub(in crate::route) fn unanchored(text: &str) -> Result<Regex, Invalid> {
    if text.len() > limits::MAX_REGEX_LEN {
        return Err(too_long(text));
    }
    RegexBuilder::new(text)
        .size_limit(limits::MAX_REGEX_SIZE)
        .dfa_size_limit(limits::MAX_REGEX_SIZE)
        .build()
        .map_err(|e| refused(&e))
}

fn too_long(text: &str) -> Invalid {
    Invalid::new(
        "regex",
        format!("has {} bytes, {} are allowed", text.len(), limits::MAX_REGEX_LEN),
    )
}

fn refused(error: &regex::Error) -> Invalid {
    match error {
        regex::Error::CompiledTooBig(limit) => Invalid::new(
            "regex",
            format!("compiles to more than {limit} bytes: use fewer or smaller repetitions"),
        ),
        other => {
            let text = other.to_string();
            let last = text
                .lines()
                .rev()
                .find(|l| !l.trim().is_empty())
                .unwrap_or("")
                .trim();
            Invalid::new(
                "regex",
                format!("is not a regular expression (RE2 syntax): {last}"),
            )
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// A condition on a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal to.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// The whole value matches.
    Regex(Pattern),
    /// There is a value, whichever.
    Present,
}

impl StringMatch {
    /// Whether a value meets the condition.
    #[must_use]
    pub fn is_match(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Self::Regex(pattern) => pattern.is_match(value),
            Self::Present => true,
        }
    }

    /// The same without regard to ASCII case (for exact and prefix).
    #[must_use]
    pub fn is_match_ignoring_case(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value.eq_ignore_ascii_case(exact),
            Self::Prefix(prefix) => value
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
            Self::Regex(pattern) => pattern.is_match(value),
            Self::Present => true,
        }
    }
}

/// A condition on a named value: a header or a query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedMatch<N = HeaderName> {
    /// The name.
    pub name: N,
    /// The condition.
    pub value: StringMatch,
}

/// Conditions on a request; all must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpMatch {
    /// For logs; may be empty.
    pub name: String,
    /// On the path, without the query.
    pub uri: Option<StringMatch>,
    /// On the method.
    pub method: Option<StringMatch>,
    /// On the authority, in lower case and with its port if it has one.
    pub authority: Option<StringMatch>,
    /// On the scheme.
    pub scheme: Option<StringMatch>,
    /// On headers; one of several values of a name is enough.
    pub headers: Vec<NamedMatch>,
    /// On headers: none of these may hold.
    pub without_headers: Vec<NamedMatch>,
    /// On query parameters.
    pub query: Vec<NamedMatch<String>>,
    /// Exact and prefix conditions on the path disregard ASCII case.
    pub ignore_uri_case: bool,
}

impl TryFrom<proto::StringMatch> for StringMatch {
    type Error = Invalid;

    fn try_from(proto::StringMatch { pattern }: proto::StringMatch) -> Result<Self, Invalid> {
        use proto::string_match::Pattern as Pb;
        match required("pattern", pattern)? {
            Pb::Exact(text) => Ok(Self::Exact(text)),
            Pb::Prefix(text) => Ok(Self::Prefix(text)),
            Pb::Regex(text) => Ok(Self::Regex(Pattern::new(&text)?)),
            Pb::Present(true) => Ok(Self::Present),
            Pb::Present(false) => Err(Invalid::new("present", "can only be true")),
        }
    }
}

impl From<StringMatch> for proto::StringMatch {
    fn from(value: StringMatch) -> Self {
        use proto::string_match::Pattern as Pb;
        let pattern = match value {
            StringMatch::Exact(text) => Pb::Exact(text),
            StringMatch::Prefix(text) => Pb::Prefix(text),
            StringMatch::Regex(pattern) => Pb::Regex(pattern.text),
            StringMatch::Present => Pb::Present(true),
        };
        Self {
            pattern: Some(pattern),
        }
    }
}

impl TryFrom<proto::NamedMatch> for NamedMatch<String> {
    type Error = Invalid;

    fn try_from(proto::NamedMatch { name, value }: proto::NamedMatch) -> Result<Self, Invalid> {
        if name.is_empty() {
            return Err(Invalid::new("name", "is empty"));
        }
        Ok(Self {
            name,
            value: required("value", value)?.try_into().under("value")?,
        })
    }
}

impl TryFrom<proto::NamedMatch> for NamedMatch<HeaderName> {
    type Error = Invalid;

    fn try_from(proto::NamedMatch { name, value }: proto::NamedMatch) -> Result<Self, Invalid> {
        let parsed = HeaderName::try_from(name.as_str())
            .map_err(|_| Invalid::new("name", format!("{name:?} is not a header name (RFC 9110, 5.1)")))?;
        Ok(Self {
            name: parsed,
            value: required("value", value)?.try_into().under("value")?,
        })
    }
}

impl<N: AsRef<str>> From<NamedMatch<N>> for proto::NamedMatch {
    fn from(NamedMatch { name, value }: NamedMatch<N>) -> Self {
        Self {
            name: name.as_ref().to_owned(),
            value: Some(value.into()),
        }
    }
}

fn optional(field: &str, pb: Option<proto::StringMatch>) -> Result<Option<StringMatch>, Invalid> {
    pb.map(StringMatch::try_from).transpose().under(field)
}

impl TryFrom<proto::HttpMatch> for HttpMatch {
    type Error = Invalid;

    fn try_from(pb: proto::HttpMatch) -> Result<Self, Invalid> {
        let proto::HttpMatch {
            name,
            uri,
            method,
            authority,
            scheme,
            headers,
            without_headers,
            query,
            ignore_uri_case,
        } = pb;
        Ok(Self {
            name,
            uri: optional("uri", uri)?,
            method: optional("method", method)?,
            authority: optional("authority", authority)?,
            scheme: optional("scheme", scheme)?,
            headers: each("headers", headers)?,
            without_headers: each("without_headers", without_headers)?,
            query: each("query", query)?,
            ignore_uri_case,
        })
    }
}

impl From<HttpMatch> for proto::HttpMatch {
    fn from(value: HttpMatch) -> Self {
        let HttpMatch {
            name,
            uri,
            method,
            authority,
            scheme,
            headers,
            without_headers,
            query,
            ignore_uri_case,
        } = value;
        Self {
            name,
            uri: uri.map(Into::into),
            method: method.map(Into::into),
            authority: authority.map(Into::into),
            scheme: scheme.map(Into::into),
            headers: headers.into_iter().map(Into::into).collect(),
            without_headers: without_headers.into_iter().map(Into::into).collect(),
            query: query.into_iter().map(Into::into).collect(),
            ignore_uri_case,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regex_must_match_the_whole_value() {
        let pattern = Pattern::new("/a|/b").unwrap();
        assert!(pattern.is_match("/a") && pattern.is_match("/b"));
        assert!(!pattern.is_match("/ab") && !pattern.is_match("x/a"));
    }

    #[test]
    fn a_regex_bomb_is_refused_with_its_size() {
        let err = Pattern::new("((a{1000}){1000}){10}").unwrap_err();
        assert!(err.problem.contains("compiles to more than"), "{err}");
        assert!(
            Pattern::new(&"a".repeat(2000))
                .unwrap_err()
                .problem
                .contains("1024")
        );
        assert!(Pattern::new("a)|(b").is_err());
    }

    #[test]
    fn prefix_ignoring_case_does_not_split_a_character() {
        let prefix = StringMatch::Prefix("/ab".into());
        assert!(prefix.is_match_ignoring_case("/ABc"));
        assert!(!prefix.is_match_ignoring_case("/aé"));
    }
}
