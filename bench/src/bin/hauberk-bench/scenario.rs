//! What is sent, and through how many proxies.

mod requests;

use clap::ValueEnum;

use crate::Options;
use crate::cell::Cell;
use crate::peer::{Peer, Protocol, Shape};
use crate::place::Place;

/// A scenario.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Scenario {
    Http1,
    Http2,
    Http1Mtls,
    Http2Mtls,
}

impl Scenario {
    pub(crate) fn all() -> impl Iterator<Item = Scenario> {
        Scenario::value_variants().iter().copied()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Http1 => "http1",
            Scenario::Http2 => "http2",
            Scenario::Http1Mtls => "http1-mtls",
            Scenario::Http2Mtls => "http2-mtls",
        }
    }

    /// One line about it.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Scenario::Http1 => "HTTP/1.1, plaintext, one proxy, 64 connections",
            Scenario::Http2 => "HTTP/2, plaintext, one proxy, 10 connections with 10 streams",
            Scenario::Http1Mtls => "HTTP/1.1 application, two proxies, mutual TLS with HTTP/1.1 between them",
            Scenario::Http2Mtls => "HTTP/1.1 application, two proxies, mutual TLS with HTTP/2 between them",
        }
    }

    pub(crate) async fn run(
        self,
        place: &Place,
        peers: &[Peer],
        options: &Options,
    ) -> anyhow::Result<Vec<Cell>> {
        let shape = |app, wire| Shape { app, wire };
        let shape = match self {
            Scenario::Http1 => shape(Protocol::Http1, None),
            Scenario::Http2 => shape(Protocol::Http2, None),
            Scenario::Http1Mtls => shape(Protocol::Http1, Some(Protocol::Http1)),
            Scenario::Http2Mtls => shape(Protocol::Http1, Some(Protocol::Http2)),
        };
        requests::run(self, shape, place, peers, options).await
    }
}
