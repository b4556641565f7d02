//! The way to an endpoint: a pooled or a new connection, and one request on it. One `Upstream` per worker; nothing in it
//! is shared with other workers, so nothing locks. Called by `outbound` (step 7 and 8) and `inbound`; it picks no endpoint.

pub mod body;
pub mod connect;
pub mod feed;
pub mod pool;
pub mod queue;
pub mod response;
pub mod send;

use std::rc::Rc;

use api::MeshProtocol;

use crate::identity::Identity;

/// One worker's way to endpoints.
#[derive(Debug)]
pub struct Upstream {
    pool: pool::Pool,
    identity: Identity,
    socket_mark: Option<u32>,
}

impl Upstream {
    /// A worker's upstream side, with an empty pool.
    #[must_use]
    pub fn new(identity: Identity, socket_mark: Option<u32>) -> Rc<Self> {
        Rc::new(Self {
            pool: pool::Pool::default(),
            identity,
            socket_mark,
        })
    }

    /// Closes pooled connections that were idle for too long, or whose endpoint is gone. Called once a second.
    pub fn sweep(&self) {
        self.pool.sweep();
    }
}

/// How requests are carried to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// HTTP/1.1 in the clear.
    Http1,
    /// HTTP/2 in the clear.
    Http2,
    /// Inside mutual TLS.
    Mesh(MeshProtocol),
}

impl Wire {
    /// Whether many requests share one connection.
    #[must_use]
    pub fn is_http2(self) -> bool {
        match self {
            Self::Http1 => false,
            Self::Http2 => true,
            Self::Mesh(MeshProtocol::Http2 | MeshProtocol::Http1OverHttp2) => true,
            Self::Mesh(MeshProtocol::Http1 | MeshProtocol::Tcp) => false,
        }
    }

    /// The mesh protocol, when it is one.
    #[must_use]
    pub fn mesh(self) -> Option<MeshProtocol> {
        match self {
            Self::Http1 | Self::Http2 => None,
            Self::Mesh(protocol) => Some(protocol),
        }
    }
}
