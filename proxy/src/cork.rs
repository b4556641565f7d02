//! One write for all that a connection says in one turn.
//!
//! An HTTP/2 connection flushes after every larger DATA frame: ten responses that are ready at once become ten writes,
//! and under TLS ten records. Here its bytes are held until the task that drives it has been polled, and go out together.
//! Nothing waits for a timer or for another task, so what is held is never late; and no more than [`HOLD`] bytes are.
//!
//! The connection writes to a [`Corked`]; whatever drives it calls [`Cork::release`] after each poll, as the tasks do that
//! [`Cork`] runs as an executor. When the peer takes no more, the connection is told so at its next write or flush, as without all this.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::Io;

/// As much as one record of TLS holds. What is larger gains nothing by waiting and is passed on at once.
const HOLD: usize = 16 * 1024;

/// A stream that holds back what is written.
#[derive(Debug)]
pub(crate) struct Corked(Rc<RefCell<Held>>);

/// Lets out what a [`Corked`] holds.
#[derive(Debug, Clone)]
pub(crate) struct Cork(Rc<RefCell<Held>>);

#[derive(Debug)]
struct Held {
    io: Io,
    waiting: BytesMut,
    /// The peer did not take all of it: the connection goes on when it does.
    blocked: bool,
    /// Set when letting out failed: the connection hears of it when it reads or writes again.
    failed: Option<io::ErrorKind>,
}

/// Holds back what is written to `io`.
pub(crate) fn cork(io: Io) -> (Corked, Cork) {
    let held = Held {
        io,
        waiting: BytesMut::new(),
        blocked: false,
        failed: None,
    };
    let held = Rc::new(RefCell::new(held));
    (Corked(Rc::clone(&held)), Cork(held))
}

impl Cork {
    /// Writes what is held, as far as the peer takes it. The task of `cx` is the one that has just written.
    pub(crate) fn release(&self, cx: &mut Context<'_>) {
        let mut held = self.0.borrow_mut();
        if held.waiting.is_empty() || held.blocked || held.failed.is_some() {
            return;
        }
        match held.poll_out(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => {
                held.failed = Some(error.kind());
                cx.waker().wake_by_ref();
            }
            Poll::Pending => held.blocked = true,
        }
    }
}

/// For the tasks of an HTTP/2 client, one of which is the connection's own.
impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Cork {
    fn execute(&self, future: F) {
        let (cork, mut future) = (self.clone(), Box::pin(future));
        tokio::task::spawn_local(poll_fn(move |cx| {
            let polled = future.as_mut().poll(cx);
            cork.release(cx);
            polled
        }));
    }
}

impl Held {
    fn failure(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Writes and flushes all that is held.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.capacity() == 0 {
            return Poll::Ready(Ok(()));
        }
        while !self.waiting.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.waiting.advance(taken),
            }
        }
        self.blocked = false;
        give_back(std::mem::take(&mut self.waiting));
        Poll::Ready(Ok(()))
    }

    fn hold<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>) {
        if self.waiting.capacity() == 0 {
            self.waiting = take_buffer();
        }
        slices.for_each(|slice| self.waiting.extend_from_slice(slice));
    }
}

thread_local! {
    /// Connections take turns, and nearly all have let out everything at the end of theirs: one buffer does for many.
    static SPARE: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

fn take_buffer() -> BytesMut {
    SPARE.take().unwrap_or_else(|| BytesMut::with_capacity(HOLD))
}

fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    // What was written lies before the buffer's start now; this brings it back without an allocation.
    if buffer.try_reclaim(HOLD) {
        SPARE.set(Some(buffer));
    }
}

