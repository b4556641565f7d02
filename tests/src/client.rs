//! Single HTTP calls: what a test says it sends, and everything that came back.
//!
//! Used by pods ([`Pod::send`](crate::lab::Pod::send)), by tests that stand outside the mesh, and by [`load`](crate::load).
//! It never retries, follows or reuses behind the caller's back: what a test sees is what the proxy did.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::app::{POD_HEADER, VERSION_HEADER};

/// How long a call may take unless it says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge, without TLS.
    Http2,
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The call itself makes no sense.
    #[error("{0}")]
    BadCall(String),
    /// No connection.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The connection broke, or the peer did not speak HTTP.
    #[error("the connection broke: {}", chain(.0))]
    Broken(hyper::Error),
    /// No complete reply in time.
    #[error("no complete reply within {0:?}")]
    Timeout(Duration),
}

/// One call to make.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    trailers: Option<HeaderMap>,
    protocol: Protocol,
    patience: Duration,
}

/// A complete reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The trailer fields, if there were any.
    pub trailers: Option<HeaderMap>,
    /// The protocol version of the reply.
    pub version: http::Version,
    /// From sending to the end of the body.
    pub took: Duration,
}

/// An open HTTP connection.
#[derive(Debug)]
pub struct Session {
    sender: Sender,
}

type RequestBody = BoxBody<Bytes, Infallible>;

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

impl Call {
    /// A GET of `url`, such as `http://reviews:8080/path`.
    pub fn get(url: &str) -> Call {
        Call::new(Method::GET, url)
    }

    /// A POST of `body` to `url`.
    pub fn post(url: &str, body: impl Into<Bytes>) -> Call {
        Call::new(Method::POST, url).body(body)
    }

    /// A call with any method.
    pub fn new(method: Method, url: &str) -> Call {
        Call {
            method,
            url: url.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            trailers: None,
            protocol: Protocol::Http1,
            patience: PATIENCE,
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Call {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the host that is asked for, where it is not the URL's.
    #[must_use]
    pub fn host(self, host: &str) -> Call {
        self.header("host", host)
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Call {
        self.body = body.into();
        self
    }

    /// Sends a trailer field after the body.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Call {
        let fields = self.trailers.get_or_insert_default();
        fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    /// Speaks HTTP/2 without TLS.
    #[must_use]
    pub fn http2(mut self) -> Call {
        self.protocol = Protocol::Http2;
        self
    }

    /// Allows this long for the whole call.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Call {
        self.patience = patience;
        self
    }

    /// The protocol that it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How long it may take.
    pub fn time_allowed(&self) -> Duration {
        self.patience
    }

    /// Host and port of the URL.
    pub fn authority(&self) -> Result<String, CallError> {
        let uri = self.uri()?;
        let host = uri
            .host()
            .ok_or_else(|| CallError::BadCall(format!("{}: a URL needs a host", self.url)))?;
        Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80)))
    }

    /// Makes the call on a connection of its own to `address`.
    pub async fn send_to(self, address: SocketAddr) -> Result<Reply, CallError> {
        let patience = self.patience;
        let exchange = async {
            let stream = TcpStream::connect(address)
                .await
                .map_err(|error| CallError::Connect { address, error })?;
            Session::open(stream, self.protocol).await?.send(&self).await
        };
        tokio::time::timeout(patience, exchange)
            .await
            .unwrap_or(Err(CallError::Timeout(patience)))
    }

    /// Makes the call from the namespace of the caller, to the address in its URL.
    pub async fn send(self) -> Result<Reply, CallError> {
        let authority = self.authority()?;
        let unknown = |error: std::io::Error| CallError::BadCall(format!("{authority}: {error}"));
        let address = tokio::net::lookup_host(&authority).await.map_err(unknown)?.next();
        self.send_to(address.ok_or_else(|| CallError::BadCall(format!("{authority} has no address")))?)
            .await
    }

    fn uri(&self) -> Result<Uri, CallError> {
        self.url
            .parse()
            .map_err(|error| CallError::BadCall(format!("{}: {error}", self.url)))
    }

