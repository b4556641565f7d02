//! What a proxy must change in every HTTP message (RFC 9110, 7.6), and the answers it gives itself.

mod form;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};

use crate::error::Error;
use crate::record::{self, RecordedBody};
use crate::upstream::response::ResponseBody;

pub use form::{Hosts, set_form, set_https};

/// Says why a proxy answers itself, or what it did to an answer.
pub(crate) const REASON: HeaderName = HeaderName::from_static(api::names::REASON_HEADER);

/// Names made once: a look-up by text has to parse the text each time.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// The header and trailer that carries a gRPC status.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether a header is about one connection. Told from its name without hashing it, as most messages have none.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "transfer-encoding" | "upgrade" | "te" | "keep-alive" | "proxy-connection"
    )
}

/// Removes what belongs to one connection alone. `te: trailers` stays: trailers are carried on.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .filter_map(|name| HeaderName::try_from(name.trim()).ok())
            .filter(|name| *name != header::TE && *name != header::TRAILER)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}

/// The protocol a request asks to change to: `Connection: upgrade` and `Upgrade` of HTTP/1.1, or CONNECT.
#[must_use]
pub fn wants_tunnel<B>(request: &Request<B>) -> Option<Tunnel> {
    if request.method() == Method::CONNECT {
        return Some(Tunnel::Connect);
    }
    let upgrade = request.headers().get(header::UPGRADE)?;
    let asks = request
        .headers()
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    // h2c by upgrade would hide requests from the proxy; the server may go on with HTTP/1.1 (RFC 9110, 7.8).
    let h2c = upgrade.to_str().is_ok_and(|u| u.eq_ignore_ascii_case("h2c"));
    (asks && !h2c && request.version() == Version::HTTP_11).then(|| Tunnel::Upgrade(upgrade.clone()))
}

/// How a tunnel is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tunnel {
    /// The CONNECT method.
    Connect,
    /// HTTP/1.1 upgrade to this protocol.
    Upgrade(HeaderValue),
}

impl Tunnel {
    /// Puts back what `strip_hop_by_hop` took.
    pub fn restore(&self, headers: &mut HeaderMap) {
        if let Self::Upgrade(protocol) = self {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol.clone());
        }
    }
}

/// Authority of a request: of its URI, or of its `Host` header.
#[must_use]
pub fn authority<B>(request: &Request<B>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok()),
    }
}

/// Checks what hyper leaves to its user.
///
/// # Errors
/// When the request could be read in two ways, or names no host or several.
pub fn check<B>(request: &Request<B>) -> Result<(), Error> {
    let bad = |problem| Err(Error::BadRequest { problem });
    let headers = request.headers();
    let (mut hosts, mut host, mut is_coded) = (0, None, false);
    for (name, value) in headers {
        if *name == header::HOST {
            (hosts, host) = (hosts + 1, Some(value));
        }
        is_coded |= *name == header::TRANSFER_ENCODING;
    }
    if request.version() <= Version::HTTP_11 {
        if is_coded {
            // hyper reads such a message by its coding, drops the length and closes afterwards (RFC 9112, 6.3); should it
            // ever pass both on, they end here.
            if headers.contains_key(header::CONTENT_LENGTH) {
                return bad(
                    "both Content-Length and Transfer-Encoding (RFC 9112, 6.1): its end is ambiguous",
                );
            }
            if request.version() < Version::HTTP_11 {
                return bad("Transfer-Encoding in HTTP/1.0 (RFC 9112, 6.1)");
            }
            // Only chunks are taken apart on the way: another coding would stay on the body with nothing to tell of it.
            let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
            let only = codings.next().filter(|_| codings.next().is_none());
            if only.is_none_or(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
                return bad("a Transfer-Encoding other than `chunked` alone (RFC 9112, 7)");
            }
        }
        if hosts > 1 {
            return bad("more than one Host header (RFC 9112, 3.2)");
        }
        if hosts == 0 && request.version() == Version::HTTP_11 {
            return bad("no Host header (RFC 9112, 3.2)");
        }
    }
    if let Some(host) = host
        && !host.is_empty()
        && !is_authority(host.as_bytes())
    {
        return bad("the Host header is not an authority");
    }
    Ok(())
}

/// Whether a `Host` header names an authority. Most are a name and a port, which a look at each byte tells.
fn is_authority(host: &[u8]) -> bool {
    let name_end = host.iter().position(|b| *b == b':').unwrap_or(host.len());
    let (name, port) = host.split_at(name_end);
    let is_plain = name
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        && port.iter().skip(1).all(u8::is_ascii_digit)
        && !name.is_empty()
        && port.len() != 1;
    is_plain || Authority::try_from(host).is_ok()
}

/// Whether a request is gRPC, so that errors are told in gRPC's way.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc") && matches!(value.get(16), None | Some(b'+' | b';'))
    })
}

