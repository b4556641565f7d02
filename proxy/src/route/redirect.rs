//! The `Location` of a redirect. `outbound` calls [`location`] after `route::select`.
//!
//! What the rule leaves out stays as in the request: scheme, host, path and query. A path in the rule replaces the whole
//! path, whatever was matched, and keeps the request's query unless it brings one; a prefix in the rule replaces what was
//! matched, as in `rewrite`. A port goes with the host it was
//! written for, and is left out where the scheme implies it: `http://shop:80/` → `https://shop/`. A request without an
//! authority (HTTP/1.0) is redirected by path alone, to the host the client knows.

use std::fmt::Write as _;

use api::{HttpMatch, Redirect};
use http::HeaderValue;

use super::{Facts, rewrite};
use crate::error::Error;

/// The value of the `Location` header, for a request that the rule's `matched` took.
///
/// # Errors
/// [`Error::BadRequest`] when the request's own parts cannot be put into a header.
pub fn location(
    redirect: &Redirect,
    matched: Option<&HttpMatch>,
    facts: &Facts<'_>,
) -> Result<HeaderValue, Error> {
    let mut out = String::new();
    let host = host(redirect, facts, &mut out);
    let new = redirect.uri.as_deref().or(redirect.prefix_rewrite.as_deref());
    let (new, query) = match new.map(|new| new.split_once('?').ok_or(new)) {
        Some(Ok((new, query))) => (Some(new), Some(query)),
        Some(Err(new)) => (Some(new), facts.query),
        None => (None, facts.query),
    };
    let mut swapped = String::new();
    let path = match new {
        Some(prefix) if redirect.prefix_rewrite.is_some() && facts.path.starts_with('/') => {
            rewrite::replace(&mut swapped, prefix, matched, facts.path);
            &swapped
        }
        Some(uri) => uri,
        None => facts.path,
    };
    if !host {
        // `//name` would be a host of its own, and browsers read `\` as `/` and skip tabs: a request must not choose where to go.
        out.push('/');
        out.push_str(path.trim_start_matches(['/', '\\', '\t']));
    } else if path.starts_with('/') {
        out.push_str(path);
    } else {
        // `*` of OPTIONS, none at CONNECT.
        out.push('/');
    }
    if let Some(query) = query {
        out.push('?');
        out.push_str(query);
    }
    let problem = "its target cannot be put into a Location header";
    HeaderValue::try_from(ascii(out)).map_err(|_| Error::BadRequest { problem })
}

/// Writes `scheme://host[:port]`; false when there is no host to write.
fn host(redirect: &Redirect, facts: &Facts<'_>, out: &mut String) -> bool {
    let scheme = redirect
        .scheme
        .as_ref()
        .map_or(facts.scheme, |scheme| scheme.as_str());
    let own = redirect.authority.as_ref().map(|authority| authority.as_str());
    let Some((host, port)) = own.or(facts.authority).map(host_and_port) else {
        return false;
    };
    if host.is_empty() {
        return false;
    }
    let port = match (redirect.port, own, port) {
        (Some(port), ..) => Some(port).filter(|port| implied(scheme) != Some(*port)),
        // Written by the user.
        (None, Some(_), port) => port,
        // The client's: it said 80 because the scheme was http, which it may no longer be.
        (None, None, port) => port.filter(|port| implied(facts.scheme) != Some(*port)),
    };
    out.push_str(scheme);
    out.push_str("://");
    out.push_str(host);
    if let Some(port) = port {
        // Writing to a `String` cannot fail.
        let _ = write!(out, ":{port}");
    }
    true
}

