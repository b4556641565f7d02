//! What connections begin with: `proxyProtocol` and `tunnel`.

use std::sync::Arc;

use api::{Invalid, ProxyProtocol, Tunnel, TunnelMethod};
use crds::destination_rule as crd;

pub(super) fn version(block: crd::ProxyProtocol) -> ProxyProtocol {
    let crd::ProxyProtocol { version } = block;
    match version.unwrap_or_default() {
        crd::ProxyProtocolVersion::V1 => ProxyProtocol::V1,
        crd::ProxyProtocolVersion::V2 => ProxyProtocol::V2,
    }
}

pub(super) fn through(block: &crd::Tunnel) -> Result<Arc<Tunnel>, Invalid> {
    let crd::Tunnel {
        protocol,
        target_host,
        target_port,
    } = block;
    let method = match protocol.as_deref() {
        None | Some("CONNECT") => TunnelMethod::Connect,
        Some("POST") => TunnelMethod::Post,
        Some(_) => return Err(Invalid::new("protocol", "is neither CONNECT nor POST")),
    };
    let port = u16::try_from(*target_port).map_err(|_| {
        Invalid::new(
            "targetPort",
            format!("{target_port} is not a port: use 1 to 65535"),
        )
    })?;
    Ok(Arc::new(Tunnel {
        method,
        host: target_host.clone(),
        port,
    }))
}