impl AsyncRead for Corked {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut held = self.0.borrow_mut();
        held.failure()?;
        Pin::new(&mut held.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut held = self.0.borrow_mut();
        held.failure()?;
        let length = slices.iter().map(|slice| slice.len()).sum();
        if held.blocked || held.waiting.len() + length > HOLD {
            ready!(held.poll_write_out(cx))?;
        }
        if length > HOLD {
            return Pin::new(&mut held.io).poll_write_vectored(cx, slices);
        }
        held.hold(slices.iter().map(|slice| &**slice));
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is held stays held: [`Cork::release`] is about to let it out.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.0.borrow_mut();
        held.failure()?;
        if held.waiting.is_empty() || held.blocked {
            return held.poll_out(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.0.borrow_mut();
        held.failure()?;
        ready!(held.poll_write_out(cx))?;
        Pin::new(&mut held.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn corked(room: usize) -> (Corked, Cork, DuplexStream) {
        let (ours, peer) = duplex(room);
        let (stream, cork) = cork(Io::from(ours));
        (stream, cork, peer)
    }

    async fn release(cork: &Cork) {
        poll_fn(|cx| {
            cork.release(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn arrived(peer: &mut DuplexStream) -> usize {
        let mut bytes = vec![0; 4 * HOLD];
        let mut buffer = ReadBuf::new(&mut bytes);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = Pin::new(peer).poll_read(&mut cx, &mut buffer);
        buffer.filled().len()
    }

    #[tokio::test]
    async fn what_is_written_and_flushed_goes_out_together_after_the_turn() {
        let (mut stream, cork, mut peer) = corked(4 * HOLD);
        for piece in ["one ", "two ", "three"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        assert_eq!(arrived(&mut peer), 0);
        release(&cork).await;
        assert_eq!(arrived(&mut peer), "one two three".len());
        assert_eq!(
            cork.0.borrow().waiting.capacity(),
            0,
            "at rest it holds no buffer"
        );
    }

    #[tokio::test]
    async fn what_is_large_is_passed_on_at_once_and_in_order() {
        let (mut stream, _cork, mut peer) = corked(4 * HOLD);
        stream.write_all(b"first").await.unwrap();
        stream.write_all(&[b'x'; HOLD + 1]).await.unwrap();
        let mut read = vec![0; 5 + HOLD + 1];
        peer.read_exact(&mut read).await.unwrap();
        assert!(read.starts_with(b"firstx"));
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_stops_the_writer() {
        let (mut stream, cork, mut peer) = corked(1);
        let write = |stream: &mut Corked, n: usize| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            Pin::new(stream).poll_write(&mut cx, &vec![0; n])
        };
        assert!(write(&mut stream, HOLD).is_ready());
        release(&cork).await;
        assert!(write(&mut stream, 1).is_pending());
        assert!(cork.0.borrow().waiting.len() <= HOLD);
        // What another task of the connection does in between takes nobody's place.
        release(&cork).await;
        // The connection is woken when the peer takes more.
        let mut read = vec![0; HOLD];
        let (flushed, _) = tokio::join!(stream.flush(), peer.read_exact(&mut read));
        flushed.unwrap();
        assert!(cork.0.borrow().waiting.is_empty());
        assert!(write(&mut stream, 1).is_ready());
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_told_to_the_connection() {
        let (mut stream, cork, peer) = corked(HOLD);
        stream.write_all(b"for nobody").await.unwrap();
        drop(peer);
        release(&cork).await;
        let read = stream.read_u8().await.unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::BrokenPipe);
        assert!(stream.flush().await.is_err() && stream.shutdown().await.is_err());
    }

    #[tokio::test]
    async fn shutting_down_lets_everything_out_first() {
        let (mut stream, _cork, mut peer) = corked(HOLD);
        stream.write_all(b"the last words").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut read = String::new();
        peer.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "the last words");
    }

    proptest! {
        #[test]
        fn bytes_arrive_as_they_were_written(
            pieces in prop::collection::vec((0usize..3 * HOLD, any::<bool>()), 1..12),
            room in 1usize..2 * HOLD,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut stream, cork, mut peer) = corked(room);
                let mut sent = Vec::new();
                let write = async {
                    for (length, turn_ends) in pieces {
                        let piece: Vec<u8> = (0..length).map(|i| (i + sent.len()) as u8).collect();
                        stream.write_all(&piece).await.unwrap();
                        sent.extend(piece);
                        if turn_ends {
                            release(&cork).await;
                        }
                    }
                    stream.shutdown().await.unwrap();
                };
                let mut read = Vec::new();
                tokio::join!(write, async { peer.read_to_end(&mut read).await.unwrap() });
                assert!(read == sent);
            });
        }
    }
}
