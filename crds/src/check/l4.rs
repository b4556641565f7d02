//! `VirtualService`: rules for connections, and the destinations all rules share.

use std::collections::BTreeMap;

use super::{
    Report,
    rule::unreachable,
    shape::{dns_problem, gateways, host, label, labels, port, weights},
};
use crate::{
    path::At,
    virtual_service::{
        Destination, TcpRoute, TlsRoute,
        l4::{TcpMatch, TlsMatch},
        route::{PortSelector, RouteDestination},
    },
};

const SUBNETS: &str =
    "remove it; a host has its rules at each of its addresses, so tell hosts apart by spec.hosts";
const SOURCE_SUBNET: &str = "remove it; tell clients apart by sourceLabels or sourceNamespace";

pub(super) fn destination(report: &mut Report, at: At<'_>, destination: &Destination) {
    let Destination {
        host: name,
        subset,
        port: number,
    } = destination;
    host(report, at.field("host"), name);
    if let Some(subset) = subset {
        label(report, at.field("subset"), subset);
    }
    if let Some(PortSelector { number }) = number {
        port(report, at.field("port").field("number"), *number);
    }
}

pub(super) fn tls(report: &mut Report, at: At<'_>, rules: &[TlsRoute]) {
    for (n, TlsRoute { r#match, route }) in rules.iter().enumerate() {
        let at = at.index(n);
        let at_match = at.field("match");
        if r#match.is_empty() {
            report.error(at_match, "is required; TLS rules are told apart by sniHosts");
        }
        for (n, block) in r#match.iter().enumerate() {
            tls_match(report, at_match.index(n), block);
        }
        destinations(report, at.field("route"), route);
    }
}

fn tls_match(report: &mut Report, at: At<'_>, block: &TlsMatch) {
    let TlsMatch {
        sni_hosts,
        destination_subnets,
        port: number,
        source_labels,
        gateways: gates,
        source_namespace,
    } = block;
    let names = at.field("sniHosts");
    if sni_hosts.is_empty() {
        report.error(names, "is required; name the hosts the client asks for");
    }
    for (n, name) in sni_hosts.iter().enumerate() {
        server_name(report, names.index(n), name);
    }
    if let Some(number) = number {
        port(report, at.field("port"), *number);
    }
    gateways(report, at.field("gateways"), gates);
    report.unsupported_if(
        !destination_subnets.is_empty(),
        at.field("destinationSubnets"),
        SUBNETS,
    );
    clients(report, at, source_labels, source_namespace.as_deref());
}

/// The name of a server, or `*.` and the end of its name.
fn server_name(report: &mut Report, at: At<'_>, name: &str) {
    match name.strip_prefix("*.") {
        Some(suffix) => {
            if let Some(problem) = dns_problem(suffix) {
                report.error(at, format!("behind `*.` {problem}"));
            }
        }
        None if name.contains('*') => {
            report.error(
                at,
                "has a `*` in a place where it says nothing; write `*.` and the end of the names",
            );
        }
        None => host(report, at, name),
    }
}

fn clients(
    report: &mut Report,
    at: At<'_>,
    source_labels: &BTreeMap<String, String>,
    namespace: Option<&str>,
) {
    labels(report, at.field("sourceLabels"), source_labels);
    if let Some(namespace) = namespace {
        label(report, at.field("sourceNamespace"), namespace);
    }
}

pub(super) fn tcp(report: &mut Report, at: At<'_>, rules: &[TcpRoute]) {
    let mut catch_all = None;
    for (n, TcpRoute { r#match, route }) in rules.iter().enumerate() {
        let at = at.index(n);
        let at_match = at.field("match");
        for (n, block) in r#match.iter().enumerate() {
            tcp_match(report, at_match.index(n), block);
        }
        destinations(report, at.field("route"), route);
        if r#match.is_empty() || r#match.iter().any(|block| *block == TcpMatch::default()) {
            catch_all = catch_all.or(Some(n));
        }
    }
    unreachable(report, at, catch_all, rules.len());
}

fn tcp_match(report: &mut Report, at: At<'_>, block: &TcpMatch) {
    let TcpMatch {
        destination_subnets,
        port: number,
        source_subnet,
        source_labels,
        gateways: gates,
        source_namespace,
    } = block;
    if let Some(number) = number {
        port(report, at.field("port"), *number);
    }
    gateways(report, at.field("gateways"), gates);
    report.unsupported_if(
        !destination_subnets.is_empty(),
        at.field("destinationSubnets"),
        SUBNETS,
    );
    report.unsupported_if(source_subnet.is_some(), at.field("sourceSubnet"), SOURCE_SUBNET);
    clients(report, at, source_labels, source_namespace.as_deref());
}

fn destinations(report: &mut Report, at: At<'_>, route: &[RouteDestination]) {
    if route.is_empty() {
        report.error(at, "is required; name at least one destination");
    }
    for (
        n,
        RouteDestination {
            destination: to,
            weight: _,
        },
    ) in route.iter().enumerate()
    {
        destination(report, at.index(n).field("destination"), to);
    }
    let shares: Vec<_> = route.iter().map(|part| part.weight).collect();
    weights(report, at, &shares);
}
