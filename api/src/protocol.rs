//! What a port speaks, and what two proxies speak with each other.

use crate::proto;

/// What a service port is declared to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1; HTTP/2 with prior knowledge is recognised on the same port.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC: HTTP/2, with gRPC status in metrics and retries.
    Grpc,
    /// TLS of the application, passed through by server name.
    Tls,
    /// Opaque bytes.
    Tcp,
}

impl Protocol {
    /// Whether requests can be seen in it.
    #[must_use]
    pub fn is_http(self) -> bool {
        match self {
            Self::Http1 | Self::Http2 | Self::Grpc => true,
            Self::Tls | Self::Tcp => false,
        }
    }

    pub(crate) fn from_proto(pb: proto::Protocol) -> Option<Self> {
        match pb {
            proto::Protocol::Unspecified => None,
            proto::Protocol::Http1 => Some(Self::Http1),
            proto::Protocol::Http2 => Some(Self::Http2),
            proto::Protocol::Grpc => Some(Self::Grpc),
            proto::Protocol::Tls => Some(Self::Tls),
            proto::Protocol::Tcp => Some(Self::Tcp),
        }
    }

    pub(crate) fn to_proto(this: Option<Self>) -> i32 {
        let pb = match this {
            None => proto::Protocol::Unspecified,
            Some(Self::Http1) => proto::Protocol::Http1,
            Some(Self::Http2) => proto::Protocol::Http2,
            Some(Self::Grpc) => proto::Protocol::Grpc,
            Some(Self::Tls) => proto::Protocol::Tls,
            Some(Self::Tcp) => proto::Protocol::Tcp,
        };
        pb.into()
    }
}

/// What two proxies speak inside their mutual TLS, agreed by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MeshProtocol {
    /// HTTP/1.1: upgrades, and peers that ask for it.
    Http1,
    /// HTTP/2 of an application that speaks HTTP/2.
    Http2,
    /// HTTP/2 that carries an HTTP/1.1 application.
    Http1OverHttp2,
    /// Opaque bytes.
    Tcp,
}

impl MeshProtocol {
    /// Every mesh protocol, in the order a server prefers them (a client offers one).
    pub const ALL: [Self; 4] = [Self::Http1OverHttp2, Self::Http2, Self::Http1, Self::Tcp];

    /// The ALPN name.
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"hauberk/h1",
            Self::Http2 => b"hauberk/h2",
            Self::Http1OverHttp2 => b"hauberk/h1-over-h2",
            Self::Tcp => b"hauberk/tcp",
        }
    }

    /// The mesh protocol of an ALPN name; `None` for TLS that is the application's own.
    #[must_use]
    pub fn from_alpn(alpn: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.alpn() == alpn)
    }
}
