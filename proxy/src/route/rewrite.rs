//! New paths and locations.

use api::{HttpMatch, Redirect, Rewrite, StringMatch};
use http::uri::{Authority, PathAndQuery};

/// The path that a rewrite makes of `path`: where the match was by prefix, that prefix is replaced and the rest kept;
/// otherwise the whole path is. The query stays. A replacement that ends in `/` before a rest that begins with one gives
/// one slash, and a rest without one is joined by one: `/api` → `/` makes `/v1` of `/api/v1`. `None` when the rewrite
/// leaves the path alone, or its result would be no path.
#[must_use]
pub fn rewritten(
    rewrite: &Rewrite,
    matched: Option<&HttpMatch>,
    path: &str,
    query: Option<&str>,
) -> Option<PathAndQuery> {
    let new = rewrite.uri.as_deref()?;
    let ignore_case = matched.is_some_and(|m| m.ignore_uri_case);
    let rest = match matched.and_then(|m| m.uri.as_ref()) {
        Some(StringMatch::Prefix(prefix)) => {
            let covered = path.get(..prefix.len()).is_some_and(|start| {
                if ignore_case {
                    start.eq_ignore_ascii_case(prefix)
                } else {
                    start == prefix
                }
            });
            if covered { &path[prefix.len()..] } else { "" }
        }
        // A rule without a condition on the path matched the empty prefix of it.
        None => path.strip_prefix('/').unwrap_or(path),
        Some(StringMatch::Exact(_) | StringMatch::Regex(_) | StringMatch::Present) => "",
    };
    let mut made = String::with_capacity(new.len() + rest.len() + query.map_or(0, |q| q.len() + 1) + 1);
    made.push_str(new);
    match (new.ends_with('/'), rest.starts_with('/')) {
        (true, true) => made.push_str(&rest[1..]),
        (false, false) if !rest.is_empty() => {
            made.push('/');
            made.push_str(rest);
        }
        _ => made.push_str(rest),
    }
    if let Some(query) = query {
        made.push('?');
        made.push_str(query);
    }
    PathAndQuery::try_from(made).ok()
}

/// The `Location` of a redirect: what it does not name stays as in the request. A port that is the scheme's own is left
/// out.
#[must_use]
pub fn location(redirect: &Redirect, authority: Option<&str>, path_and_query: &str) -> String {
    let scheme = redirect.scheme.as_ref().map_or("http", http::uri::Scheme::as_str);
    let own = authority.and_then(|a| Authority::try_from(a).ok());
    let target = redirect.authority.as_ref().or(own.as_ref());
    let host = target.map_or("", Authority::host);
    let port = redirect.port.or_else(|| {
        // The request's port belongs to the request's scheme and host.
        let keeps = redirect.scheme.is_none() || redirect.authority.is_some();
        target.filter(|_| keeps).and_then(Authority::port_u16)
    });
    let default = if scheme == "https" { 443 } else { 80 };
    let port = port
        .filter(|p| *p != default)
        .map(|p| format!(":{p}"))
        .unwrap_or_default();
    let path = redirect.uri.as_deref().unwrap_or(path_and_query);
    format!("{scheme}://{host}{port}{path}")
}
