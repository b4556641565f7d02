//! The cases of each scenario.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::Scenario;
use crate::peer::{Protocol, Shape};
use crate::place::{self, Extra, HTTP1, HTTP2, LOGGING_CLIENT, PLAIN, Place};
use crate::work::{Requests, Work};

/// Small requests and answers.
const SMALL: &str = "/32";
const MIB: usize = 1024 * 1024;

/// Whom a case is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum For {
    Proxies,
    /// The client without a proxy too.
    Everyone,
    Ours,
}

/// One kind of work on one kind of way.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) label: String,
    pub(super) shape: Shape,
    pub(super) work: Work,
    pub(super) extra: Option<Extra>,
    pub(super) for_whom: For,
}

impl Case {
    fn new(label: &str, shape: Shape, work: Work) -> Case {
        Case {
            label: label.to_owned(),
            shape,
            work,
            extra: None,
            for_whom: For::Proxies,
        }
    }

    fn ours(mut self, extra: Extra) -> Case {
        self.extra = Some(extra);
        self.for_whom = For::Ours;
        self
    }
}

pub(super) fn http1(wire: Option<Protocol>) -> Shape {
    shape(Protocol::Http1, HTTP1, wire)
}

fn http2(wire: Option<Protocol>) -> Shape {
    shape(Protocol::Http2, HTTP2, wire)
}

fn tcp(port: u16, mtls: bool) -> Shape {
    shape(Protocol::Tcp, port, mtls.then_some(Protocol::Tcp))
}

fn shape(app: Protocol, port: u16, wire: Option<Protocol>) -> Shape {
    Shape {
        app,
        port,
        wire,
        resumption: true,
    }
}

pub(super) fn small(path: &str) -> Requests {
    Requests {
        path: path.to_owned(),
        connections: 64,
        streams: 1,
        rate: None,
        body: None,
    }
}

/// Large bodies fill the ways with few connections.
fn large(path: &str, body: Option<PathBuf>) -> Work {
    Work::Requests(Requests {
        connections: 8,
        body,
        ..small(path)
    })
}

/// The cases of `scenario`; what they need is there when this returns.
pub(super) async fn of(scenario: Scenario, place: &Place) -> anyhow::Result<Vec<Case>> {
    let wire = |protocol| Some(protocol);
    let requests = |path: &str| Work::Requests(small(path));
    Ok(match scenario {
        Scenario::Http1 => vec![Case::new("", http1(None), requests(SMALL))],
        Scenario::Http2 => vec![Case::new(
            "",
            http2(None),
            Work::Requests(Requests {
                connections: 10,
                streams: 10,
                ..small(SMALL)
            }),
        )],
        Scenario::Http1Mtls => vec![Case::new("", http1(wire(Protocol::Http1)), requests(SMALL))],
        Scenario::Http2Mtls => vec![Case::new("", http1(wire(Protocol::Http2)), requests(SMALL))],
        Scenario::GrpcStream => vec![
            Case::new("plaintext", http2(None), Work::Messages),
            Case::new("mutual TLS", http2(wire(Protocol::Http2)), Work::Messages),
        ],
        Scenario::BodyDown => bodies("/1048576", None),
        Scenario::BodyUp => {
            let file = place.file("body");
            std::fs::write(&file, vec![b'u'; MIB])
                .with_context(|| format!("cannot write {}", file.display()))?;
            bodies("/1", Some(&file))
        }
        Scenario::Sizes => [
            ("200 B", 200),
            ("1 KiB", 1024),
            ("8 KiB", 8192),
            ("64 KiB", 65_536),
        ]
        .map(|(label, bytes)| Case::new(label, http1(None), requests(&format!("/{bytes}"))))
        .into(),
        Scenario::Tcp => vec![Case::new("", tcp(place::ECHO, false), Work::PingPong)],
        Scenario::TcpMtls => vec![Case::new("", tcp(place::ECHO, true), Work::PingPong)],
        Scenario::TcpBulk => vec![Case::new("", tcp(place::SOURCE, false), Work::Bulk)],
        Scenario::TcpMtlsBulk => vec![Case::new("", tcp(place::SOURCE, true), Work::Bulk)],
        Scenario::Churn => vec![Case::new("", http1(None), Work::NewConnections)],
        Scenario::ChurnMtls => [("resumed", true), ("in full", false)]
            .map(|(label, resumption)| {
                let shape = Shape {
                    resumption,
                    ..tcp(place::ECHO, true)
                };
                Case::new(label, shape, Work::NewTcpConnections)
            })
            .into(),
        Scenario::Latency => latency(),
        Scenario::Features => features(place).await?,
        Scenario::Routes => routes(place).await?,
        Scenario::Endpoints => endpoints(place).await?,
        Scenario::Idle | Scenario::Destinations => Vec::new(),
    })
}

fn bodies(path: &str, body: Option<&PathBuf>) -> Vec<Case> {
    [("plaintext", None), ("mutual TLS", Some(Protocol::Http2))]
        .map(|(label, wire)| Case::new(label, http1(wire), large(path, body.cloned())))
        .into()
}

fn latency() -> Vec<Case> {
    [
        ("HTTP/1.1 between them", Protocol::Http1),
        ("HTTP/2 between them", Protocol::Http2),
    ]
    .map(|(label, wire)| {
        let requests = Requests {
            connections: 10,
            rate: Some(50),
            ..small(SMALL)
        };
        Case {
            for_whom: For::Everyone,
            ..Case::new(label, http1(Some(wire)), Work::Requests(requests))
        }
    })
    .into()
}

