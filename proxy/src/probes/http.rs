//! An HTTP probe: GET, and a status from 200 to 399 passes. Header, redirect and error rules are the kubelet's: a redirect
//! to the same host is followed, one to another host counts as an answer, certificates are not verified.

use ::http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use ::http::uri::{PathAndQuery, Uri};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::{Dialler, authority, tls, whole};
use crate::io::Io;

/// As many requests as one probe makes at most.
const HOPS: usize = 10;
/// What is read of an answer's body; the rest is left.
const BODY: usize = 10 << 10;
/// What is shown of the body of an answer that failed.
const SHOWN: usize = 200;

/// How the application is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scheme {
    /// In the clear.
    #[default]
    #[serde(alias = "HTTP")]
    Http,
    /// TLS.
    #[serde(alias = "HTTPS")]
    Https,
}

/// A GET of the application.
#[derive(Debug)]
pub(super) struct Get {
    scheme: Scheme,
    path: PathAndQuery,
    headers: HeaderMap,
    /// The `host` of the headers, if there is one.
    host: Option<HeaderValue>,
}

/// What was answered, as far as it counts.
struct Answer {
    status: StatusCode,
    location: Option<HeaderValue>,
    body: Bytes,
}

impl Get {
    pub(super) fn new<'a>(
        scheme: Scheme,
        path: &str,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let bad = |e: &dyn std::fmt::Display| format!("header {name:?}: {e}");
            let key: HeaderName = name.parse().map_err(|e| bad(&e))?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|e| bad(&e))?;
            map.append(key, value);
        }
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let path = escaped(&format!("{slash}{path}"));
        let host = map.remove(HOST);
        Ok(Self {
            scheme,
            path: path.parse().map_err(|e| format!("path {path:?}: {e}"))?,
            headers: map,
            host,
        })
    }

    pub(super) async fn carry_out(
        &self,
        dialler: &Dialler,
        host: &str,
        port: u16,
        agent: &HeaderValue,
    ) -> Result<String, String> {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let at = Uri::builder()
            .scheme(scheme)
            .authority(authority(host, port))
            .path_and_query(self.path.clone())
            .build();
        let mut at = at.map_err(|e| format!("host {host:?}: {e}"))?;
        let first = at.clone();
        let mut named = self.host.clone();
        for _ in 0..HOPS {
            let answer = self.ask(dialler, &at, named.as_ref(), agent).await?;
            let status = answer.status;
            let Some(location) = answer.location.filter(|_| leads_on(status)) else {
                return verdict(status, &answer.body);
            };
            let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
            let next = follow(&at, &location)?;
            if next.host() != first.host() {
                return Ok(format!(
                    "HTTP {} to another host, which is not asked",
                    status.as_u16()
                ));
            }
            named = if is_absolute(&location) {
                None
            } else {
                self.host.clone()
            };
            at = next;
        }
        Err(format!("it redirects more than {HOPS} times"))
    }

    async fn ask(
        &self,
        dialler: &Dialler,
        at: &Uri,
        named: Option<&HeaderValue>,
        agent: &HeaderValue,
    ) -> Result<Answer, String> {
        let https = at.scheme_str() == Some("https");
        let host = at.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = at.port_u16().unwrap_or(if https { 443 } else { 80 });
        let stream = Io::from(dialler.dial(host, port).await?);
        let io = if https {
            tls::connect(stream, host).await?
        } else {
            stream
        };
        exchange(io, self.request(at, named, agent)?).await
    }

    /// A header that the probe sets to nothing is not sent at all, where a client sends it by itself.
    fn request(
        &self,
        at: &Uri,
        named: Option<&HeaderValue>,
        agent: &HeaderValue,
    ) -> Result<Request<Empty<Bytes>>, String> {
        let path = at.path_and_query().map_or("/", PathAndQuery::as_str);
        let host = match named {
            Some(host) if !host.is_empty() => host.clone(),
            _ => {
                let authority = at.authority().map_or("", |a| a.as_str());
                HeaderValue::from_str(authority).map_err(|e| e.to_string())?
            }
        };
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = path.parse().map_err(|e| format!("path {path:?}: {e}"))?;
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.extend(self.headers.clone());
        for (name, value) in [
            (USER_AGENT, agent.clone()),
            (ACCEPT, HeaderValue::from_static("*/*")),
        ] {
            match headers.get(&name).map(HeaderValue::is_empty) {
                None => drop(headers.insert(name, value)),
                Some(true) => drop(headers.remove(name)),
                Some(false) => {}
            }
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }
}

