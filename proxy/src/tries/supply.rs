//! Where the tries of one request get it from: as it came, handed back unsent, or made again from what was kept.

use std::time::Duration;

use api::RetryCondition;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Request, Version, header, request};
use http_body::Body as _;

use super::Sending;
use crate::message::Hosts;
use crate::upstream::Wire;
use crate::upstream::body::{Gate, Keep, Replay, RequestBody, Source};
use crate::upstream::feed::Feed;
use crate::{message, retry};

/// How long a body waits for `100 Continue` (RFC 9110, 10.1.1, asks not to wait for ever).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// The request of all tries.
pub(super) struct Supply {
    next: Option<Request<RequestBody>>,
    kept: Option<Kept>,
    /// Its body waits for `100 Continue`.
    pub(super) expects_continue: bool,
    idempotent: bool,
    /// Headers of an answer that ask for another try, where the policy lets the request name such.
    retriable: Option<Box<[HeaderName]>>,
}

struct Kept {
    parts: request::Parts,
    body: KeptBody,
}

enum KeptBody {
    Empty,
    Replay(Keep),
}

impl Supply {
    /// As it came.
    pub(super) fn new(request: Request<Feed>, sending: &Sending<'_>) -> Self {
        let (mut parts, body) = request.into_parts();
        // What hyper and we ourselves left there is about the connection it came on; only what an extended CONNECT
        // (RFC 8441) asks for belongs to the request.
        let protocol = parts.extensions.remove::<hyper::ext::Protocol>();
        parts.extensions.clear();
        if let Some(protocol) = protocol {
            parts.extensions.insert(protocol);
        }
        let expects_continue = parts.version < Version::HTTP_2
            && parts
                .headers
                .get(header::EXPECT)
                .is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let idempotent = retry::is_idempotent(&parts.method);
        let received = sending.received.clone().unwrap_or_default();
        let may_repeat = sending.retry.attempts > 0 && sending.tunnel.is_none();
        let by_header = may_repeat
            && sending
                .retry
                .conditions
                .contains(&RetryCondition::RetriableHeaders);
        let retriable = by_header
            .then(|| retry::take_retriable_headers(&mut parts.headers))
            .flatten();
        let (body, keep) = if sending.tunnel.is_some() || body.is_end_stream() {
            (RequestBody::Empty, KeptBody::Empty)
        } else if may_repeat {
            let replay = Replay::new(Source::new(body, received));
            let keep = KeptBody::Replay(replay.keep());
            (RequestBody::Replay(replay), keep)
        } else {
            (
                RequestBody::Incoming(Source::new(body, received)),
                KeptBody::Empty,
            )
        };
        let kept = may_repeat.then(|| Kept {
            parts: parts.clone(),
            body: keep,
        });
        Self {
            next: Some(Request::from_parts(parts, body)),
            kept,
            expects_continue,
            idempotent,
            retriable,
        }
    }

    /// The request, formed for the wire.
    pub(super) fn take(
        &mut self,
        sending: &Sending<'_>,
        wire: Wire,
        number: u32,
        hosts: &Hosts,
    ) -> Request<RequestBody> {
        let request = self
            .next
            .take()
            .or_else(|| self.again())
            .expect("a retry was decided only with a request left");
        let (mut parts, mut body) = request.into_parts();
        let version = if wire.is_http2() {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        message::set_form(
            &mut parts,
            version,
            sending.authority.clone(),
            sending.dialled,
            hosts,
        );
        if wire.is_https() && version == Version::HTTP_2 {
            message::set_https(&mut parts);
        }
        if number > 1 {
            parts.headers.insert(api::names::ATTEMPT_HEADER, number.into());
        }
        if self.expects_continue && !matches!(body, RequestBody::Empty | RequestBody::Gated(..)) {
            body = gate(&mut parts, body);
        }
        Request::from_parts(parts, body)
    }

    /// The authority that the request came with.
    pub(super) fn authority(&self) -> Option<Authority> {
        let kept = || {
            self.kept
                .as_ref()
                .map(|kept| (&kept.parts.uri, &kept.parts.headers))
        };
        let next = self.next.as_ref().map(|next| (next.uri(), next.headers()));
        let (uri, headers) = next.or_else(kept)?;
        uri.authority().cloned().or_else(|| {
            let host = headers.get(header::HOST)?;
            Authority::try_from(host.as_bytes()).ok()
        })
    }

    fn again(&self) -> Option<Request<RequestBody>> {
        let kept = self.kept.as_ref()?;
        let body = match &kept.body {
            KeptBody::Empty => RequestBody::Empty,
            KeptBody::Replay(keep) => RequestBody::Replay(keep.replay()?),
        };
        Some(Request::from_parts(kept.parts.clone(), body))
    }

    /// It came back unsent.
    pub(super) fn put_back(&mut self, request: Option<Box<Request<RequestBody>>>) {
        self.next = request.map(|request| *request);
    }

    /// What decides whether it may be sent again.
    pub(super) fn kind(&self) -> retry::RequestKind {
        retry::RequestKind {
            idempotent: self.idempotent,
            replayable: self.can_repeat(),
        }
    }

    /// Whether an answer has one of the headers that the request named for this.
    pub(super) fn names_one_of(&self, headers: &HeaderMap) -> bool {
        let names = self.retriable.as_deref().unwrap_or_default();
        names.iter().any(|name| headers.contains_key(name))
    }

    fn can_repeat(&self) -> bool {
        self.next.is_some()
            || self.kept.as_ref().is_some_and(|kept| match &kept.body {
                KeptBody::Empty => true,
                KeptBody::Replay(keep) => keep.can_replay(),
            })
    }
}

/// Holds the body back until the endpoint has said `100 Continue`; then the application hears it, for only then is its
/// body read.
fn gate(parts: &mut request::Parts, body: RequestBody) -> RequestBody {
    let gate = Gate::new();
    let mut carrier = Request::new(());
    let opened = gate.clone();
    hyper::ext::on_informational(&mut carrier, move |response| {
        if response.status() == http::StatusCode::CONTINUE {
            opened.open();
        }
    });
    parts.extensions.extend(std::mem::take(carrier.extensions_mut()));
    let late = gate.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(CONTINUE_WAIT).await;
        late.open();
    });
    RequestBody::Gated(Box::new(body), gate)
}
