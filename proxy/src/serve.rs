//! HTTP servers as this proxy runs them on connections it has taken over: bounds against floods and oversized heads, and
//! the graceful end.

mod idle;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::cork::cork;
use crate::io::Io;
use crate::seldom::Seldom;
use crate::worker::Local;
use idle::Requests;
pub(crate) use idle::Watched;

/// Largest head of an HTTP/1.1 message, and largest header list of HTTP/2, in bytes.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADER_LIST: u32 = 64 << 10;
const MAX_HEADERS: usize = 200;
const MAX_STREAMS: u32 = 1000;
/// Streams that a peer may reset before they are handled (the rapid-reset flood), and errors it may provoke.
const MAX_PENDING_RESETS: usize = 100;
const MAX_ERROR_RESETS: usize = 256;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MAX_FRAME: u32 = 64 << 10;
const MAX_SEND_BUFFER: usize = 256 << 10;
/// A peer that answers no PING for `PING_TIMEOUT` is gone, whatever TCP says.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Serves HTTP/1.1 until the connection ends; after `closing`, until the request under way has its answer.
/// `head_timeout` bounds the wait for a whole head, and with it the idle time between two requests.
///
/// A connection that stays idle holds no buffers: hyper's side of it is made anew for the next request.
pub async fn http1<S, B>(
    io: Io,
    service: S,
    head_timeout: Option<Duration>,
    closing: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Failure>,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        // A client that closes its side has gone away: its request is cancelled all the way to the endpoint.
        .half_close(false)
        .auto_date_header(false);
    let mut closing = pin!(Seldom::new(closing));
    let requests = Rc::new(Requests::default());
    let mut io = TokioIo::new(Watched::new(io, &requests));
    let mut service = idle::counted(service, Rc::clone(&requests));
    loop {
        requests.begin_again();
        let mut connection = Box::new(builder.serve_connection(io, service).with_upgrades());
        let idle = {
            let mut quiet = pin!(Seldom::new(requests.quiet()));
            let serving = until_it_ends(
                Pin::new(&mut *connection),
                closing.as_mut(),
                |it| it.graceful_shutdown(),
                |_| {},
            );
            let mut serving = pin!(serving);
            poll_fn(|cx| match serving.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending => quiet.as_mut().poll(cx).map(|()| true),
            })
            .await
        };
        let parts = if idle { connection.into_parts() } else { None };
        let Some(parts) = parts else {
            return;
        };
        service = parts.service;
        let mut stream = parts.io.into_inner().into_inner().with_first(&parts.read_buf);
        // Most often it is empty, and yet keeps the whole of hyper's buffer.
        drop(parts.read_buf);
        let limit = head_timeout.map(|limit| limit.saturating_sub(idle::LOOK));
        if !idle::until_next(&mut stream, limit, closing.as_mut()).await {
            return;
        }
        io = TokioIo::new(Watched::new(stream, &requests));
    }
}

/// Serves HTTP/2 until the connection ends; after `closing`, until the streams under way have ended.
pub async fn http2<S, B>(io: Io, service: S, closing: impl Future<Output = ()>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Failure>,
{
    let (corked, cork) = cork(io);
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .enable_connect_protocol()
        .auto_date_header(false)
        .serve_connection(TokioIo::new(corked), service);
    let connection = pin!(connection);
    let closing = pin!(Seldom::new(closing));
    let release = |cx: &mut Context<'_>| cork.release(cx);
    until_it_ends(connection, closing, |it| it.graceful_shutdown(), release).await;
}

/// Drives a connection; `after` is called after each poll of it. Pinned by the caller: what is moved into a future and pinned
/// there has room in it twice.
async fn until_it_ends<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    mut closing: Pin<&mut Seldom<impl Future<Output = ()>>>,
    close: impl Fn(Pin<&mut C>),
    after: impl Fn(&mut Context<'_>),
) {
    let ended = poll_fn(|cx| {
        if closing.as_mut().poll(cx).is_ready() {
            close(connection.as_mut());
        }
        let polled = connection.as_mut().poll(cx);
        after(cx);
        polled
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "downstream connection ended");
    }
}
