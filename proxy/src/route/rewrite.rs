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
/// [`Error::BadRequest`] when the result is no path a request can have, which means that it is too long.
pub fn rewritten(
    rewrite: &Rewrite,
    matched: Option<&HttpMatch>,
    path: &str,
    query: Option<&str>,
) -> Result<Option<PathAndQuery>, Error> {
    let Some(new) = rewrite.uri.as_deref().filter(|_| path.starts_with('/')) else {
        return Ok(None);
    };
    let (new, new_query) = match new.split_once('?') {
        Some((new, query)) => (new, Some(query)),
        None => (new, None),
    };
    let (rest, slash_before) = match matched.and_then(|m| m.uri.as_ref()) {
        Some(StringMatch::Prefix(prefix)) => behind(prefix, path),
        Some(StringMatch::Exact(_) | StringMatch::Regex(_)) => ("", false),
        Some(StringMatch::Present) | None => behind("/", path),
    };
    let mut out = String::with_capacity(new.len() + path.len() + query.map_or(0, str::len) + 3);
    out.push_str(new);
    match (new.ends_with('/'), rest.starts_with('/')) {
        (true, true) => out.push_str(&rest[1..]),
        (false, false) if slash_before && !rest.is_empty() => {
            out.push('/');
            out.push_str(rest);
        }
        _ => out.push_str(rest),
    }
    let mut mark = '?';
    for query in [new_query, query].into_iter().flatten() {
        out.push(mark);
        out.push_str(query);
        mark = '&';
    }
    let problem = "its path is too long once the route has rewritten it";
    PathAndQuery::try_from(out)
        .map(Some)
        .map_err(|_| Error::BadRequest { problem })
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
    fn without_a_path_or_a_new_one_nothing_changes() {
        for target in ["*", ""] {
            assert_eq!(rewritten(&to("/v2"), None, target, None).unwrap(), None);
        }
        let authority_only = Rewrite {
            uri: None,
            authority: Some("other".parse().unwrap()),
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
