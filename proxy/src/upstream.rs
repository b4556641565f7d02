//! The way to an endpoint: a pooled or a new connection, and one request on it. One `Upstream` per worker; nothing in it
//! is shared with other workers, so nothing locks. Called by `outbound` (step 7 and 8) and `inbound`; it picks no endpoint.

pub mod announce;
pub mod body;
pub mod connect;
pub mod feed;
pub mod pool;
pub mod queue;
pub mod response;
pub mod send;
pub mod through;
pub mod way;

use std::rc::Rc;

use api::MeshProtocol;

use crate::identity::Identity;
use crate::originate::{Offer, Origins};
use way::Outside;

/// One worker's way to endpoints.
#[derive(Debug)]
pub struct Upstream {
    pool: pool::Pool,
    ways: way::Ways,
    met: way::Met,
    identity: Identity,
    socket_mark: Option<u32>,
}

impl Upstream {
    /// A worker's upstream side, with an empty pool.
    #[must_use]
    pub fn new(identity: Identity, origins: Origins, socket_mark: Option<u32>) -> Rc<Self> {
        Rc::new(Self {
            pool: pool::Pool::default(),
            ways: way::Ways::default(),
            met: way::Met::new(origins),
            identity,
            socket_mark,
        })
    }

    /// Closes pooled connections that were idle for too long, or whose endpoint is gone. Called once a second.
    pub fn sweep(&self) {
        self.pool.sweep();
        self.ways.keep(|| self.pool.ways());
        self.met.sweep();
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
    /// As a server outside the mesh wants it.
    Outside(Outside),
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
            Self::Outside(outside) => matches!(outside.offer, Offer::Http2 | Offer::Either),
        }
    }

    /// The mesh protocol, when it is one.
    #[must_use]
    pub fn mesh(self) -> Option<MeshProtocol> {
        match self {
            Self::Http1 | Self::Http2 | Self::Outside(_) => None,
            Self::Mesh(protocol) => Some(protocol),
        }
    }

    /// Whether it is TLS with a server outside the mesh, to which requests are of scheme `https`.
    #[must_use]
    pub fn is_https(self) -> bool {
        match self {
            Self::Outside(outside) => outside.secure,
            Self::Http1 | Self::Http2 | Self::Mesh(_) => false,
        }
    }
}
