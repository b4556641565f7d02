//! What connections to endpoints begin with, beside TLS.

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
}
