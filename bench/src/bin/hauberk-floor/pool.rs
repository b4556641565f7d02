//! Connections to the upstream that are used again: HTTP/1.1 one request at a time, HTTP/2 one for all.

use std::cell::RefCell;
use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::Protocol;
use crate::forward::Local;
use crate::proxy::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::tls::{Io, Tls};

/// Where to connect, and whether with TLS.
#[derive(Debug)]
pub(crate) struct Dialler {
    pub(crate) to: SocketAddr,
    pub(crate) tls: Option<Tls>,
}

/// A connection that takes a request.
#[derive(Debug)]
pub(crate) enum Sender {
    Http1(http1::SendRequest<Incoming>),
    Http2(http2::SendRequest<Incoming>),
}

#[derive(Debug)]
pub(crate) struct Pool {
    dialler: Dialler,
    upstream: Protocol,
    idle: RefCell<Vec<http1::SendRequest<Incoming>>>,
    shared: RefCell<Option<http2::SendRequest<Incoming>>>,
    /// Held while the shared connection is being made, so that one is made and not one a request.
    making: tokio::sync::Semaphore,
}

impl Pool {
    pub(crate) fn new(dialler: Dialler, upstream: Protocol) -> Pool {
        Pool {
            dialler,
            upstream,
            idle: RefCell::default(),
            shared: RefCell::default(),
            making: tokio::sync::Semaphore::new(1),
        }
    }

    pub(crate) fn upstream(&self) -> Protocol {
        self.upstream
    }

    pub(crate) async fn dial(&self) -> anyhow::Result<Io> {
        let stream = TcpStream::connect(self.dialler.to).await?;
        stream.set_nodelay(true)?;
        match &self.dialler.tls {
            Some(tls) => tls.connect(stream).await,
            None => Ok(Io::Plain(stream)),
        }
    }

    /// A connection that is ready for a request.
    pub(crate) async fn take(&self) -> anyhow::Result<Sender> {
        if self.upstream == Protocol::Http2 {
            return Ok(Sender::Http2(self.shared().await?));
        }
        loop {
            let idle = self.idle.borrow_mut().pop();
            match idle {
                Some(mut sender) => {
                    if !sender.is_closed() && sender.ready().await.is_ok() {
                        return Ok(Sender::Http1(sender));
                    }
                }
                None => return Ok(Sender::Http1(self.http1().await?)),
            }
        }
    }

    pub(crate) fn give_back(&self, sender: Sender) {
        if let Sender::Http1(sender) = sender
            && !sender.is_closed()
        {
            self.idle.borrow_mut().push(sender);
        }
    }

    async fn http1(&self) -> anyhow::Result<http1::SendRequest<Incoming>> {
        let io = TokioIo::new(self.dial().await?);
        let (sender, connection) = http1::handshake(io).await?;
        spawn_local(async move {
            let _gone = connection.await;
        });
        Ok(sender)
    }

    async fn shared(&self) -> anyhow::Result<http2::SendRequest<Incoming>> {
        let usable = || self.shared.borrow().clone().filter(|sender| !sender.is_closed());
        if let Some(sender) = usable() {
            return Ok(sender);
        }
        let _turn = self.making.acquire().await?;
        if let Some(sender) = usable() {
            return Ok(sender);
        }
        let io = TokioIo::new(self.dial().await?);
        let (sender, connection) = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io)
            .await?;
        spawn_local(async move {
            let _gone = connection.await;
        });
        *self.shared.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }
}
