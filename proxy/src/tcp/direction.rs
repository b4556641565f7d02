//! One direction of a relay: a state machine that reads from one stream and writes to the other.
//!
//! Polled by [`super::relay`] until it is done; its states are drawn there. It keeps no time and ends no stream but
//! the one it writes to.
//!
//! Small pieces are cheapest when they are read and written again. Once pieces are large they go in few calls: through
//! a [`Pipe`] where both sides are bare sockets, and in a large buffer where one of them is not.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{pace::Pace, pipe::Pipe};
use crate::io::{Io, with_scratch};

#[derive(Default)]
pub(super) struct Direction {
    pub(super) state: State,
    /// Read, and not taken by the other side yet.
    waiting: BytesMut,
    /// The same within the kernel; there is one only while there are bytes.
    pipe: Option<Pipe>,
    pub(super) pace: Pace,
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
        !self.waiting.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
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
                    match (from.bare(), to.bare()) {
                        // What is in the pipe goes first, whatever the pace has become.
                        (Some(from), Some(to)) if self.pipe.is_some() || self.pace.may_splice() => {
                            ready!(self.splice_once(context, from, to, counter))?;
                        }
                        _ => ready!(self.copy_once(context, from, to, counter))?,
                    }
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

    /// Lets the kernel carry once what has arrived. Nothing may be waiting outside of the pipe.
    fn splice_once(
        &mut self,
        context: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        counter: &AtomicU64,
    ) -> Poll<Result<(), Failure>> {
        let mut pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => {
                ready!(from.poll_read_ready(context)).map_err(Failure::Read)?;
                // Out of file descriptors, say: then bytes are copied.
                let Ok(pipe) = Pipe::borrow() else {
                    self.pace.never_splice();
                    return Poll::Ready(Ok(()));
                };
                pipe
            }
        };
        if pipe.held() == 0 {
            match ready!(pipe.fill(context, from)).map_err(Failure::Read)? {
                0 => self.state = State::Closing,
                taken => self.pace.saw(taken),
            }
        }
        while pipe.held() > 0 {
            match pipe.drain(context, to) {
                Poll::Ready(Ok(taken)) => self.count(taken, counter),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Write(error))),
                Poll::Pending => {
                    self.pipe = Some(pipe);
                    return Poll::Pending;
                }
            }
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
            let mut buffer = ReadBuf::new(&mut scratch[..self.pace.most()]);
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
            self.pace.saw(bytes.len());
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
