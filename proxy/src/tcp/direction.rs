//! One direction of a relay: a state machine that reads from one stream and writes to the other.
//!
//! Polled by [`super::relay`] until it is done; its states are drawn there. It keeps no time and ends no stream but
//! the one it writes to.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::{Io, with_scratch};

#[derive(Default)]
pub(super) struct Direction {
    pub(super) state: State,
    /// Read, and not taken by the other side yet.
    waiting: BytesMut,
    unflushed: bool,
    pub(super) carried: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Copying,
    Closing,
    Done,
}

/// Which half of a direction failed.
pub(super) enum Failure {
    Read(io::Error),
    Write(io::Error),
}

impl Direction {
    /// Whether bytes were read that the other side did not take.
    pub(super) fn is_stuck(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Goes on until it has to wait or is done.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Io,
        to: &mut Io,
        counter: &AtomicU64,
    ) -> Poll<Result<(), Failure>> {
        loop {
            match self.state {
                State::Copying => {
                    ready!(self.write_waiting(context, to, counter)).map_err(Failure::Write)?;
                    ready!(self.copy_once(context, from, to, counter))?;
                }
                State::Closing => {
                    match ready!(Pin::new(&mut *to).poll_shutdown(context)) {
                        // The peer is gone altogether, which the other direction finds out by itself.
                        Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                            return Poll::Ready(Err(Failure::Write(error)));
                        }
                        Ok(()) | Err(_) => self.state = State::Done,
                    }
                }
                State::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    fn write_waiting(
        &mut self,
        context: &mut Context<'_>,
        to: &mut Io,
        counter: &AtomicU64,
    ) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let taken = ready!(write(context, to, &self.waiting))?;
            self.waiting.advance(taken);
            self.count(taken, counter);
        }
        if self.waiting.capacity() > 0 {
            self.waiting = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what was read as far as the other side takes it. Nothing may be waiting.
    fn copy_once(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Io,
        to: &mut Io,
        counter: &AtomicU64,
    ) -> Poll<Result<(), Failure>> {
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(from).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Read(error))),
                // Nothing more for now: what the other side holds back in its own buffers must go out.
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(to).poll_flush(context)).map_err(Failure::Write)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
            let mut bytes = buffer.filled();
            if bytes.is_empty() {
                self.state = State::Closing;
            }
            while !bytes.is_empty() {
                match write(context, to, bytes) {
                    Poll::Ready(Ok(taken)) => {
                        bytes = &bytes[taken..];
                        self.count(taken, counter);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Write(error))),
                    Poll::Pending => {
                        self.waiting = BytesMut::from(bytes);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    fn count(&mut self, taken: usize, counter: &AtomicU64) {
        self.unflushed = true;
        self.carried += taken as u64;
        counter.fetch_add(taken as u64, Ordering::Relaxed);
    }
}

/// Never `Ok(0)`: a writer that takes nothing without waiting would spin.
fn write(context: &mut Context<'_>, to: &mut Io, bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(context, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        taken => Poll::Ready(Ok(taken.min(bytes.len()))),
    }
}
