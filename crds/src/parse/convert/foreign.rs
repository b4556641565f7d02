//! Which of Istio's kinds are ours, and what to say of the others. Versions that say the same are alike.

use crate::Kind;

/// What an object's kind means here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One of ours, by another name of its group.
    Ours(Kind),
    /// One of Istio's, or of a group that Istio reads, which we do not have.
    Absent(String),
    /// Nothing of Istio's.
    Other,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";

/// What a kind of an API version means here.
pub(super) fn meaning(api_version: &str, kind: &str) -> Meaning {
    let Some((group, version)) = api_version.split_once('/') else {
        return Meaning::Other;
    };
    let known = match (group, kind) {
        (NETWORKING, "VirtualService") => Some(Kind::VirtualService),
        (NETWORKING, "DestinationRule") => Some(Kind::DestinationRule),
        (SECURITY, "PeerAuthentication") => Some(Kind::PeerAuthentication),
        _ => None,
    };
    if let Some(kind) = known {
        return match version {
            "v1" | "v1beta1" | "v1alpha3" => Meaning::Ours(kind),
            _ => Meaning::Absent(format!(
                "the version {version} is not known; write v1, and convert again"
            )),
        };
    }
    let istio = group.ends_with(".istio.io");
    if !istio && group != "gateway.networking.k8s.io" {
        return Meaning::Other;
    }
    Meaning::Absent(format!(
        "stays as it is, and nothing here reads it: {}",
        instead(kind)
    ))
}

/// What to do without a kind.
fn instead(kind: &str) -> &'static str {
    match kind {
        "AuthorizationPolicy" => {
            "what it denies will be ALLOWED; PeerAuthentication lets in the mesh alone, and a NetworkPolicy \
             or the application must do the rest"
        }
        "RequestAuthentication" => "tokens are not verified; the application must do it",
        "ServiceEntry" => "hosts outside the cluster are reached as they are, without rules and policies",
        "Gateway" => "there is no proxy at the edge yet; keep the one that you have in front",
        "Sidecar" => "proxies are told what they use, so none is needed for that; hosts cannot be hidden",
        "EnvoyFilter" => "there is no Envoy; look for a field that does the same",
        "WasmPlugin" => "proxies load no code; do it in the application",
        "WorkloadEntry" | "WorkloadGroup" => {
            "workloads outside the cluster join with tokens, see the guide on identity"
        }
        "ProxyConfig" | "IstioOperator" => "settings are values of the chart, and annotations of pods",
        "Telemetry" => "metrics and access logs are settings of the proxy",
        "HTTPRoute" | "GRPCRoute" | "TCPRoute" | "TLSRoute" => "write a VirtualService instead",
        _ => "see the guide on resources for what is there",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_ours_by_group_and_version_and_others_have_a_remedy() {
        for version in ["v1", "v1beta1", "v1alpha3"] {
            for (group, kind) in [
                (NETWORKING, Kind::VirtualService),
                (NETWORKING, Kind::DestinationRule),
                (SECURITY, Kind::PeerAuthentication),
            ] {
                assert_eq!(
                    meaning(&format!("{group}/{version}"), kind.name()),
                    Meaning::Ours(kind)
                );
            }
        }
        for (api_version, kind, says) in [
            ("networking.istio.io/v9", "VirtualService", "v9"),
            ("security.istio.io/v1", "AuthorizationPolicy", "ALLOWED"),
            ("networking.istio.io/v1", "ServiceEntry", "outside the cluster"),
            ("networking.istio.io/v1alpha3", "EnvoyFilter", "no Envoy"),
            ("telemetry.istio.io/v1", "Telemetry", "settings"),
            ("gateway.networking.k8s.io/v1", "HTTPRoute", "VirtualService"),
            // The kind is another group's.
            ("security.istio.io/v1", "VirtualService", "guide"),
        ] {
            let Meaning::Absent(message) = meaning(api_version, kind) else {
                panic!("{api_version} {kind}")
            };
            assert!(message.contains(says), "{kind}: {message}");
        }
        for (api_version, kind) in [
            ("apps/v1", "Deployment"),
            ("v1", "Service"),
            (crate::API_VERSION, "VirtualService"),
            ("", ""),
        ] {
            assert_eq!(meaning(api_version, kind), Meaning::Other, "{api_version} {kind}");
        }
    }
}