/// Ends the proxy's part of a request: its answer or its error goes to the application, and the record with it.
pub(crate) fn told(
    answer: Result<Response<ResponseBody>, Error>,
    mut record: record::Request,
) -> Response<RecordedBody<ResponseBody>> {
    let response = answer.unwrap_or_else(|error| {
        let response = error_response(&error, record.protocol == api::Protocol::Grpc);
        record.error = Some(error);
        response.map(|body| ResponseBody::Own(Some(body)))
    });
    record.status = response.status().as_u16();
    let (parts, body) = response.into_parts();
    let body = RecordedBody::of_response(&parts.headers, body, record);
    Response::from_parts(parts, body)
}

/// The answer that tells an application of an error: who says it, and why.
#[must_use]
pub fn error_response(error: &Error, grpc: bool) -> Response<Bytes> {
    let flag = HeaderValue::from_static(error.flag());
    if grpc {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(error.grpc_code())));
        headers.insert("grpc-message", grpc_message(&format!("hauberk: {error}")));
        headers.insert(REASON, flag);
        return response;
    }
    let mut response = Response::new(match error.status() {
        // None that can have a body; only a fault injected on purpose answers so.
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED => Bytes::new(),
        _ => Bytes::from(format!("hauberk: {error}\n")),
    });
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(REASON, flag);
    if let Error::BadRequest { .. } = error {
        // Where a message could be read in two ways, so could what follows it.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if error.status() == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Takes a proxy's words out of what an application says.
pub fn silence(headers: &mut HeaderMap) {
    headers.remove(REASON);
}

/// Whether this is a proxy's answer for an application that it could not connect to: the request reached nobody.
#[must_use]
pub fn is_unreached(headers: &HeaderMap) -> bool {
    let is = |flag: &HeaderValue| flag == "connect_failure" || flag == "connect_timeout";
    headers.get(REASON).is_some_and(is)
}

/// Percent-encodes as gRPC asks for (PROTOCOL-HTTP2, "Status-Message").
fn grpc_message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static("hauberk"))
}

/// The idle time an HTTP/1.1 server announces in `Keep-Alive: timeout=N`.
#[must_use]
pub fn announced_idle(headers: &HeaderMap) -> Option<std::time::Duration> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    value
        .split(',')
        .filter_map(|param| param.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
        .and_then(|(_, seconds)| seconds.trim().parse().ok())
        .map(std::time::Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri("/x?y");
        for (name, value) in head {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn what_belongs_to_one_connection_goes_and_trailers_stay_announced() {
        let mut headers = request(&[
            ("connection", "x-mine, TE, close"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ])
        .headers()
        .clone();
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "te", "trailer"]);
    }

    #[test]
    fn requests_that_can_be_read_in_two_ways_are_refused() {
        for head in [
            &[
                ("host", "a"),
                ("content-length", "3"),
                ("transfer-encoding", "chunked"),
            ][..],
            &[("host", "a"), ("transfer-encoding", "gzip, chunked")],
            &[
                ("host", "a"),
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            &[("host", "a"), ("host", "b")],
            &[],
            &[("host", "a b")],
        ] {
            assert!(check(&request(head)).is_err(), "{head:?}");
        }
        assert!(check(&request(&[("host", "reviews:8080")])).is_ok());
        assert!(check(&request(&[("host", "a"), ("transfer-encoding", "Chunked")])).is_ok());
    }

    #[test]
    fn a_connection_that_failed_at_the_far_end_is_known_by_the_words_of_the_proxy_there() {
        let endpoint = "10.0.0.1:80".parse().unwrap();
        let source = std::sync::Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        for (error, unreached) in [
            (Error::Connect { endpoint, source }, true),
            (Error::ConnectTimeout { endpoint }, true),
            (Error::RefusedStream { endpoint }, false),
            (Error::Timeout, false),
        ] {
            for grpc in [false, true] {
                let mut answer = error_response(&error, grpc);
                assert_eq!(is_unreached(answer.headers()), unreached, "{error}");
                silence(answer.headers_mut());
                assert!(!is_unreached(answer.headers()));
            }
        }
    }

    #[test]
    fn errors_are_told_in_the_protocol_of_the_request() {
        let error = Error::NoEndpoint {
            cluster: "reviews:80".into(),
            absent: None,
        };
        let plain = error_response(&error, false);
        assert_eq!(plain.status(), 503);
        assert_eq!(plain.headers()[REASON], "no_endpoint");
        let grpc = error_response(&error, true);
        assert_eq!(grpc.status(), 200);
        assert_eq!(grpc.headers()["grpc-status"], "14");
        let bad = error_response(&Error::BadRequest { problem: "two hosts" }, false);
        assert_eq!(
            (bad.status().as_u16(), &bad.headers()["connection"]),
            (400, &HeaderValue::from_static("close"))
        );
    }

    #[test]
    fn keep_alive_timeout_is_read() {
        let head = request(&[("keep-alive", "max=100, timeout=5")]);
        assert_eq!(
            announced_idle(head.headers()),
            Some(std::time::Duration::from_secs(5))
        );
    }
}
