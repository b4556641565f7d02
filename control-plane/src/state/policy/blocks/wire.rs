//! What connections begin with: `proxyProtocol`.

use api::ProxyProtocol;
use crds::destination_rule as crd;

pub(super) fn version(block: crd::ProxyProtocol) -> ProxyProtocol {
    let crd::ProxyProtocol { version } = block;
    match version.unwrap_or_default() {
        crd::ProxyProtocolVersion::V1 => ProxyProtocol::V1,
        crd::ProxyProtocolVersion::V2 => ProxyProtocol::V2,
    }
}
