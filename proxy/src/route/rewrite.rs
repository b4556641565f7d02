//! The path that a request is sent with, where its rule rewrites it. `outbound` calls [`rewritten`] after `route::select`.
//!
//! What the rule matched decides which part is replaced:
//!
//! | condition on the path | replaced |
//! |---|---|
//! | prefix | the prefix; the rest stays |
//! | exact, regular expression | the whole path |
//! | none, or *present* | as the prefix `/`, which every path has |
//!
//! An expression of the rule's own (`uriRegexRewrite`) replaces all that it matches in the path, whatever the rule matched.
//!
//! Where the new text meets the rest there is one slash, never two and never none if the prefix ended with one: `/api`
//! → `/` turns `/api/users` into `/users` (not `//users`), and `/` → `/v2` turns `/users` into `/v2/users` (not
//! `/v2users`). Slashes elsewhere, percent-encoding and the query stay as they came; a query in the new text goes before
//! the request's own. Targets that are no path (`*` of OPTIONS, none at CONNECT) stay as they are.

use api::{HttpMatch, Rewrite, StringMatch};
use http::uri::PathAndQuery;

use crate::error::Error;

/// The path and query to send, when the rewrite takes the place of what `matched` matched; `None` for no change.
///
/// # Errors
/// [`Error::BadRequest`] when the result is no path a request can have: it is too long, or an expression made of it what
/// does not begin with a slash.
pub fn rewritten(
    rewrite: &Rewrite,
    matched: Option<&HttpMatch>,
    path: &str,
    query: Option<&str>,
) -> Result<Option<PathAndQuery>, Error> {
    if !path.starts_with('/') {
        return Ok(None);
    }
    let bad = |problem| Err(Error::BadRequest { problem });
    let by_regex;
    let (new, new_query, rest) = match (rewrite.uri.as_deref(), &rewrite.uri_regex) {
        (Some(uri), _) => {
            let (new, new_query) = divided(uri);
            (new, new_query, Some(path))
        }
        (None, Some(regex)) => {
            let Some(new) = regex.apply(path, MAX_PATH) else {
                return bad(TOO_LONG);
            };
            if !new.starts_with('/') {
                return bad("its path does not begin with `/` once the route has rewritten it");
            }
            by_regex = new;
            let (new, new_query) = divided(&by_regex);
            (new, new_query, None)
        }
        (None, None) => return Ok(None),
    };
    let mut out = String::with_capacity(new.len() + path.len() + query.map_or(0, str::len) + 3);
    match rest {
        Some(path) => replace(&mut out, new, matched, path),
        None => out.push_str(new),
    }
    let mut mark = '?';
    for query in [new_query, query].into_iter().flatten() {
        out.push(mark);
        out.push_str(query);
        mark = '&';
    }
    match PathAndQuery::try_from(out) {
        Ok(new) => Ok(Some(new)),
        Err(_) => bad(TOO_LONG),
    }
}

/// The longest path that a request can have.
const MAX_PATH: usize = u16::MAX as usize - 1;
const TOO_LONG: &str = "its path is too long once the route has rewritten it";

fn divided(uri: &str) -> (&str, Option<&str>) {
    match uri.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (uri, None),
    }
}

/// Writes the path with `new` in place of what `matched` matched.
pub(super) fn replace(out: &mut String, new: &str, matched: Option<&HttpMatch>, path: &str) {
    let (rest, slash_before) = match matched.and_then(|m| m.uri.as_ref()) {
        Some(StringMatch::Prefix(prefix)) => behind(prefix, path),
        Some(StringMatch::Exact(_) | StringMatch::Regex(_)) => ("", false),
        Some(StringMatch::Present) | None => behind("/", path),
    };
    out.push_str(new);
    match (new.ends_with('/'), rest.starts_with('/')) {
        (true, true) => out.push_str(&rest[1..]),
        (false, false) if slash_before && !rest.is_empty() => {
            out.push('/');
            out.push_str(rest);
        }
        _ => out.push_str(rest),
    }
}

