//! `VirtualService`: rules for connections, and the destinations all rules share.

use super::{
    Report,
    rule::unreachable,
    shape::{gateways, host, label, port, weights},
};
use crate::{
    path::At,
    virtual_service::{
        Destination, TcpRoute, TlsRoute,
        l4::{TcpMatch, TlsMatch},
        route::{PortSelector, RouteDestination},
    },
};

const PORT_ONLY: &str = "remove it; connections are told apart by port";
const SNI_AND_PORT: &str = "remove it; TLS is told apart by sniHosts and port";

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
        host(report, names.index(n), name);
    }
    if let Some(number) = number {
        port(report, at.field("port"), *number);
    }
    gateways(report, at.field("gateways"), gates);
    for (field, set) in [
        ("destinationSubnets", !destination_subnets.is_empty()),
        ("sourceLabels", !source_labels.is_empty()),
        ("sourceNamespace", source_namespace.is_some()),
    ] {
        report.unsupported_if(set, at.field(field), SNI_AND_PORT);
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
        // The other conditions are refused, so the port is all there is.
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
    for (field, set) in [
        ("destinationSubnets", !destination_subnets.is_empty()),
        ("sourceSubnet", source_subnet.is_some()),
        ("sourceLabels", !source_labels.is_empty()),
        ("sourceNamespace", source_namespace.is_some()),
    ] {
        report.unsupported_if(set, at.field(field), PORT_ONLY);
    }
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
