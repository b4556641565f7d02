//! `corsPolicy` of an HTTP rule, in the contract's types.

use api::{Cors, Invalid, proto};
use crds::virtual_service::resilience::{CorsPolicy, UnmatchedPreflights};

use super::http::string_match;

/// The policy.
pub(super) fn policy(policy: &CorsPolicy) -> Result<Cors, Invalid> {
    let CorsPolicy {
        allow_origins,
        allow_origin,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        unmatched_preflights,
    } = policy;
    if !allow_origins.is_empty() && !allow_origin.is_empty() {
        return Err(Invalid::new("allowOrigin", "cannot stand beside allowOrigins"));
    }
    let mut origins = Vec::with_capacity(allow_origins.len() + allow_origin.len());
    for (i, origin) in allow_origins.iter().enumerate() {
        origins.push(string_match(
            &format!("allowOrigins[{i}]"),
            origin,
            str::to_owned,
        )?);
    }
    for origin in allow_origin {
        origins.push(proto::StringMatch {
            pattern: Some(proto::string_match::Pattern::Exact(origin.clone())),
        });
    }
    Cors::try_from(proto::Cors {
        origins,
        methods: allow_methods.join(","),
        headers: allow_headers.join(","),
        expose: expose_headers.join(","),
        max_age_seconds: max_age.map(|age| age.get().as_secs()),
        credentials: *allow_credentials == Some(true),
        answers_unmatched: match unmatched_preflights {
            Some(UnmatchedPreflights::Ignore) => true,
            Some(UnmatchedPreflights::Unspecified | UnmatchedPreflights::Forward) | None => false,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Cors, Invalid> {
        policy(&serde_saphyr::from_str(yaml).unwrap())
    }

    #[test]
    fn every_field_is_carried() {
        let cors = read(
            "{allowOrigins: [{exact: 'https://a'}, {prefix: 'https://b'}, {regex: 'https://c.*'}],
              allowMethods: [GET, POST], allowHeaders: [x-a, x-b], exposeHeaders: ['*'], maxAge: 1h,
              allowCredentials: true, unmatchedPreflights: IGNORE}",
        )
        .unwrap();
        for (origin, allowed) in [
            ("https://a", true),
            ("https://a/", false),
            ("https://bc", true),
            ("https://cd", true),
        ] {
            assert_eq!(cors.allows(origin), allowed, "{origin}");
        }
        let text = |value: &Option<http::HeaderValue>| value.as_ref().unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            [text(&cors.methods), text(&cors.headers), text(&cors.expose)],
            ["GET,POST", "x-a,x-b", "*"]
        );
        assert_eq!(
            (cors.max_age, cors.credentials, cors.answers_unmatched),
            (Some(3600), true, true)
        );
    }

    #[test]
    fn what_is_left_out_is_not_said() {
        for yaml in [
            "{}",
            "{unmatchedPreflights: FORWARD}",
            "{unmatchedPreflights: UNSPECIFIED}",
        ] {
            let cors = read(yaml).unwrap();
            assert!(!cors.allows("https://a") && !cors.credentials && !cors.answers_unmatched);
            assert_eq!(
                (cors.methods, cors.headers, cors.expose, cors.max_age),
                (None, None, None, None)
            );
        }
        let old = read("{allowOrigin: ['*']}").unwrap();
        assert!(old.allows("https://a"));
    }

    #[test]
    fn what_cannot_be_told_is_refused_by_field() {
        for (yaml, field) in [
            ("{allowOrigin: [a], allowOrigins: [{exact: b}]}", "allowOrigin"),
            ("{allowOrigins: [{exact: a, prefix: b}]}", "allowOrigins[0]"),
            ("{allowMethods: [\"a\\nb\"]}", "methods"),
        ] {
            assert_eq!(read(yaml).unwrap_err().field, field, "{yaml}");
        }
    }
}
