//! What is measured: each scenario is a list of cases, and a case says what is sent, and through how many proxies.

mod cases;
mod memory;
mod run;
mod soak;

use clap::ValueEnum;

use crate::Options;
use crate::cell::Row;
use crate::peer::Peer;
use crate::place::Place;
pub(crate) use soak::soak;

/// A scenario.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Scenario {
    Http1,
    Http2,
    Http1Mtls,
    Http2Mtls,
    GrpcStream,
    BodyDown,
    BodyUp,
    Sizes,
    Tcp,
    TcpBulk,
    TcpMtls,
    TcpMtlsBulk,
    Churn,
    ChurnMtls,
    Latency,
    Features,
    Routes,
    Endpoints,
    Idle,
    Destinations,
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
            Scenario::GrpcStream => "grpc-stream",
            Scenario::BodyDown => "body-down",
            Scenario::BodyUp => "body-up",
            Scenario::Sizes => "sizes",
            Scenario::Tcp => "tcp",
            Scenario::TcpBulk => "tcp-bulk",
            Scenario::TcpMtls => "tcp-mtls",
            Scenario::TcpMtlsBulk => "tcp-mtls-bulk",
            Scenario::Churn => "churn",
            Scenario::ChurnMtls => "churn-mtls",
            Scenario::Latency => "latency",
            Scenario::Features => "features",
            Scenario::Routes => "routes",
            Scenario::Endpoints => "endpoints",
            Scenario::Idle => "idle",
            Scenario::Destinations => "destinations",
        }
    }

    /// One line about it.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Scenario::Http1 => "HTTP/1.1, plaintext, one proxy, 64 connections",
            Scenario::Http2 => "HTTP/2, plaintext, one proxy, 10 connections with 10 streams",
            Scenario::Http1Mtls => "HTTP/1.1 application, two proxies, mutual TLS with HTTP/1.1 between them",
            Scenario::Http2Mtls => "HTTP/1.1 application, two proxies, mutual TLS with HTTP/2 between them",
            Scenario::GrpcStream => "messages of 100 bytes there and back on 64 gRPC streams",
            Scenario::BodyDown => "answers of 1 MiB",
            Scenario::BodyUp => "requests of 1 MiB",
            Scenario::Sizes => "answers of several sizes, HTTP/1.1, plaintext, one proxy",
            Scenario::Tcp => "opaque TCP, one proxy: 128 bytes there and back on 64 connections",
            Scenario::TcpBulk => "opaque TCP, one proxy: bytes without end on 4 connections",
            Scenario::TcpMtls => "opaque TCP, two proxies with mutual TLS: 128 bytes there and back",
            Scenario::TcpMtlsBulk => "opaque TCP, two proxies with mutual TLS: bytes without end",
            Scenario::Churn => "a new connection for each HTTP/1.1 request, plaintext, one proxy",
            Scenario::ChurnMtls => "new connections, each with mutual TLS of its own between two proxies",
            Scenario::Latency => "500 requests a second through two proxies with mutual TLS",
            Scenario::Features => "what each feature of ours costs, HTTP/1.1, plaintext, one proxy",
            Scenario::Routes => "a route of many rules of which the last matches",
            Scenario::Endpoints => "a service with many endpoints",
            Scenario::Idle => "memory: an idle proxy, and each of 1,000 idle connections",
            Scenario::Destinations => "memory: 10 used destinations in a mesh of 10 and of 1,000",
        }
    }

    /// What is counted.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Scenario::GrpcStream => "message",
            Scenario::Tcp | Scenario::TcpMtls => "ping",
            Scenario::TcpBulk | Scenario::TcpMtlsBulk => "MiB",
            Scenario::Churn | Scenario::ChurnMtls | Scenario::Idle => "connection",
            Scenario::Destinations => "unused destination",
            _ => "request",
        }
    }

    pub(crate) async fn run(
        self,
        place: &Place,
        peers: &[Peer],
        options: &Options,
    ) -> anyhow::Result<Vec<Row>> {
        match self {
            Scenario::Idle => memory::idle(place, peers, options).await,
            Scenario::Destinations => memory::destinations(place, peers, options).await,
            // Compared with each other, and so measured in turns.
            Scenario::Features => {
                let cases = cases::of(self, place).await?;
                run::cases(self, cases, place, peers, options).await
            }
            _ => {
                let mut rows = Vec::new();
                for case in cases::of(self, place).await? {
                    rows.extend(run::cases(self, vec![case], place, peers, options).await?);
                }
                Ok(rows)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_asked_for_by_the_name_that_is_printed() {
        for scenario in Scenario::all() {
            assert_eq!(Scenario::from_str(scenario.name(), false), Ok(scenario));
        }
    }
}
