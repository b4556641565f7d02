//! Cross-origin resource sharing, as a rule grants it.

use http::HeaderValue;

use super::matching::StringMatch;
use crate::invalid::{Invalid, each};
use crate::proto;

/// What browsers are told of who may use what answers here. Values are those of the response headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins that may: any of these; `exact: *` is every origin.
    pub origins: Vec<StringMatch>,
    /// `Access-Control-Allow-Methods`.
    pub methods: Option<HeaderValue>,
    /// `Access-Control-Allow-Headers`.
    pub headers: Option<HeaderValue>,
    /// `Access-Control-Expose-Headers`.
    pub expose: Option<HeaderValue>,
    /// `Access-Control-Max-Age`, in seconds.
    pub max_age: Option<u64>,
    /// `Access-Control-Allow-Credentials`.
    pub credentials: bool,
    /// Preflights of other origins are answered here, without a grant, in place of being sent on.
    pub answers_unmatched: bool,
}

impl Cors {
    /// Whether an origin may.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| match allowed {
            StringMatch::Exact(any) if any == "*" => true,
            allowed => allowed.is_match(origin),
        })
    }
}

fn value(field: &str, text: String) -> Result<Option<HeaderValue>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    let value = HeaderValue::try_from(text);
    value
        .map(Some)
        .map_err(|_| Invalid::new(field, "is not the value of a header"))
}

fn text(value: Option<HeaderValue>) -> String {
    value.map_or_else(String::new, |value| {
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    })
}

impl TryFrom<proto::Cors> for Cors {
    type Error = Invalid;

    fn try_from(pb: proto::Cors) -> Result<Self, Invalid> {
        let proto::Cors {
            origins,
            methods,
            headers,
            expose,
            max_age_seconds,
            credentials,
            answers_unmatched,
        } = pb;
        Ok(Self {
            origins: each("origins", origins)?,
            methods: value("methods", methods)?,
            headers: value("headers", headers)?,
            expose: value("expose", expose)?,
            max_age: max_age_seconds,
            credentials,
            answers_unmatched,
        })
    }
}

impl From<Cors> for proto::Cors {
    fn from(cors: Cors) -> Self {
        let Cors {
            origins,
            methods,
            headers,
            expose,
            max_age,
            credentials,
            answers_unmatched,
        } = cors;
        Self {
            origins: origins.into_iter().map(Into::into).collect(),
            methods: text(methods),
            headers: text(headers),
            expose: text(expose),
            max_age_seconds: max_age,
            credentials,
            answers_unmatched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pattern;

    #[test]
    fn an_origin_is_allowed_by_any_of_the_list() {
        let of = |origins: Vec<StringMatch>| Cors {
            origins,
            methods: None,
            headers: None,
            expose: None,
            max_age: None,
            credentials: false,
            answers_unmatched: false,
        };
        let exact = |text: &str| StringMatch::Exact(text.to_owned());
        let some = of(vec![
            exact("https://shop.example"),
            StringMatch::Prefix("https://dev.".to_owned()),
            StringMatch::Regex(Pattern::new("https://[a-z]+\\.test").unwrap()),
        ]);
        for (origin, allowed) in [
            ("https://shop.example", true),
            ("https://shop.example.evil", false),
            ("https://dev.shop.example", true),
            ("https://abc.test", true),
            ("https://abc.test.evil", false),
            ("null", false),
        ] {
            assert_eq!(some.allows(origin), allowed, "{origin}");
        }
        assert!(of(vec![exact("*")]).allows("https://any.example"));
        assert!(!of(Vec::new()).allows("https://any.example"));
    }
}
