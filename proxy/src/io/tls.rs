//! A byte stream inside TLS, for [`super::Io`].
//!
//! Made by [`crate::identity`], and by probes of an application that wants TLS. rustls does the protocol; here is only how
//! bytes get in and out, through the buffers that the thread lends: several records go with one call of the system, they
//! are decrypted where they were read, and a connection that waits holds no buffer. Nothing here decides whom to trust.

mod step;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use rustls::{
    ClientConfig, CommonState, Error, ServerConfig, client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::step::{Job, Out};
use super::{Io, SCRATCH, with_scratch};

/// The largest record on the wire.
const RECORD: usize = 16 * 1024 + 256 + 5;
/// The most that is encrypted at once.
const PLAIN: usize = 64 * 1024;

/// A connection inside TLS whose handshake is done.
pub struct TlsStream {
    side: Side,
    io: Io,
    /// What begins a record that has not arrived as a whole.
    received: Vec<u8>,
    /// Decrypted, and not read by anybody yet.
    plain: BytesMut,
    /// Encrypted, and not taken by the stream underneath yet.
    unsent: BytesMut,
    /// The peer said that no more comes.
    peer_closed: bool,
    /// We said so.
    closed: bool,
    /// Either side broke the protocol: there is nothing more to read or to write.
    failed: bool,
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl TlsStream {
    /// Begins TLS as the client, offering `alpn`.
    ///
    /// # Errors
    /// When the handshake fails, or the stream underneath does.
    pub async fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn: Vec<Vec<u8>>,
        io: Io,
    ) -> io::Result<Box<Self>> {
        let connection = UnbufferedClientConnection::new_with_alpn(config, name, alpn).map_err(invalid)?;
        Self::handshake(Side::Client(connection), io).await
    }

    /// Takes part in TLS as the server.
    ///
    /// # Errors
    /// When the handshake fails, or the stream underneath does.
    pub async fn accept(config: Arc<ServerConfig>, io: Io) -> io::Result<Box<Self>> {
        let connection = UnbufferedServerConnection::new(config).map_err(invalid)?;
        Self::handshake(Side::Server(connection), io).await
    }

    /// What was agreed with the peer, and its certificates.
    #[must_use]
    pub fn connection(&self) -> &CommonState {
        match &self.side {
            Side::Client(connection) => connection,
            Side::Server(connection) => connection,
        }
    }

    /// The stream underneath.
    pub(super) fn inner(&self) -> &Io {
        &self.io
    }

