//! `PeerAuthentication`. All of it works.

use super::{Report, shape::labels};
use crate::{
    path::At,
    peer_authentication::{Mtls, PeerAuthenticationSpec},
    selector::WorkloadSelector,
};

pub(super) fn spec(report: &mut Report, at: At<'_>, spec: &PeerAuthenticationSpec) {
    let PeerAuthenticationSpec {
        selector,
        mtls: _,
        port_level_mtls,
    } = spec;
    let mut selects_pods = false;
    if let Some(WorkloadSelector { match_labels }) = selector {
        labels(report, at.field("selector").field("matchLabels"), match_labels);
        selects_pods = !match_labels.is_empty();
    }
    let ports = at.field("portLevelMtls");
    if !port_level_mtls.is_empty() && !selects_pods {
        report.error(
            ports,
            "needs a selector with matchLabels; ports are those of the pods it selects",
        );
    }
    for (port, Mtls { mode }) in port_level_mtls {
        // Written one way only, so that two keys are never one port.
        let is_port = port
            .parse()
            .is_ok_and(|number: u16| number > 0 && number.to_string() == *port);
        if !is_port {
            report.error(ports.field(port), "is not a port; use 1 to 65535");
        }
        if mode.is_none() {
            report.error(
                ports.field(port).field("mode"),
                "is required; use DISABLE, PERMISSIVE or STRICT",
            );
        }
    }
}
