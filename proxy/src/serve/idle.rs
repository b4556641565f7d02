//! What tells that an HTTP/1.1 connection is between two requests, so that hyper's side of it, with its buffers of
//! 8 KiB, can be dropped and made anew when the next request comes.
//!
//! hyper does not say where it is. It is between two requests for certain when every request has had its whole response,
//! the last one had no body of its own that may still be arriving, and nothing that hyper wrote waits for the peer.
//! Where one of these cannot be told, the connection simply keeps its buffers.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::io::{Filled, Io};
use crate::seldom::Seldom;

/// A connection on which nothing happened from one look to the next is idle: after once to twice this time.
pub(super) const LOOK: Duration = Duration::from_secs(2);

#[cfg(test)]
thread_local! {
    /// How often connections of this thread went without hyper.
    static RESTS: Cell<u32> = const { Cell::new(0) };
}

/// As much as hyper would read at first.
const READ: usize = 8 << 10;

/// What is known of the requests on a connection.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Requests that have begun and responses that have ended since hyper's side was made.
    events: Cell<u64>,
    /// Those whose response has not ended.
    open: Cell<u32>,
    /// Whether the last of them came with a body.
    body: Cell<bool>,
    /// Whether the peer takes no more of what was written.
    blocked: Arc<AtomicBool>,
}

impl Requests {
    /// Ready when hyper can be dropped. Never before it has served a request: a head that arrives bit by bit is to keep
    /// its one time limit.
    pub(super) async fn quiet(&self) {
        let mut seen = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.events.get();
            if now > 0 && now == seen && self.is_between() {
                return;
            }
            seen = now;
        }
    }

    fn happened(&self) {
        self.events.set(self.events.get() + 1);
    }

    fn is_between(&self) -> bool {
        self.open.get() == 0 && !self.body.get() && !self.blocked.load(Ordering::Relaxed)
    }

    /// For a new side of hyper's.
    pub(super) fn begin_again(&self) {
        self.events.set(0);
    }
}

/// A service that keeps [`Requests`].
pub(super) fn counted<S, B>(
    service: S,
    requests: Rc<Requests>,
) -> impl Service<Request<Incoming>, Response = Response<Open<B>>, Error = Infallible>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<super::Failure>,
{
    service_fn(move |request: Request<Incoming>| {
        requests.happened();
        requests.open.set(requests.open.get() + 1);
        requests.body.set(!request.body().is_end_stream());
        let open = OpenRequest(Rc::clone(&requests));
        let answer = service.call(request);
        async move {
            let response = answer.await?;
            Ok(response.map(|body| Open { _open: open, body }))
        }
    })
}

/// A request without its whole response.
#[derive(Debug)]
struct OpenRequest(Rc<Requests>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.happened();
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct Open<B> {
    _open: OpenRequest,
    body: B,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Open<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Waits without hyper until the next request begins to arrive, with what came of it read ahead; `false` when the
/// connection has ended instead, because the peer or `closing` said so or `limit` has passed.
pub(super) async fn until_next(
    io: &mut Io,
    limit: Option<Duration>,
    mut closing: Pin<&mut Seldom<impl Future<Output = ()>>>,
) -> bool {
    #[cfg(test)]
    RESTS.set(RESTS.get() + 1);
    let begun = {
        let mut filled = pin!(io.fill(READ));
        let mut late = pin!(late(limit));
        poll_fn(|cx| {
            if let Poll::Ready(filled) = filled.as_mut().poll(cx) {
                return Poll::Ready(matches!(filled, Ok(Filled::More | Filled::Full)));
            }
            let over = closing.as_mut().poll(cx).is_ready() || late.as_mut().poll(cx).is_ready();
            if over { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    };
    if !begun {
        // Fails only on a connection that is dead already.
        let _ = io.shutdown().await;
    }
    begun
}

async fn late(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// A stream that tells [`Requests`] when the peer takes no more.
#[derive(Debug)]
pub(crate) struct Watched {
    io: Io,
    blocked: Arc<AtomicBool>,
}

impl Watched {
    pub(super) fn new(io: Io, requests: &Requests) -> Self {
        let blocked = Arc::clone(&requests.blocked);
        Self { io, blocked }
    }

    pub(crate) fn into_inner(self) -> Io {
        self.io
    }

    fn wrote<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let blocked = polled.is_pending();
        if blocked != self.blocked.load(Ordering::Relaxed) {
            self.blocked.store(blocked, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS may have taken bytes that the peer has not.
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.wrote(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