    async fn handshake(side: Side, io: Io) -> io::Result<Box<Self>> {
        let mut this = Box::new(Self {
            side,
            io,
            received: Vec::new(),
            plain: BytesMut::new(),
            unsent: BytesMut::new(),
            peer_closed: false,
            closed: false,
            failed: false,
        });
        std::future::poll_fn(|context| this.poll_handshake(context)).await?;
        Ok(this)
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush_own(context))?;
            let mut received = std::mem::take(&mut self.received);
            let done = self.advance(context, &mut received, None, Job::Read);
            let (used, _) = done?;
            received.drain(..used);
            self.received = received;
            if !self.unsent.is_empty() {
                continue;
            }
            if !self.connection().is_handshaking() {
                self.received.shrink_to_fit();
                return Poll::Ready(Ok(()));
            }
            let more = with_scratch(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
                self.received.extend_from_slice(buffer.filled());
                Poll::Ready(Ok::<_, io::Error>(buffer.filled().len()))
            });
            if ready!(more)? == 0 || self.peer_closed {
                let ended = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
                return Poll::Ready(Err(ended));
            }
            if self.received.len() > SCRATCH {
                return Poll::Ready(Err(too_long()));
            }
        }
    }

    /// Lets rustls deal with what was received, then do the job: how much of what was received is done with, and how much
    /// was written by the job.
    fn advance(
        &mut self,
        context: &mut Context<'_>,
        received: &mut [u8],
        reader: Option<&mut ReadBuf<'_>>,
        mut job: Job<'_>,
    ) -> io::Result<(usize, usize)> {
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut out = Out {
            reader,
            plain: &mut self.plain,
            unsent: &mut self.unsent,
            peer_closed: &mut self.peer_closed,
        };
        let mut used = 0;
        let failed = loop {
            let bytes = &mut received[used..];
            let step = match &mut self.side {
                Side::Client(connection) => out.take(connection.process_tls_records(bytes), &mut job),
                Side::Server(connection) => out.take(connection.process_tls_records(bytes), &mut job),
            };
            match step {
                Ok((discard, None)) => used += discard,
                Ok((discard, Some(written))) => return Ok((used + discard, written)),
                Err(error) => break error,
            }
        };
        // What arrived is of no use any more, and rustls must not be shown it again.
        self.failed = true;
        if !self.closed {
            let bytes = &mut received[used..];
            match &mut self.side {
                Side::Client(connection) => out.alert(connection.process_tls_records(bytes)),
                Side::Server(connection) => out.alert(connection.process_tls_records(bytes)),
            }
        }
        // The peer is told why, if that can be done at once.
        let _ = self.poll_flush_own(context);
        Err(invalid(failed))
    }

    /// Sends what is encrypted already.
    fn poll_flush_own(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(context, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.unsent.advance(taken),
            }
        }
        if self.unsent.capacity() > 0 {
            self.unsent = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads until there is something for `reader`, or its end.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        scratch: &mut [u8],
        reader: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = reader.filled().len();
        loop {
            let kept = self.received.len();
            scratch[..kept].copy_from_slice(&self.received);
            // As much as the reader takes, with what TLS adds; but a whole record, or reading would begin anew for its rest.
            let room = (reader.remaining() + reader.remaining() / 64).max(RECORD);
            let end = (kept + room).min(scratch.len());
            let mut buffer = ReadBuf::new(&mut scratch[kept..end]);
            ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
            let end = kept + buffer.filled().len();
            if end == kept {
                let cut = "peer closed connection without sending TLS close_notify";
                return Poll::Ready(Err(if kept == scratch.len() {
                    too_long()
                } else {
                    io::Error::new(io::ErrorKind::UnexpectedEof, cut)
                }));
            }
            let (used, _) = self.advance(context, &mut scratch[..end], Some(&mut *reader), Job::Read)?;
            self.received.clear();
            self.received.extend_from_slice(&scratch[used..end]);
            if used == end {
                self.received = Vec::new();
            }
            // Answers to the peer's own housekeeping; if they cannot go now they go with the next write.
            let _ = self.poll_flush_own(context)?;
            if reader.filled().len() > before || self.peer_closed {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Encrypts `bytes` into `scratch`: how long that is.
    fn encrypt(&mut self, context: &mut Context<'_>, bytes: &[u8], scratch: &mut [u8]) -> io::Result<usize> {
        let mut received = std::mem::take(&mut self.received);
        let job = Job::Encrypt(bytes, scratch);
        let (used, written) = self.advance(context, &mut received, None, job)?;
        received.drain(..used);
        self.received = received;
        match written {
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            written => Ok(written),
        }
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a TLS message is too long")
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.plain.is_empty() {
            let now = self.plain.len().min(buffer.remaining());
            buffer.put_slice(&self.plain[..now]);
            self.plain.advance(now);
            if self.plain.is_empty() {
                self.plain = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        if self.peer_closed || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        with_scratch(|scratch| self.poll_receive(context, scratch, buffer))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let bytes = &bytes[..bytes.len().min(PLAIN)];
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.poll_flush_own(context))?;
        with_scratch(|scratch| {
            let length = this.encrypt(context, bytes, scratch)?;
            // rustls may have had something of its own to say first.
            let mut rest = &scratch[..length];
            let mut own = this.poll_flush_own(context)?;
            while own.is_ready() && !rest.is_empty() {
                match Pin::new(&mut this.io).poll_write(context, rest)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(taken) => rest = &rest[taken..],
                    Poll::Pending => own = Poll::Pending,
                }
            }
            this.unsent.extend_from_slice(rest);
            Poll::Ready(Ok(bytes.len()))
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        match (filled.next(), filled.next()) {
            (None, _) => self.poll_write(context, &[]),
            (Some(only), None) => self.poll_write(context, only),
            // Together, so that a head and its body are one record.
            (Some(_), Some(_)) => with_scratch(|scratch| {
                let mut length = 0;
                for slice in slices {
                    let now = slice.len().min(PLAIN - length);
                    scratch[length..length + now].copy_from_slice(&slice[..now]);
                    length += now;
                }
                self.as_mut().poll_write(context, &scratch[..length])
            }),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush_own(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.closed && !this.failed {
            let mut notice = [0; 256];
            let mut received = std::mem::take(&mut this.received);
            let (used, length) = this.advance(context, &mut received, None, Job::Close(&mut notice))?;
            received.drain(..used);
            this.received = received;
            this.unsent.extend_from_slice(&notice[..length]);
            this.closed = true;
        }
        ready!(this.poll_flush_own(context))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(context)) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = match self.side {
            Side::Client(_) => "client",
            Side::Server(_) => "server",
        };
        f.debug_struct("TlsStream")
            .field("side", &side)
            .field("io", &self.io)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