fn implied(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Host and port of an authority, without user information.
fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // Colons inside brackets belong to an IPv6 address.
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

/// Percent-encodes what a URI cannot carry as it is.
fn ascii(text: String) -> String {
    if text.is_ascii() {
        return text;
    }
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use api::StringMatch;
    use http::{HeaderMap, Method, StatusCode};
    use proptest::prelude::*;

    use super::*;

    fn redirect(change: impl FnOnce(&mut Redirect)) -> Redirect {
        let mut redirect = Redirect {
            uri: None,
            prefix_rewrite: None,
            authority: None,
            scheme: None,
            port: None,
            status: StatusCode::MOVED_PERMANENTLY,
        };
        change(&mut redirect);
        redirect
    }

    fn of(
        redirect: &Redirect,
        authority: Option<&str>,
        path: &str,
        query: Option<&str>,
    ) -> Result<String, Error> {
        after(redirect, None, authority, path, query)
    }

    fn after(
        redirect: &Redirect,
        matched: Option<&HttpMatch>,
        authority: Option<&str>,
        path: &str,
        query: Option<&str>,
    ) -> Result<String, Error> {
        let (method, headers) = (Method::GET, HeaderMap::new());
        let facts = Facts {
            method: &method,
            path,
            query,
            authority,
            scheme: "http",
            headers: &headers,
        };
        location(redirect, matched, &facts).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_the_rule_leaves_out_stays() {
        let nothing = redirect(|_| ());
        let https = redirect(|r| r.scheme = Some("https".parse().unwrap()));
        let uri = redirect(|r| r.uri = Some("/new".to_owned()));
        let uri_query = redirect(|r| r.uri = Some("/new?x=1".to_owned()));
        let host = redirect(|r| r.authority = Some("other.example".parse().unwrap()));
        let host_port = redirect(|r| r.authority = Some("other.example:8080".parse().unwrap()));
        let port = redirect(|r| r.port = Some(8443));
        let port_80 = redirect(|r| r.port = Some(80));
        let https_443 = redirect(|r| {
            r.scheme = Some("https".parse().unwrap());
            r.port = Some(443);
        });
        let table = [
            (
                &nothing,
                Some("shop:8080"),
                "/a",
                Some("q=1"),
                "http://shop:8080/a?q=1",
            ),
            (&https, Some("shop"), "/a", None, "https://shop/a"),
            (&https, Some("shop:80"), "/a", None, "https://shop/a"),
            (&https, Some("shop:8080"), "/a", None, "https://shop:8080/a"),
            (&https, Some("[fd00::1]:80"), "/a", None, "https://[fd00::1]/a"),
            (&https, Some("[fd00::1]"), "/a", None, "https://[fd00::1]/a"),
            (&uri, Some("shop"), "/old/x", Some("q=1"), "http://shop/new?q=1"),
            (
                &uri_query,
                Some("shop"),
                "/old/x",
                Some("q=1"),
                "http://shop/new?x=1",
            ),
            (&host, Some("shop:8080"), "/a", None, "http://other.example/a"),
            (
                &host_port,
                Some("shop"),
                "/a",
                None,
                "http://other.example:8080/a",
            ),
            (&port, Some("shop:80"), "/a", None, "http://shop:8443/a"),
            (&port_80, Some("shop:8080"), "/a", None, "http://shop/a"),
            (&https_443, Some("shop:80"), "/a", None, "https://shop/a"),
            (&nothing, Some("user:secret@shop"), "/a", None, "http://shop/a"),
            (
                &nothing,
                Some("shop"),
                "//evil.example/x",
                None,
                "http://shop//evil.example/x",
            ),
            (&nothing, Some("shop"), "*", None, "http://shop/"),
            (&nothing, Some("shop"), "/é", None, "http://shop/%C3%A9"),
            (&uri, None, "/old", Some("q=1"), "/new?q=1"),
            (&nothing, None, "//evil.example/x", None, "/evil.example/x"),
            (&nothing, None, "/\\evil.example/x", None, "/evil.example/x"),
            (&nothing, Some(""), "/a", None, "/a"),
        ];
        for (redirect, authority, path, query, expected) in table {
            assert_eq!(
                of(redirect, authority, path, query).unwrap(),
                expected,
                "{authority:?} {path}"
            );
        }
    }

    #[test]
    fn a_prefix_takes_the_place_of_what_was_matched() {
        let on = |uri| HttpMatch {
            uri: Some(uri),
            ..HttpMatch::default()
        };
        let prefix = on(StringMatch::Prefix("/old".to_owned()));
        let exact = on(StringMatch::Exact("/old/a".to_owned()));
        let to = |new: &str| redirect(|r| r.prefix_rewrite = Some(new.to_owned()));
        for (new, matched, path, query, expected) in [
            (
                "/new",
                Some(&prefix),
                "/old/a",
                Some("q=1"),
                "http://shop/new/a?q=1",
            ),
            ("/", Some(&prefix), "/old/a", None, "http://shop/a"),
            ("/new", Some(&exact), "/old/a", Some("q=1"), "http://shop/new?q=1"),
            (
                "/new?x=1",
                Some(&prefix),
                "/old/a",
                Some("q=1"),
                "http://shop/new/a?x=1",
            ),
            ("/new", None, "/old/a", None, "http://shop/new/old/a"),
        ] {
            let got = after(&to(new), matched, Some("shop"), path, query).unwrap();
            assert_eq!(got, expected, "{new} {matched:?} {path}");
        }
        assert_eq!(
            after(&to("//evil.example"), Some(&prefix), None, "/old", None).unwrap(),
            "/evil.example"
        );
    }

    #[test]
    fn what_no_header_can_carry_is_refused() {
        let refused = of(&redirect(|_| ()), Some("shop\r\nset-cookie: a=b"), "/", None).unwrap_err();
        assert_eq!(refused.flag(), "bad_request");
    }

    proptest! {
        #[test]
        fn without_an_authority_no_path_names_a_host(path in "[/\\\\\t]{0,4}[a-z.]{0,5}.{0,5}") {
            if let Ok(location) = of(&redirect(|_| ()), None, &path, None) {
                prop_assert!(location.starts_with('/'));
                prop_assert!(!location[1..].starts_with(['/', '\\', '\t']));
            }
        }
    }
}