    /// The request as `protocol` wants it: origin form and `host` for HTTP/1.1, absolute form for HTTP/2.
    fn request(&self) -> Result<Request<RequestBody>, CallError> {
        let bad = |error: http::Error| CallError::BadCall(error.to_string());
        let uri = self.uri()?;
        let url_host = uri
            .authority()
            .map(|authority| authority.as_str().to_owned())
            .unwrap_or_default();
        let asked = self
            .headers
            .iter()
            .rev()
            .find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = asked.map_or(url_host, |(_, value)| value.clone());
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let target = match self.protocol {
            Protocol::Http1 => Uri::builder().path_and_query(path),
            Protocol::Http2 => Uri::builder()
                .scheme("http")
                .authority(host.as_str())
                .path_and_query(path),
        };
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(target.build().map_err(bad)?);
        if self.protocol == Protocol::Http1 {
            request = request.header(HOST, &host);
        }
        for (name, value) in self
            .headers
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
        {
            request = request.header(name, value);
        }
        let body = Full::new(self.body.clone());
        let body = match self.trailers.clone() {
            None => body.boxed(),
            Some(fields) if self.protocol == Protocol::Http1 => {
                // HTTP/1.1 sends trailers only behind chunks, and only those that it has announced.
                let names: Vec<&str> = fields.keys().map(HeaderName::as_str).collect();
                request = request
                    .header(TRAILER, names.join(", "))
                    .header(TRANSFER_ENCODING, "chunked");
                body.with_trailers(std::future::ready(Some(Ok(fields)))).boxed()
            }
            Some(fields) => body.with_trailers(std::future::ready(Some(Ok(fields)))).boxed(),
        };
        request.body(body).map_err(bad)
    }
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| anyhow::anyhow!("not the expected JSON ({error}): {}", self.text()))
    }

    /// The value of a header field, or `""`.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// Which version of the test application answered, or `""` when none did.
    pub fn app_version(&self) -> &str {
        self.header(VERSION_HEADER)
    }

    /// Which pod answered, or `""` when no application did.
    pub fn app_pod(&self) -> &str {
        self.header(POD_HEADER)
    }
}

impl Session {
    /// Opens HTTP on `stream`. The current runtime drives it until the session is dropped.
    pub async fn open(stream: TcpStream, protocol: Protocol) -> Result<Session, CallError> {
        // Without this, a small request written in two pieces waits for the peer's delayed acknowledgement.
        let _not_fatal = stream.set_nodelay(true);
        let io = TokioIo::new(stream);
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(CallError::Broken)?;
                tokio::spawn(connection.with_upgrades());
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                    .await
                    .map_err(CallError::Broken)?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Session { sender })
    }

    /// Makes a call on this connection and reads the whole reply.
    pub async fn send(&mut self, call: &Call) -> Result<Reply, CallError> {
        let start = Instant::now();
        let exchange = async {
            let (head, body) = self.start(call).await?.into_parts();
            let collected = body.collect().await.map_err(CallError::Broken)?;
            Ok(Reply {
                status: head.status.as_u16(),
                headers: head.headers,
                trailers: collected.trailers().cloned(),
                body: collected.to_bytes(),
                version: head.version,
                took: start.elapsed(),
            })
        };
        tokio::time::timeout(call.patience, exchange)
            .await
            .unwrap_or(Err(CallError::Timeout(call.patience)))
    }

    /// Makes a call and returns at the response's head, for tests that read the body piece by piece or upgrade.
    pub async fn start(&mut self, call: &Call) -> Result<Response<Incoming>, CallError> {
        let mut call = call.clone();
        match &mut self.sender {
            Sender::Http1(sender) => {
                call.protocol = Protocol::Http1;
                sender.ready().await.map_err(CallError::Broken)?;
                sender
                    .send_request(call.request()?)
                    .await
                    .map_err(CallError::Broken)
            }
            Sender::Http2(sender) => {
                call.protocol = Protocol::Http2;
                sender.ready().await.map_err(CallError::Broken)?;
                sender
                    .send_request(call.request()?)
                    .await
                    .map_err(CallError::Broken)
            }
        }
    }

    /// Whether the connection can take no more calls.
    pub fn closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

/// An error with its causes: hyper's own text leaves them out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http1_request_has_origin_form_and_the_urls_host() {
        let request = Call::get("http://reviews:8080/a?b=c")
            .header("x-a", "1")
            .request()
            .unwrap();
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()["host"], "reviews:8080");
        assert_eq!(request.headers()["x-a"], "1");
    }

    #[test]
    fn an_http2_request_carries_the_asked_host_as_authority() {
        let request = Call::get("http://10.0.0.1:8080/")
            .host("reviews.shop")
            .http2()
            .request()
            .unwrap();
        assert_eq!(request.uri(), "http://reviews.shop/");
        assert!(!request.headers().contains_key("host"));
    }

    #[test]
    fn an_asked_host_replaces_the_urls_and_is_sent_once() {
        let request = Call::get("http://10.0.0.1:8080/")
            .host("reviews")
            .request()
            .unwrap();
        assert_eq!(
            request.headers().get_all("host").iter().collect::<Vec<_>>(),
            ["reviews"]
        );
    }

    #[test]
    fn a_url_without_a_host_is_refused() {
        assert!(matches!(
            Call::get("/path").authority(),
            Err(CallError::BadCall(_))
        ));
        assert_eq!(Call::get("http://x/").authority().unwrap(), "x:80");
        assert_eq!(
            Call::get("http://[fd77::2]:81/").authority().unwrap(),
            "[fd77::2]:81"
        );
    }
}
