//! What connections to endpoints begin with, beside TLS.

use std::sync::Arc;

use super::{Cluster, TlsMode};
use crate::invalid::Invalid;
use crate::proto;

/// Version of the PROXY header that tells an endpoint who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// A tunnel through an endpoint, which is an HTTP proxy, to a server beyond it; for connections without visible requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// How it is asked for.
    pub method: TunnelMethod,
    /// Name or address of the server.
    pub host: String,
    /// Port of the server.
    pub port: u16,
}

/// How a tunnel is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TunnelMethod {
    /// The connection turns into bytes.
    Connect,
    /// The bytes are the bodies of one request and its answer.
    Post,
}

impl Cluster {
    /// Whether the ways to an endpoint go together.
    ///
    /// # Errors
    /// When a PROXY header is to be sent to endpoints that may be in the mesh.
    pub fn check_wire(&self) -> Result<(), Invalid> {
        let mesh = matches!(self.tls, TlsMode::Auto | TlsMode::Mutual);
        if self.proxy_protocol.is_some() && mesh {
            return Err(Invalid::new(
                "proxy_protocol",
                "needs tls.mode DISABLE, SIMPLE or MUTUAL: the mesh's own TLS ends at a proxy, which reads no PROXY header",
            ));
        }
        Ok(())
    }
}

pub(super) fn proxy_protocol(value: i32) -> Result<Option<ProxyProtocol>, Invalid> {
    match proto::ProxyProtocol::try_from(value) {
        Ok(proto::ProxyProtocol::Unspecified) => Ok(None),
        Ok(proto::ProxyProtocol::V1) => Ok(Some(ProxyProtocol::V1)),
        Ok(proto::ProxyProtocol::V2) => Ok(Some(ProxyProtocol::V2)),
        Err(_) => Err(Invalid::new(
            "proxy_protocol",
            "is not a version this build knows",
        )),
    }
}

pub(super) fn tunnel(pb: Option<proto::Tunnel>) -> Result<Option<Arc<Tunnel>>, Invalid> {
    let Some(pb) = pb else {
        return Ok(None);
    };
    let method = match pb.method() {
        proto::TunnelMethod::Connect => TunnelMethod::Connect,
        proto::TunnelMethod::Post => TunnelMethod::Post,
        proto::TunnelMethod::Unspecified => {
            return Err(Invalid::new("tunnel.method", "is not one that this build knows"));
        }
    };
    let proto::Tunnel {
        method: _,
        target_host: host,
        target_port,
    } = pb;
    // It becomes a line of a request.
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err(Invalid::new(
            "tunnel.target_host",
            "is neither a name nor an address",
        ));
    }
    match u16::try_from(target_port) {
        Ok(port @ 1..) => Ok(Some(Arc::new(Tunnel { method, host, port }))),
        _ => Err(Invalid::new(
            "tunnel.target_port",
            format!("{target_port} is not a port: use 1 to 65535"),
        )),
    }
}

pub(super) fn to_tunnel(tunnel: Arc<Tunnel>) -> proto::Tunnel {
    let Tunnel { method, host, port } = Arc::unwrap_or_clone(tunnel);
    let method = match method {
        TunnelMethod::Connect => proto::TunnelMethod::Connect,
        TunnelMethod::Post => proto::TunnelMethod::Post,
    };
    proto::Tunnel {
        method: method.into(),
        target_host: host,
        target_port: port.into(),
    }
}

pub(super) fn to_proxy_protocol(version: Option<ProxyProtocol>) -> proto::ProxyProtocol {
    match version {
        None => proto::ProxyProtocol::Unspecified,
        Some(ProxyProtocol::V1) => proto::ProxyProtocol::V1,
        Some(ProxyProtocol::V2) => proto::ProxyProtocol::V2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_header_is_for_endpoints_outside_the_mesh() {
        for (tls, fits) in [
            (TlsMode::Auto, false),
            (TlsMode::Mutual, false),
            (TlsMode::Disable, true),
            (TlsMode::Originate(Default::default()), true),
        ] {
            let mut cluster = Cluster::of("e");
            cluster.tls = tls;
            assert!(cluster.check_wire().is_ok());
            cluster.proxy_protocol = Some(ProxyProtocol::V2);
            assert_eq!(cluster.check_wire().is_ok(), fits, "{:?}", cluster.tls);
            assert_eq!(Cluster::try_from(proto::Cluster::from(cluster)).is_ok(), fits);
        }
        assert!(proxy_protocol(3).is_err());
    }

    #[test]
    fn a_tunnel_has_a_method_and_an_end() {
        let tunnel_to = |method: proto::TunnelMethod, host: &str, target_port| {
            tunnel(Some(proto::Tunnel {
                method: method.into(),
                target_host: host.to_owned(),
                target_port,
            }))
        };
        let connect = proto::TunnelMethod::Connect;
        for (tunnel, field) in [
            (tunnel_to(connect, "", 1), "tunnel.target_host"),
            (tunnel_to(connect, "a\r\nb", 1), "tunnel.target_host"),
            (tunnel_to(connect, "a", 0), "tunnel.target_port"),
            (tunnel_to(connect, "a", 65_536), "tunnel.target_port"),
            (
                tunnel_to(proto::TunnelMethod::Unspecified, "a", 1),
                "tunnel.method",
            ),
        ] {
            assert_eq!(tunnel.unwrap_err().field, field);
        }
        assert!(tunnel_to(connect, "2001:db8::1", 65_535).unwrap().is_some());
        assert_eq!(tunnel(None), Ok(None));
    }
}
