//! The body of a request on its way to an endpoint: passed on as it arrives, kept for another try where the retry policy
//! may need it, and held back until `100 Continue` where the application asked for that.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::feed::Feed;

/// A body that is kept for another try holds at most this many bytes; a longer one is sent once.
const REPLAY_LIMIT: usize = 64 * 1024;

/// Body of a request to an endpoint.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// As it arrives; sent once.
    Incoming(Source),
    /// As it arrives, and kept.
    Replay(Replay),
    /// Held back until the endpoint asks for it.
    Gated(Box<Self>, Gate),
}

/// The application's body, with a count of what was read of it.
#[derive(Debug)]
pub struct Source {
    body: Feed,
    received: Rc<Cell<u64>>,
}

impl Source {
    /// Counts in `received`.
    #[must_use]
    pub fn new(body: Feed, received: Rc<Cell<u64>>) -> Self {
        Self { body, received }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                if data.is_empty() {
                    // Says nothing; and a peer may end a connection on which many of these arrive.
                    continue;
                }
                self.received.set(self.received.get() + data.len() as u64);
            }
            return Poll::Ready(frame);
        }
    }
}

type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Incoming(source) => source.poll_frame(cx),
            Self::Replay(body) => body.poll_frame(cx),
            Self::Gated(body, gate) => {
                if gate.poll_open(cx).is_pending() {
                    return Poll::Pending;
                }
                Pin::new(body.as_mut()).poll_frame(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Incoming(source) => source.body.is_end_stream(),
            Self::Replay(body) => body.is_end_stream(),
            Self::Gated(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Incoming(source) => source.body.size_hint(),
            Self::Replay(body) => body.size_hint,
            Self::Gated(body, _) => body.size_hint(),
        }
    }
}

/// What one request's tries share of its body. Each try reads from the start; only the newest may read on.
#[derive(Debug)]
struct Kept {
    source: Source,
    frames: Vec<KeptFrame>,
    bytes: usize,
    /// Longer than [`REPLAY_LIMIT`]: `frames` is gone, and there will be no other try.
    overflowed: bool,
    ended: bool,
    newest: u32,
}

/// A frame that is kept.
#[derive(Debug, Clone)]
pub(super) enum KeptFrame {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl KeptFrame {
    /// The same as a frame, which is one of the two.
    pub(super) fn of(frame: &Frame<Bytes>) -> Option<Self> {
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Some(Self::Data(data.clone())),
            (None, Some(trailers)) => Some(Self::Trailers(trailers.clone())),
            (None, None) => None,
        }
    }

    /// Its bytes, as far as they count.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }

    pub(super) fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

/// One try's view of a kept body.
#[derive(Debug)]
pub struct Replay {
    kept: Rc<RefCell<Kept>>,
    size_hint: SizeHint,
    position: usize,
    number: u32,
}

impl Replay {
    /// Keeps a body from now on.
    #[must_use]
    pub fn new(source: Source) -> Self {
        let size_hint = source.body.size_hint();
        let kept = Kept {
            source,
            frames: Vec::new(),
            bytes: 0,
            overflowed: false,
            ended: false,
            newest: 0,
        };
        Self {
            kept: Rc::new(RefCell::new(kept)),
            size_hint,
            position: 0,
            number: 0,
        }
    }

    /// A handle from which the next try can be made while this one is with the connection.
    #[must_use]
    pub fn keep(&self) -> Keep {
        Keep {
            kept: Rc::clone(&self.kept),
            size_hint: self.size_hint,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let kept = &mut *self.kept.borrow_mut();
        if self.number != kept.newest {
            return Poll::Ready(Some(Err("a newer try reads the body".into())));
        }
        if let Some(frame) = kept.frames.get(self.position) {
            self.position += 1;
            return Poll::Ready(Some(Ok(frame.clone().into_frame())));
        }
        if kept.ended {
            return Poll::Ready(None);
        }
        let Some(frame) = std::task::ready!(kept.source.poll_frame(cx)) else {
            kept.ended = true;
            return Poll::Ready(None);
        };
        let frame = frame?;
        if !kept.overflowed {
            self.position += 1;
            keep_frame(kept, &frame);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept.borrow();
        let all_replayed = kept.overflowed || self.position == kept.frames.len();
        all_replayed && (kept.ended || kept.source.body.is_end_stream())
    }
}

fn keep_frame(kept: &mut Kept, frame: &Frame<Bytes>) {
    if let Some(frame) = KeptFrame::of(frame) {
        kept.bytes += frame.len();
        kept.frames.push(frame);
    }
    if kept.bytes > REPLAY_LIMIT {
        kept.overflowed = true;
        kept.frames = Vec::new();
    }
}

/// From which the next try's body is made.
#[derive(Debug)]
pub struct Keep {
    kept: Rc<RefCell<Kept>>,
    size_hint: SizeHint,
}

impl Keep {
    /// The body from its start; `None` when it was too long to keep.
    #[must_use]
    pub fn replay(&self) -> Option<Replay> {
        let mut kept = self.kept.borrow_mut();
        if kept.overflowed {
            return None;
        }
        kept.newest += 1;
        let number = kept.newest;
        drop(kept);
        Some(Replay {
            kept: Rc::clone(&self.kept),
            size_hint: self.size_hint,
            position: 0,
            number,
        })
    }

    /// Whether another try could have the whole body.
    #[must_use]
    pub fn can_replay(&self) -> bool {
        !self.kept.borrow().overflowed
    }
}

/// Holds a body back until the endpoint has sent `100 Continue`, a final answer, or nothing for a while.
#[derive(Debug, Clone)]
pub struct Gate(std::sync::Arc<std::sync::Mutex<GateState>>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    waker: Option<Waker>,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(std::sync::Arc::default())
    }

    /// Lets the body through.
    pub fn open(&self) {
        let waker = {
            let mut state = self.state();
            state.open = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.open {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn state(&self) -> std::sync::MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