/// One request on a connection of its own. Nothing is left behind when this is dropped.
async fn exchange(io: Io, request: Request<Empty<Bytes>>) -> Result<Answer, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|e| whole(&e))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| whole(&e))?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status,
            location: head.headers.get(LOCATION).cloned(),
            body: beginning(body).await?,
        })
    };
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    tokio::select! {
        answer = answer.as_mut() => answer,
        // What has arrived before the end is still there to be read.
        _ = connection.as_mut() => answer.await,
    }
}

async fn beginning(mut body: Incoming) -> Result<Bytes, String> {
    let mut read = BytesMut::new();
    while read.len() < BODY {
        match body.frame().await {
            Some(Ok(frame)) => read.extend(frame.into_data().unwrap_or_default()),
            Some(Err(e)) => return Err(format!("the answer broke off: {}", whole(&e))),
            None => break,
        }
    }
    Ok(read.freeze())
}

fn leads_on(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn verdict(status: StatusCode, body: &[u8]) -> Result<String, String> {
    let told = format!("HTTP {}", status.as_u16());
    if (200..400).contains(&status.as_u16()) {
        return Ok(told);
    }
    let body = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    // In one line, and with nothing that a terminal would obey: it goes into the log.
    let line = body.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.replace(|c: char| c.is_control(), "?");
    if line.is_empty() {
        return Err(told);
    }
    Err(format!("{told}: {line}"))
}

/// Where a redirect leads, seen from `at`.
fn follow(at: &Uri, location: &str) -> Result<Uri, String> {
    let bad = |e: &dyn std::fmt::Display| format!("it redirects to {location:?}: {e}");
    let location = escaped(location.split('#').next().unwrap_or_default());
    let scheme = at.scheme_str().unwrap_or("http");
    let authority = at.authority().map_or("", |a| a.as_str());
    let whole = if is_absolute(&location) {
        location
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", at.path())
    } else if location.is_empty() {
        at.to_string()
    } else {
        let (path, query) = match location.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (location.as_str(), String::new()),
        };
        let folder = at.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{folder}/{path}"),
        };
        format!("{scheme}://{authority}{}{query}", without_dots(&path))
    };
    let next: Uri = whole.parse().map_err(|e| bad(&e))?;
    match next.scheme_str() {
        Some("http" | "https") => Ok(next),
        _ => Err(bad(&"only http and https are followed")),
    }
}

/// Whether it begins with a scheme.
fn is_absolute(location: &str) -> bool {
    let scheme = location.split_once(':').map_or("", |(scheme, _)| scheme);
    !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Takes `.` and `..` out of a path.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    for (i, part) in parts.iter().enumerate() {
        let last = i + 1 == parts.len();
        match *part {
            "." => {}
            ".." => drop(kept.pop()),
            part => kept.push(part),
        }
        if last && matches!(*part, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// The text with what no URL may hold written as `%XX`.
fn escaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut escaped = String::with_capacity(bytes.len());
    for (i, byte) in bytes.iter().enumerate() {
        let good = match byte {
            b'%' => bytes
                .get(i + 1..i + 3)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
            byte => byte.is_ascii_graphic(),
        };
        if good {
            escaped.push(char::from(*byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_where_a_browser_would_go() {
        let at: Uri = "http://10.1.0.5:8080/a/b?x=1".parse().unwrap();
        for (location, expected) in [
            ("/c", "http://10.1.0.5:8080/c"),
            ("c?y=2", "http://10.1.0.5:8080/a/c?y=2"),
            ("?y=2", "http://10.1.0.5:8080/a/b?y=2"),
            ("../c/./d#top", "http://10.1.0.5:8080/c/d"),
            ("../../..", "http://10.1.0.5:8080/"),
            ("//10.1.0.5:9090/c", "http://10.1.0.5:9090/c"),
            (
                "https://shop.example/login?to=http://x",
                "https://shop.example/login?to=http://x",
            ),
            ("/with space", "http://10.1.0.5:8080/with%20space"),
        ] {
            assert_eq!(follow(&at, location).unwrap().to_string(), expected, "{location}");
        }
        for bad in ["ftp://10.1.0.5/", "mailto:a@b", "http://"] {
            let error = follow(&at, bad).unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_path_becomes_one_that_can_be_sent() {
        for (path, expected) in [
            ("/", "/"),
            ("", "/"),
            ("ready", "/ready"),
            ("/a b?q=ä", "/a%20b?q=%C3%A4"),
            ("/100%", "/100%25"),
            ("/a%20b#top", "/a%20b"),
        ] {
            let get = Get::new(Scheme::Http, path, std::iter::empty()).unwrap();
            assert_eq!(get.path.as_str(), expected, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_location_makes_it_panic(location in ".{0,60}") {
            let at: Uri = "http://[fd00::5]:8080/a".parse().unwrap();
            let _ = follow(&at, &location);
        }
    }
}
