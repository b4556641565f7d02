//! Where the body of a request comes from: the application, which may feed copies for mirrors with it, or such a feed. A
//! copy takes each piece when the original has taken it, never before; one that falls too far behind is ended, so that it
//! neither holds the original up nor collects more than [`MOST_BEHIND`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::KeptFrame;

/// How many bytes a copy may be behind its original, with what it takes to keep each piece.
pub const MOST_BEHIND: usize = 256 * 1024;

type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Where the body of a request comes from.
#[derive(Debug)]
pub enum Feed {
    /// There is none.
    Nothing,
    /// The application.
    Application(Incoming),
    /// The application, and copies are fed with it.
    Mirrored(Box<Mirrored>),
    /// The feed of a copy.
    Copy(Copied),
}

impl Feed {
    /// The application's body, of which each of `copies` gets every piece.
    #[must_use]
    pub fn mirrored(body: Incoming, copies: Vec<Copying>) -> Self {
        if copies.is_empty() {
            return Self::Application(body);
        }
        Self::Mirrored(Box::new(Mirrored { body, copies }))
    }
}

impl Body for Feed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Nothing => Poll::Ready(None),
            Self::Application(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Mirrored(mirrored) => mirrored.poll_frame(cx),
            Self::Copy(copied) => copied.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Application(body) => body.is_end_stream(),
            Self::Mirrored(mirrored) => mirrored.body.is_end_stream(),
            Self::Copy(copied) => copied.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Application(body) => body.size_hint(),
            Self::Mirrored(mirrored) => mirrored.body.size_hint(),
            Self::Copy(copied) => copied.size_hint,
        }
    }
}

/// The application's body on its way to an endpoint and into copies.
#[derive(Debug)]
pub struct Mirrored {
    body: Incoming,
    copies: Vec<Copying>,
}

