//! A pod, with what routing needs of it. Made from the Kubernetes object by `World::apply`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use api::names::INJECTED_LABEL;
use api::{Invalid, SpiffeId};
use k8s_openapi::api::core::v1 as core;

use super::age::Age;
use super::host::ObjectName;

/// Annotation of a pod with its share of traffic, relative to the other endpoints of its Service.
pub const WEIGHT_ANNOTATION: &str = api::names::WEIGHT_ANNOTATION;

/// The highest weight of an endpoint.
pub const MAX_WEIGHT: u32 = 1000;

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its service account.
    pub service_account: String,
    /// Addresses that are its own; none while it has no address, on the host's network, and when it has ended.
    pub addresses: Vec<IpAddr>,
    /// Whether it has a proxy.
    pub injected: bool,
    /// Its share of traffic.
    pub weight: NonZeroU32,
    /// What is wrong with its annotations.
    pub problem: Option<Invalid>,
    /// The TCP ports its containers name.
    pub named_ports: BTreeMap<String, u16>,
    pub(crate) age: Age,
}

impl Pod {
    /// Reads the Kubernetes object.
    #[must_use]
    pub fn from_object(object: &core::Pod) -> Self {
        let age = Age::of(&object.metadata);
        let (spec, status) = (object.spec.as_ref(), object.status.as_ref());
        let on_host = spec.is_some_and(|s| s.host_network == Some(true));
        let ended = status.is_some_and(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")));
        let labels = object.metadata.labels.clone().unwrap_or_default();
        let annotation = object
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(WEIGHT_ANNOTATION));
        let weight = annotation.map_or(Ok(NonZeroU32::MIN), |text| weight(text));
        Self {
            name: ObjectName {
                namespace: age.namespace.clone(),
                name: age.name.clone(),
            },
            // On the host's network nothing is redirected to a proxy, whatever the label says.
            injected: !on_host && labels.get(INJECTED_LABEL).is_some_and(|v| v == "true"),
            labels,
            service_account: spec
                .and_then(|s| s.service_account_name.clone())
                .filter(|s| !s.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            addresses: if on_host || ended {
                Vec::new()
            } else {
                addresses(status)
            },
            weight: *weight.as_ref().unwrap_or(&NonZeroU32::MIN),
            problem: weight.err(),
            named_ports: spec.map(named_ports).unwrap_or_default(),
            age,
        }
    }

    /// Its identity in a trust domain; `None` when it has no proxy, and so nothing that could prove it.
    #[must_use]
    pub fn identity(&self, trust_domain: &str) -> Option<SpiffeId> {
        self.injected
            .then(|| SpiffeId::new(trust_domain, &self.name.namespace, &self.service_account).ok())
            .flatten()
    }
}

fn addresses(status: Option<&core::PodStatus>) -> Vec<IpAddr> {
    let one = status.and_then(|s| s.pod_ip.as_ref()).into_iter();
    let all = status
        .and_then(|s| s.pod_ips.as_ref())
        .into_iter()
        .flatten()
        .map(|ip| &ip.ip);
    let mut addresses = Vec::new();
    for address in one.chain(all).filter_map(|text| text.parse::<IpAddr>().ok()) {
        if !addresses.contains(&address.to_canonical()) {
            addresses.push(address.to_canonical());
        }
    }
    addresses
}

fn named_ports(spec: &core::PodSpec) -> BTreeMap<String, u16> {
    // An init container that restarts is a sidecar, and may be the one that serves.
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mut named = BTreeMap::new();
    for port in containers.flat_map(|c| c.ports.iter().flatten()) {
        let tcp = port.protocol.as_deref().unwrap_or("TCP") == "TCP";
        if let (true, Some(name), Ok(number)) = (tcp, &port.name, u16::try_from(port.container_port)) {
            named.entry(name.clone()).or_insert(number);
        }
    }
    named
}

fn weight(text: &str) -> Result<NonZeroU32, Invalid> {
    text.parse::<NonZeroU32>()
        .ok()
        .filter(|w| w.get() <= MAX_WEIGHT)
        .ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Invalid::new(
                format!("metadata.annotations[{WEIGHT_ANNOTATION:?}]"),
                format!("{shown:?} is not a weight: use 1 to {MAX_WEIGHT}; until then it counts as 1"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Pod {
        Pod::from_object(&serde_saphyr::from_str(yaml).unwrap())
    }

    #[test]
    fn an_injected_pod_has_the_identity_of_its_service_account() {
        let pod = read(
            "
            metadata: {name: p, namespace: shop, labels: {hauberk.dev/injected: 'true'}}
            spec:
              serviceAccountName: web
              containers: [{name: a, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]
            status: {podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::5'}]}
            ",
        );
        let identity = pod.identity("cluster.local").unwrap();
        assert_eq!(identity.as_str(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(pod.addresses.len(), 2);
        assert_eq!(pod.named_ports, BTreeMap::from([("http".to_owned(), 8080)]));
    }

    #[test]
    fn a_pod_on_the_host_network_or_ended_has_no_address_of_its_own() {
        let host = read(
            "{metadata: {name: p, labels: {hauberk.dev/injected: 'true'}}, spec: {containers: [], hostNetwork: true}, status: {podIP: 10.1.0.1}}",
        );
        assert!(host.addresses.is_empty() && host.identity("cluster.local").is_none());
        let ended = read("{metadata: {name: p}, status: {podIP: 10.1.0.1, phase: Succeeded}}");
        assert!(ended.addresses.is_empty());
    }

    #[test]
    fn a_bad_weight_counts_as_one_and_is_named() {
        let with = |w: &str| {
            read(&format!(
                "{{metadata: {{name: p, annotations: {{hauberk.dev/weight: '{w}'}}}}}}"
            ))
        };
        assert_eq!((with("1000").weight.get(), with("1000").problem), (1000, None));
        for bad in ["0", "1001", "-1", "many", ""] {
            let pod = with(bad);
            assert_eq!(pod.weight.get(), 1);
            let problem = pod.problem.unwrap();
            assert!(
                problem.field.contains("hauberk.dev/weight") && problem.problem.contains("1 to 1000"),
                "{problem}"
            );
        }
    }
}
