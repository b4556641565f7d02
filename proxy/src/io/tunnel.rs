//! The near end of a tunnel whose bytes are bodies: a stream in memory that also says how it ended, which a pipe alone does
//! not. `upstream` makes one and carries what is in it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Whether the ends of a tunnel came too early.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    near: AtomicBool,
    far: AtomicBool,
}

impl Cut {
    /// Whoever has the near end broke it off.
    pub(crate) fn is_near(&self) -> bool {
        self.near.load(Ordering::Acquire)
    }

    /// The far end broke off: to be said before the pipe is closed.
    pub(crate) fn far(&self) {
        self.far.store(true, Ordering::Release);
    }
}

/// The near end of a tunnel.
#[derive(Debug)]
pub(crate) struct Near {
    stream: DuplexStream,
    cut: Arc<Cut>,
}

impl Near {
    pub(crate) fn new(stream: DuplexStream, cut: Arc<Cut>) -> Self {
        Self { stream, cut }
    }

    /// Makes the coming drop one that breaks off.
    pub(super) fn abort(&self) {
        self.cut.near.store(true, Ordering::Release);
    }
}

impl AsyncRead for Near {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let is_end = buffer.filled().len() == before && buffer.remaining() > 0;
        if is_end && self.cut.far.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Near {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