impl Mirrored {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // Whoever reads a body of known length may stop at its last piece, and everybody at its trailers.
        let ended = match &frame {
            Some(Ok(frame)) => frame.is_trailers() || self.body.is_end_stream(),
            Some(Err(_)) => self.body.is_end_stream(),
            None => true,
        };
        self.copies.retain(|copy| copy.is_wanted());
        for copy in &self.copies {
            match &frame {
                Some(Ok(frame)) => copy.push(frame),
                Some(Err(_)) => copy.settle(State::Broken("the original broke off")),
                None => {}
            }
            if ended {
                copy.settle(State::Ended);
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

/// Tells when a copy breaks off, also while nobody asks it for a piece because its receiver takes none.
#[derive(Debug)]
pub struct Watch(Rc<RefCell<Backlog>>);

impl Watch {
    /// Ready when the copy is broken off; never when it ends as it should.
    pub fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut backlog = self.0.borrow_mut();
        match backlog.state {
            State::Broken(_) => Poll::Ready(()),
            State::Ended => Poll::Pending,
            State::Open => {
                backlog.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A new copy: the end that is fed, and the end that is sent. `size_hint` is that of the original.
#[must_use]
pub fn copy(size_hint: SizeHint) -> (Copying, Copied) {
    let backlog = Rc::<RefCell<Backlog>>::default();
    let copying = Copying(Rc::clone(&backlog));
    (copying, Copied { backlog, size_hint })
}

/// What the original has taken and the copy has not.
#[derive(Debug, Default)]
struct Backlog {
    frames: VecDeque<KeptFrame>,
    bytes: usize,
    state: State,
    /// Nobody will ask for more.
    dropped: bool,
    /// Waits for a piece or the end.
    waker: Option<Waker>,
    /// Waits for a copy that breaks off.
    watcher: Option<Waker>,
}

/// What a piece takes: many small ones take more than what is in them.
fn cost(frame: &KeptFrame) -> usize {
    frame.len() + size_of::<KeptFrame>()
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Open,
    Ended,
    Broken(&'static str),
}

/// The end of a copy that is fed. Dropped before the body has ended, it ends the copy too.
#[derive(Debug)]
pub struct Copying(Rc<RefCell<Backlog>>);

impl Copying {
    fn is_wanted(&self) -> bool {
        !self.0.borrow().dropped
    }

    fn push(&self, frame: &Frame<Bytes>) {
        let Some(frame) = KeptFrame::of(frame) else {
            return;
        };
        let mut backlog = self.0.borrow_mut();
        if !matches!(backlog.state, State::Open) {
            return;
        }
        backlog.bytes += cost(&frame);
        backlog.frames.push_back(frame);
        if backlog.bytes > MOST_BEHIND {
            drop(backlog);
            self.settle(State::Broken("the copy fell too far behind the original"));
        } else if let Some(waker) = backlog.waker.take() {
            drop(backlog);
            waker.wake();
        }
    }

    /// Ends the copy, unless it has ended.
    fn settle(&self, state: State) {
        let mut backlog = self.0.borrow_mut();
        if !matches!(backlog.state, State::Open) {
            return;
        }
        backlog.state = state;
        if let State::Broken(_) = state {
            backlog.frames = VecDeque::new();
        }
        let wakers = [backlog.waker.take(), backlog.watcher.take()];
        drop(backlog);
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.settle(State::Broken("the original did not need the whole body"));
    }
}

/// The end of a copy that is sent.
#[derive(Debug)]
pub struct Copied {
    backlog: Rc<RefCell<Backlog>>,
    size_hint: SizeHint,
}

impl Copied {
    /// What tells when it breaks off.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch(Rc::clone(&self.backlog))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let backlog = &mut *self.backlog.borrow_mut();
        if let Some(frame) = backlog.frames.pop_front() {
            backlog.bytes -= cost(&frame);
            return Poll::Ready(Some(Ok(frame.into_frame())));
        }
        match backlog.state {
            State::Ended => Poll::Ready(None),
            State::Broken(why) => Poll::Ready(Some(Err(why.into()))),
            State::Open => {
                backlog.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let backlog = self.backlog.borrow();
        matches!(backlog.state, State::Ended) && backlog.frames.is_empty()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.backlog.borrow_mut().dropped = true;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn poll(copied: &mut Copied) -> Poll<Option<Result<Bytes, String>>> {
        let mut cx = Context::from_waker(Waker::noop());
        copied.poll_frame(&mut cx).map(|frame| {
            frame.map(|frame| match frame {
                Ok(frame) => Ok(frame.into_data().unwrap()),
                Err(error) => Err(error.to_string()),
            })
        })
    }

    fn piece(length: usize) -> Frame<Bytes> {
        Frame::data(vec![b'x'; length].into())
    }

    #[test]
    fn a_copy_gets_each_piece_and_the_end() {
        let (copying, mut copied) = copy(SizeHint::new());
        assert!(poll(&mut copied).is_pending());
        copying.push(&piece(3));
        copying.push(&piece(2));
        assert_eq!(poll(&mut copied), Poll::Ready(Some(Ok("xxx".into()))));
        copying.settle(State::Ended);
        assert!(!copied.is_end_stream());
        drop(copying);
        assert_eq!(poll(&mut copied), Poll::Ready(Some(Ok("xx".into()))));
        assert!(copied.is_end_stream());
        assert_eq!(poll(&mut copied), Poll::Ready(None));
    }

    #[test]
    fn a_copy_that_falls_behind_ends_and_holds_nothing() {
        let (copying, mut copied) = copy(SizeHint::new());
        let quarter = MOST_BEHIND / 4 - size_of::<KeptFrame>();
        for _ in 0..4 {
            copying.push(&piece(quarter));
        }
        assert!(matches!(poll(&mut copied), Poll::Ready(Some(Ok(_)))));
        copying.push(&piece(quarter));
        copying.push(&piece(1));
        let Poll::Ready(Some(Err(why))) = poll(&mut copied) else {
            panic!("it is too far behind");
        };
        assert!(why.contains("too far behind"), "{why}");
        copying.push(&piece(1));
        assert!(copied.backlog.borrow().frames.is_empty());
    }

    #[test]
    fn small_pieces_do_not_take_more_than_large_ones() {
        let (copying, mut copied) = copy(SizeHint::new());
        for _ in 0..=MOST_BEHIND / size_of::<KeptFrame>() {
            copying.push(&piece(1));
        }
        assert!(matches!(poll(&mut copied), Poll::Ready(Some(Err(_)))));
    }

    #[tokio::test]
    async fn trailers_end_a_copy_whoever_drops_the_original_after_them() {
        use hyper_util::rt::TokioIo;
        use tokio::io::AsyncWriteExt as _;
        let (mut near, far) = tokio::io::duplex(1024);
        let sent = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntrailer: sum\r\n\r\n\
            3\r\nabc\r\n0\r\nsum: 6\r\n\r\n";
        near.write_all(sent).await.unwrap();
        let (copying, mut copied) = copy(SizeHint::new());
        let copying = RefCell::new(Some(copying));
        let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
            let mut body = Feed::mirrored(request.into_body(), copying.take().into_iter().collect());
            async move {
                // As hyper does when it sends a body.
                while !http_body_util::BodyExt::frame(&mut body)
                    .await
                    .unwrap()?
                    .is_trailers()
                {}
                drop(body);
                Err::<http::Response<String>, BodyError>("this is all".into())
            }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
        assert!(connection.await.is_err());
        assert_eq!(poll(&mut copied), Poll::Ready(Some(Ok("abc".into()))));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(copied.poll_frame(&mut cx), Poll::Ready(Some(Ok(frame))) if frame.is_trailers()));
        assert_eq!(poll(&mut copied), Poll::Ready(None));
    }

    #[test]
    fn an_original_that_is_dropped_ends_its_copies() {
        let (copying, mut copied) = copy(SizeHint::new());
        drop(copying);
        assert!(matches!(poll(&mut copied), Poll::Ready(Some(Err(_)))));
        let (copying, copied) = copy(SizeHint::new());
        assert!(copying.is_wanted());
        drop(copied);
        assert!(!copying.is_wanted());
    }
}