/// Each feature alone, against none at all.
async fn features(place: &Place) -> anyhow::Result<Vec<Case>> {
    let rule = |name: &str, text: &str| {
        place::virtual_service(
            name,
            &format!("    - route: [{{destination: {{host: {name}}}}}]\n{text}"),
        )
    };
    let policy = |name: &str, text: &str| place::destination_rule(name, &format!("    {text}\n"));
    let header = "      headers: {request: {set: {x-a: b}, remove: [x-c]}, response: {add: {x-d: e}}}\n";
    let mut cases = Vec::new();
    for (number, (label, name, more)) in (1_u8..).zip([
        ("none", "f-none", String::new()),
        ("a route", "f-route", rule("f-route", "")),
        (
            "retries armed",
            "f-retries",
            rule(
                "f-retries",
                "      retries: {attempts: 2, retryOn: 'connect-failure,refused-stream,gateway-error'}\n",
            ),
        ),
        ("timeout", "f-timeout", rule("f-timeout", "      timeout: 10s\n")),
        ("header changes", "f-headers", rule("f-headers", header)),
        (
            "breaker",
            "f-breaker",
            policy("f-breaker", "circuitBreaker: {failureThreshold: 5}"),
        ),
        (
            "outlier detection",
            "f-outlier",
            policy("f-outlier", "outlierDetection: {consecutive5xxErrors: 5}"),
        ),
        (
            "limits",
            "f-limits",
            policy(
                "f-limits",
                "connectionPool: {tcp: {maxConnections: 1000}, http: {http2MaxRequests: 1000}}",
            ),
        ),
    ]) {
        let mut extra = place
            .add_service(name, number, &[place.plain_address()], &more)
            .await?;
        extra.shared = true;
        let work = Work::Requests(small(SMALL));
        cases.push(Case::new(label, http1(None), work).ours(extra));
    }
    let all = Case::new("all of a mesh proxy", http1(None), Work::Requests(small(SMALL)));
    let shared = Extra {
        shared: true,
        ..Extra::default()
    };
    cases.push(all.clone().ours(shared.clone()));
    let logging = Extra {
        client: Some(LOGGING_CLIENT),
        ..shared
    };
    cases.push(
        Case {
            label: "the same, access log".to_owned(),
            ..all
        }
        .ours(logging),
    );
    Ok(cases)
}

async fn routes(place: &Place) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (number, count) in (50_u8..).zip([1, 100, 10_000]) {
        let name = format!("routes-{count}");
        let mut rules = String::new();
        for rule in 1..=count {
            let _ = writeln!(
                rules,
                "    - match: [{{uri: {{exact: /rule/{rule}}}}}]\n      route: [{{destination: {{host: {name}}}}}]"
            );
        }
        // For the look whether it can be called.
        rules += &format!(
            "    - match: [{{uri: {{exact: /1}}}}]\n      route: [{{destination: {{host: {name}}}}}]\n"
        );
        let rules = if count == 10_000 {
            without_first(&rules)
        } else {
            rules
        };
        let more = place::virtual_service(&name, &rules);
        let extra = place
            .add_service(&name, number, &[place.plain_address()], &more)
            .await?;
        let work = Work::Requests(small(&format!("/rule/{count}")));
        cases.push(Case::new(&format!("{count} rules"), http1(None), work).ours(extra));
    }
    Ok(cases)
}

/// An object holds 10,000 rules at most; the one that only the first look needs takes the place of another.
fn without_first(rules: &str) -> String {
    rules.lines().skip(2).fold(String::new(), |mut kept, line| {
        kept.push_str(line);
        kept.push('\n');
        kept
    })
}

async fn endpoints(place: &Place) -> anyhow::Result<Vec<Case>> {
    // The backend answers under all addresses of a network that the clients find behind its pod.
    let backend = place.lab().pod(&format!("{PLAIN}-v1-0"));
    let via = backend.ip().to_string();
    let local = ["route", "replace", "local", "10.78.0.0/16", "dev", "lo"];
    let remote = ["route", "replace", "10.78.0.0/16", "via", &via];
    for (pod, arguments) in [
        (&backend, &local[..]),
        (&place.lab().pod(place::CLIENT), &remote[..]),
        (&place.lab().pod(LOGGING_CLIENT), &remote[..]),
    ] {
        let mut command = Command::new("ip");
        command.args(arguments);
        let process = pod.spawn("ip", command).await?;
        let status = process.wait(Duration::from_secs(10)).await?;
        ensure!(status.success(), "ip failed: {}", process.log_tail(5));
    }
    let mut cases = Vec::new();
    for (number, count) in (60_u8..).zip([1_u16, 10, 100, 1000]) {
        let name = format!("endpoints-{count}");
        let addresses: Vec<Ipv4Addr> = (1..=count)
            .map(|endpoint| {
                let [high, low] = endpoint.to_be_bytes();
                Ipv4Addr::new(10, 78, high, low)
            })
            .collect();
        let more = place::features(&name, "");
        let extra = place.add_service(&name, number, &addresses, &more).await?;
        let work = Work::Requests(small(SMALL));
        cases.push(Case::new(&format!("{count} endpoints"), http1(None), work).ours(extra));
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_makes_room_for_the_rule_of_the_first_look() {
        assert_eq!(without_first("a\nb\nc\nd\n"), "c\nd\n");
    }
}
