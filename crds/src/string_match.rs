//! How a text is matched: `exact`, `prefix` or `regex`. Used wherever a `VirtualService` compares text.
//! This file only holds the shape; the check refuses more than one, and compiles the regex.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Exactly one of `exact`, `prefix` and `regex`. For headers and query parameters, none of them (`{}`)
/// means: it is there, with any value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("maxProperties" = 1))]
pub struct StringMatch {
    /// The whole text, case-sensitive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// The start of the text, case-sensitive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A regular expression (RE2 syntax) for the whole text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub regex: Option<String>,
}

/// A [`StringMatch`] that holds exactly one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern<'a> {
    /// Equal to this.
    Exact(&'a str),
    /// Starts with this.
    Prefix(&'a str),
    /// Matches this as a whole.
    Regex(&'a str),
    /// There at all.
    Present,
}

impl StringMatch {
    /// Matches the whole text.
    pub fn exact(text: impl Into<String>) -> Self {
        Self {
            exact: Some(text.into()),
            ..Self::default()
        }
    }

    /// Matches the start of the text.
    pub fn prefix(text: impl Into<String>) -> Self {
        Self {
            prefix: Some(text.into()),
            ..Self::default()
        }
    }

    /// Matches the whole text against a regular expression.
    pub fn regex(text: impl Into<String>) -> Self {
        Self {
            regex: Some(text.into()),
            ..Self::default()
        }
    }

    /// The one pattern, or `None` where several are given.
    pub fn pattern(&self) -> Option<Pattern<'_>> {
        let Self { exact, prefix, regex } = self;
        match (exact, prefix, regex) {
            (None, None, None) => Some(Pattern::Present),
            (Some(exact), None, None) => Some(Pattern::Exact(exact)),
            (None, Some(prefix), None) => Some(Pattern::Prefix(prefix)),
            (None, None, Some(regex)) => Some(Pattern::Regex(regex)),
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_pattern_at_a_time_has_a_meaning() {
        assert_eq!(StringMatch::default().pattern(), Some(Pattern::Present));
        assert_eq!(StringMatch::exact("a").pattern(), Some(Pattern::Exact("a")));
        assert_eq!(StringMatch::prefix("a").pattern(), Some(Pattern::Prefix("a")));
        assert_eq!(StringMatch::regex("a").pattern(), Some(Pattern::Regex("a")));
        let both = StringMatch {
            prefix: Some("a".into()),
            ..StringMatch::exact("b")
        };
        assert_eq!(both.pattern(), None);
    }
}
