//! One rule for connections of a VirtualService, in the contract's types.

use api::{HeaderChanges, Invalid, Split, TcpRule, proto};
use crds::virtual_service::l4::{TcpMatch, TcpRoute, TlsMatch, TlsRoute};
use crds::virtual_service::route::RouteDestination;

use super::{Filter, Share, TcpTemplate, check_sum, only_gateways, refuse, target, weight};

/// The rule for TLS by server name.
pub(super) fn tls_template(rule: &TlsRoute, namespace: &str) -> Result<TcpTemplate, Invalid> {
    let TlsRoute { r#match, route } = rule;
    let mut blocks = Vec::with_capacity(r#match.len());
    for (i, block) in r#match.iter().enumerate() {
        blocks.push(tls_condition(block).map_err(|e| e.under(&format!("match[{i}]")))?);
    }
    // A rule by server name without a server name would take every connection.
    if blocks.is_empty() {
        return Err(Invalid::new("match", "is empty: a tls rule needs sniHosts"));
    }
    let shares = shares(route, namespace)?;
    Ok(TcpTemplate { blocks, shares })
}

/// The rule for other connections.
pub(super) fn tcp_template(rule: &TcpRoute, namespace: &str) -> Result<TcpTemplate, Invalid> {
    let TcpRoute { r#match, route } = rule;
    let mut blocks = Vec::with_capacity(r#match.len());
    for (i, block) in r#match.iter().enumerate() {
        blocks.push(tcp_condition(block).map_err(|e| e.under(&format!("match[{i}]")))?);
    }
    let shares = shares(route, namespace)?;
    Ok(TcpTemplate { blocks, shares })
}

fn tls_condition(block: &TlsMatch) -> Result<(Filter, Vec<String>), Invalid> {
    let TlsMatch {
        sni_hosts,
        destination_subnets,
        port,
        source_labels,
        gateways,
        source_namespace,
    } = block;
    refuse(&[
        ("destinationSubnets", !destination_subnets.is_empty()),
        ("gateways", only_gateways(gateways)),
    ])?;
    if sni_hosts.is_empty() {
        return Err(Invalid::new(
            "sniHosts",
            "is empty: a tls rule needs server names",
        ));
    }
    let sni: Vec<_> = sni_hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    check_names(&sni)?;
    Ok((Filter::new(*port, source_namespace.as_ref(), source_labels)?, sni))
}

fn tcp_condition(block: &TcpMatch) -> Result<(Filter, Vec<String>), Invalid> {
    let TcpMatch {
        destination_subnets,
        port,
        source_subnet,
        source_labels,
        gateways,
        source_namespace,
    } = block;
    refuse(&[
        ("destinationSubnets", !destination_subnets.is_empty()),
        ("sourceSubnet", source_subnet.is_some()),
        ("gateways", only_gateways(gateways)),
    ])?;
    Ok((
        Filter::new(*port, source_namespace.as_ref(), source_labels)?,
        Vec::new(),
    ))
}

/// The proxy's own conversion says what a server name is.
fn check_names(sni: &[String]) -> Result<(), Invalid> {
    let rule = TcpRule {
        name: String::new(),
        source: None,
        sni: sni.to_vec(),
        split: Split::to("checked"),
    };
    match TcpRule::try_from(proto::TcpRule::from(rule)) {
        Ok(_) => Ok(()),
        Err(Invalid { field, problem }) => Err(Invalid::new(field.replacen("sni", "sniHosts", 1), problem)),
    }
}

fn shares(route: &[RouteDestination], namespace: &str) -> Result<Vec<Share>, Invalid> {
    let share = |(i, to): (usize, &RouteDestination)| {
        let RouteDestination {
            destination,
            weight: given,
        } = to;
        let under = |e: Invalid| e.under(&format!("route[{i}]"));
        Ok(Share {
            target: target(destination, namespace).map_err(|e| under(e.under("destination")))?,
            weight: weight(*given, route.len()).map_err(under)?,
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
        })
    };
    let shares = route
        .iter()
        .enumerate()
        .map(share)
        .collect::<Result<Vec<_>, Invalid>>()?;
    check_sum(&shares)?;
    Ok(shares)
}