/// What follows a prefix that has matched, and whether the prefix ended with a slash. It may have matched in another
/// case; its length in bytes is the same.
fn behind<'p>(prefix: &str, path: &'p str) -> (&'p str, bool) {
    (
        path.get(prefix.len()..).unwrap_or_default(),
        prefix.ends_with('/'),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to(uri: &str) -> Rewrite {
        Rewrite {
            uri: Some(uri.to_owned()),
            authority: None,
            uri_regex: None,
        }
    }

    fn on(uri: StringMatch) -> Option<HttpMatch> {
        Some(HttpMatch {
            uri: Some(uri),
            ..HttpMatch::default()
        })
    }

    fn prefix(text: &str) -> Option<HttpMatch> {
        on(StringMatch::Prefix(text.to_owned()))
    }

    #[test]
    fn paths_are_rewritten_by_what_matched() {
        let exact = on(StringMatch::Exact("/old".to_owned()));
        let regex = on(StringMatch::Regex(api::Pattern::new("/o.*").unwrap()));
        let table = [
            // new, matched, path, query, expected
            ("/v2", prefix("/api"), "/api/users", None, "/v2/users"),
            ("/v2", prefix("/api"), "/api", None, "/v2"),
            ("/v2", prefix("/api"), "/apix/users", None, "/v2x/users"),
            ("/", prefix("/api"), "/api/users", None, "/users"),
            ("/", prefix("/api/"), "/api/users", None, "/users"),
            ("/", prefix("/api"), "/api", None, "/"),
            ("/v2", prefix("/api/"), "/api/users", None, "/v2/users"),
            ("/v2/", prefix("/api/"), "/api/users", None, "/v2/users"),
            ("/v2/", prefix("/api"), "/api/users", None, "/v2/users"),
            ("/v2/", prefix("/api/"), "/api/", None, "/v2/"),
            ("/v2", prefix("/"), "/users", None, "/v2/users"),
            ("/v2", prefix("/"), "/", None, "/v2"),
            ("/v2", prefix(""), "/users", None, "/v2/users"),
            // Another case, as with `ignoreUriCase`.
            ("/v2", prefix("/API"), "/api/Users", None, "/v2/Users"),
            // Slashes elsewhere and encoding stay.
            ("/v2", prefix("/api"), "/api//a%2Fb//c/", None, "/v2//a%2Fb//c/"),
            ("/v2", prefix("/api"), "/api%2Fusers", None, "/v2%2Fusers"),
            // The whole path.
            ("/new", exact.clone(), "/old", None, "/new"),
            ("/new", regex, "/other/things", None, "/new"),
            // Rules without a condition on the path.
            ("/v2", None, "/users", None, "/v2/users"),
            ("/v2", Some(HttpMatch::default()), "/users", None, "/v2/users"),
            ("/v2/", on(StringMatch::Present), "/users", None, "/v2/users"),
            // Queries.
            (
                "/v2",
                prefix("/api"),
                "/api/users",
                Some("a=1&b=/api"),
                "/v2/users?a=1&b=/api",
            ),
            ("/new", exact.clone(), "/old", Some(""), "/new?"),
            ("/new?x=1", exact.clone(), "/old", Some("a=1"), "/new?x=1&a=1"),
            ("/new?x=1", exact, "/old", None, "/new?x=1"),
        ];
        for (new, matched, path, query, expected) in table {
            let got = rewritten(&to(new), matched.as_ref(), path, query).unwrap();
            assert_eq!(
                got.unwrap().as_str(),
                expected,
                "{new} {matched:?} {path} {query:?}"
            );
        }
    }

    #[test]
    fn an_expression_replaces_what_it_matches_whatever_the_rule_matched() {
        let by = |pattern: &str, replacement: &str| Rewrite {
            uri: None,
            authority: None,
            uri_regex: Some(api::RegexRewrite::new(pattern, replacement).unwrap()),
        };
        let table = [
            (
                "^/service/([^/]+)(/.*)$",
                "\\2/of/\\1",
                "/service/a/b",
                Some("q=/service/x/y"),
                "/b/of/a?q=/service/x/y",
            ),
            ("/none", "/x", "/some", None, "/some"),
            ("^/old", "/new?x=1", "/old/a", Some("y=2"), "/new?x=1/a&y=2"),
        ];
        for (pattern, replacement, path, query, expected) in table {
            let rewrite = by(pattern, replacement);
            for matched in [None, prefix("/s")] {
                let got = rewritten(&rewrite, matched.as_ref(), path, query)
                    .unwrap()
                    .unwrap();
                assert_eq!(got.as_str(), expected, "{pattern} {path}");
            }
        }
        assert_eq!(rewritten(&by("a", "b"), None, "*", None).unwrap(), None);
        let long = format!("/{}", "a".repeat(100));
        for (pattern, replacement, problem) in [
            ("^/", "", "does not begin with `/`"),
            ("a", &"\\0".repeat(500) as &str, "too long"),
        ] {
            let long = long.repeat(10);
            let refused = rewritten(&by(pattern, replacement), None, &long, None).unwrap_err();
            assert!(refused.to_string().contains(problem), "{refused}");
        }
    }

    #[test]
    fn without_a_path_or_a_new_one_nothing_changes() {
        for target in ["*", ""] {
            assert_eq!(rewritten(&to("/v2"), None, target, None).unwrap(), None);
        }
        let authority_only = Rewrite {
            uri: None,
            authority: Some("other".parse().unwrap()),
            uri_regex: None,
        };
        for target in ["/", "/users"] {
            assert_eq!(rewritten(&authority_only, None, target, None).unwrap(), None);
        }
    }

    #[test]
    fn a_path_that_gets_too_long_is_refused() {
        let long = format!("/{}", "a".repeat(70_000));
        let refused = rewritten(&to("/v2"), None, &long, None).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "bad request: its path is too long once the route has rewritten it"
        );
    }

    proptest! {
        #[test]
        fn the_seam_has_one_slash_where_the_prefix_ended_with_one(
            new in "/([a-z]{1,4}/?)?",
            prefix in "/([a-z]{1,4}/)?",
            rest in "[a-z]{1,5}(/[a-z]{0,3}){0,2}",
        ) {
            let matched = HttpMatch { uri: Some(StringMatch::Prefix(prefix.clone())), ..HttpMatch::default() };
            let got = rewritten(&to(&new), Some(&matched), &format!("{prefix}{rest}"), None).unwrap().unwrap();
            prop_assert_eq!(got.as_str(), format!("{}/{rest}", new.trim_end_matches('/')));
        }
    }
}
