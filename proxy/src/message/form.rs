//! The form of a request on its next connection: origin form and `Host` for HTTP/1.1, all parts of the URI for HTTP/2.

use std::cell::RefCell;
use std::net::SocketAddr;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version, header, request};

/// How many hosts a worker remembers.
const REMEMBERED: usize = 16;

/// The hosts that requests named last, as HTTP/1.1 and as HTTP/2 write them: each is parsed once and then shared, as an
/// application names the same few again and again.
#[derive(Debug, Default)]
pub struct Hosts(RefCell<Vec<(HeaderValue, Authority)>>);

impl Hosts {
    /// The authority that a `Host` header names, if it is one.
    fn authority(&self, host: &HeaderValue) -> Option<Authority> {
        if let Some((_, authority)) = self.0.borrow().iter().find(|(known, _)| known == host) {
            return Some(authority.clone());
        }
        let authority = Authority::try_from(host.as_bytes()).ok()?;
        self.remember(host.clone(), authority.clone());
        Some(authority)
    }

    /// The `Host` header for an authority.
    fn header(&self, authority: &Authority) -> Option<HeaderValue> {
        let written = authority.as_str();
        let known = self.0.borrow();
        if let Some((host, _)) = known.iter().find(|(_, known)| known.as_str() == written) {
            return Some(host.clone());
        }
        drop(known);
        let host = HeaderValue::from_str(written).ok()?;
        self.remember(host.clone(), authority.clone());
        Some(host)
    }

    fn remember(&self, host: HeaderValue, authority: Authority) {
        let mut known = self.0.borrow_mut();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.push((host, authority));
    }
}

/// Gives a request the form its next connection needs. `authority` takes the place of its own; `dialled` stands in where
/// it has none (HTTP/1.0).
pub fn set_form(
    parts: &mut request::Parts,
    version: Version,
    authority: Option<Authority>,
    dialled: SocketAddr,
    hosts: &Hosts,
) {
    parts.version = version;
    let path = parts.uri.path_and_query().filter(|p| !p.as_str().is_empty());
    if parts.method == Method::CONNECT && path.is_none() {
        // CONNECT names its target alone, in both versions.
        if version == Version::HTTP_2 {
            parts.headers.remove(header::HOST);
        }
        return;
    }
    if authority.is_none() && path.is_some() && has_form(parts, version) {
        if version == Version::HTTP_2 {
            parts.headers.remove(header::HOST);
        }
        return;
    }
    let path = path.cloned();
    let named = || match parts.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => hosts.authority(parts.headers.get(header::HOST)?),
    };
    let authority = authority
        .or_else(named)
        .or_else(|| Authority::try_from(dialled.to_string()).ok());
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if version == Version::HTTP_2 {
        parts.headers.remove(header::HOST);
        if let Some(authority) = authority {
            uri.scheme = Some(Scheme::HTTP);
            uri.authority = Some(authority);
        }
    } else if let Some(host) = authority.and_then(|authority| hosts.header(&authority)) {
        parts.headers.insert(header::HOST, host);
    }
    if let Ok(uri) = Uri::from_parts(uri) {
        parts.uri = uri;
    }
}

/// Says that a request of HTTP/2 goes through TLS: servers outside the mesh look at that.
pub fn set_https(parts: &mut request::Parts) {
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    if uri.authority.is_some() && uri.path_and_query.is_some() {
        uri.scheme = Some(Scheme::HTTPS);
    }
    // Parts of a URI that was one, with another scheme.
    parts.uri = Uri::from_parts(uri).unwrap_or_default();
}

/// Whether it is in that form already, but for a `Host` that HTTP/2 does without.
fn has_form(parts: &request::Parts, version: Version) -> bool {
    let uri = &parts.uri;
    if version == Version::HTTP_2 {
        return uri.authority().is_some() && uri.scheme() == Some(&Scheme::HTTP);
    }
    uri.authority().is_none()
        && uri.scheme().is_none()
        && parts
            .headers
            .get(header::HOST)
            .is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn parts(uri: &str, host: Option<&str>) -> request::Parts {
        let mut builder = Request::builder().uri(uri);
        if let Some(host) = host {
            builder = builder.header("host", host);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn http1_gets_origin_form_and_host_http2_all_parts() {
        let dialled = "10.0.0.1:80".parse().unwrap();
        let hosts = Hosts::default();
        // Twice: the second time from memory.
        for _ in 0..2 {
            let mut parts = parts("/x?y", Some("reviews:8080"));
            set_form(&mut parts, Version::HTTP_2, None, dialled, &hosts);
            assert_eq!(parts.uri, "http://reviews:8080/x?y");
            assert!(!parts.headers.contains_key("host"));
            set_form(&mut parts, Version::HTTP_11, None, dialled, &hosts);
            assert_eq!(parts.uri, "/x?y");
            assert_eq!(parts.headers["host"], "reviews:8080");
        }
    }

    #[test]
    fn forms_of_all_kinds() {
        let table = [
            // uri, Host, authority of the rule, what HTTP/1.1 gets, what HTTP/2 gets
            ("/a", Some("r:80"), None, ("/a", "r:80"), "http://r:80/a"),
            ("/a", Some("r:80"), Some("v2"), ("/a", "v2"), "http://v2/a"),
            ("/a", None, None, ("/a", "10.0.0.1:80"), "http://10.0.0.1:80/a"),
            (
                "/a",
                Some(""),
                None,
                ("/a", "10.0.0.1:80"),
                "http://10.0.0.1:80/a",
            ),
            ("http://r/a?b", Some("other"), None, ("/a?b", "r"), "http://r/a?b"),
            ("https://r/a", None, None, ("/a", "r"), "http://r/a"),
            ("http://r", None, None, ("/", "r"), "http://r/"),
            ("*", Some("r"), None, ("*", "r"), "http://r*"),
        ];
        for (uri, host, authority, (origin, header), whole) in table {
            let authority = authority.map(Authority::from_static);
            let hosts = Hosts::default();
            let formed = |version| {
                let mut parts = parts(uri, host);
                let dialled = "10.0.0.1:80".parse().unwrap();
                set_form(&mut parts, version, authority.clone(), dialled, &hosts);
                assert_eq!(parts.version, version);
                parts
            };
            let one = formed(Version::HTTP_11);
            assert_eq!(
                (one.uri.to_string().as_str(), &one.headers["host"]),
                (origin, &HeaderValue::from_static(header)),
                "{uri} {host:?}"
            );
            let two = formed(Version::HTTP_2);
            assert_eq!(two.uri.to_string(), whole, "{uri} {host:?}");
            assert!(!two.headers.contains_key("host"));
        }
    }

    proptest! {
        #[test]
        fn hosts_are_told_as_they_were_parsed(names in prop::collection::vec("[a-c]{1,2}(:[0-9]{1,4})?", 1..60)) {
            let hosts = Hosts::default();
            for name in names {
                let host = HeaderValue::from_str(&name).unwrap();
                let authority = hosts.authority(&host).unwrap();
                prop_assert_eq!(authority.as_str(), &name);
                prop_assert_eq!(hosts.header(&authority).unwrap(), host);
                prop_assert!(hosts.0.borrow().len() <= REMEMBERED);
            }
        }
    }
}
