//! The proxies that are measured, and what each is asked to do.

use clap::ValueEnum;

/// A proxy, or none.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub(crate) enum Peer {
    /// No proxy: the client dials the application.
    Direct,
    /// Ours.
    Hauberk,
    /// The smallest sensible proxy on the same libraries.
    Floor,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Direct => "direct",
            Peer::Hauberk => "hauberk",
            Peer::Floor => "floor",
        }
    }
}

/// What is spoken on a leg.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Tcp,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Tcp => "tcp",
        }
    }
}

/// What the application speaks, and what stands between the proxies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shape {
    pub(crate) app: Protocol,
    /// Through two proxies, with mutual TLS and this protocol between them; through one and in plaintext when not set.
    pub(crate) wire: Option<Protocol>,
}
