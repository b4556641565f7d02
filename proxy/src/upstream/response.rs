//! The body of a response on its way to the application: an endpoint's, which gives its connection back to the pool when
//! it has ended, or one of the proxy's own.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::pool::Lease;

type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Body of a response.
#[derive(Debug)]
pub enum ResponseBody {
    /// Made by this proxy.
    Own(Option<Bytes>),
    /// An endpoint's.
    Endpoint(Box<EndpointBody>),
}

/// Body of an endpoint's response, with what must be held until it has ended.
#[derive(Debug)]
pub struct EndpointBody {
    body: Incoming,
    lease: Option<Lease>,
    announced: Option<Duration>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Counts the request as under way, for the balancer and the limits.
    _held: Held,
}

/// Guards that are dropped when a response has ended.
#[derive(Debug, Default)]
pub struct Held {
    /// The balancer's pick.
    pub pick: Option<crate::balancer::Pick>,
    /// The cluster's count of requests.
    pub request: Option<crate::limits::Permit>,
}

impl EndpointBody {
    /// Wraps the body of a response.
    #[must_use]
    pub fn new(
        body: Incoming,
        lease: Lease,
        announced: Option<Duration>,
        deadline: Option<tokio::time::Instant>,
        held: Held,
    ) -> Self {
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let mut this = Self {
            body,
            lease: Some(lease),
            announced,
            deadline,
            _held: held,
        };
        if this.body.is_end_stream() {
            this.ended();
        }
        this
    }

    fn ended(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back(self.announced);
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.lease = None;
            return Poll::Ready(Some(Err(
                "the response did not end within the timeout of its route".into(),
            )));
        }
        let frame = loop {
            let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
            // One without data says nothing; and a peer may end a connection on which many of these arrive.
            match &frame {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                _ => break frame,
            }
        };
        match &frame {
            None => self.ended(),
            Some(Ok(_)) if self.body.is_end_stream() => self.ended(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame.map(|f| f.map_err(Into::into)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Own(bytes) => {
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
            Self::Endpoint(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Endpoint(body) => body.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Endpoint(body) => body.body.size_hint(),
        }
    }
}
