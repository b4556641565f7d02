//! An EndpointSlice: addresses behind a Service, as the cluster keeps them. Made from the Kubernetes object by
//! `World::apply`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1 as discovery;

use super::host::{ObjectName, ServiceName};

/// Label of a slice with the name of its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Addresses behind a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service they are of.
    pub service: ServiceName,
    /// Whether the addresses are IPv6.
    pub v6: bool,
    /// The TCP ports of all its addresses: name (that of the Service's port) and number.
    pub ports: Vec<(String, u16)>,
    /// The addresses.
    pub entries: Vec<SliceEntry>,
}

/// One address of a slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SliceEntry {
    /// Where it is.
    pub address: IpAddr,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Whether it could take traffic: what is going away often still can.
    pub serving: bool,
    /// Whether it is going away.
    pub terminating: bool,
    /// The pod behind it, where the slice names one.
    pub pod: Option<ObjectName>,
    /// Its node; may be empty.
    pub node: String,
    /// Its zone; may be empty.
    pub zone: String,
    /// Zones whose clients are to prefer it, where the cluster says so.
    pub hints: Vec<String>,
}

impl Slice {
    /// Reads the Kubernetes object; `None` when it names no Service, or holds names instead of addresses.
    #[must_use]
    pub fn from_object(object: &discovery::EndpointSlice) -> Option<Self> {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let service = object.metadata.labels.as_ref()?.get(SERVICE_LABEL)?;
        let v6 = match object.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            _ => return None,
        };
        let ports = object.ports.iter().flatten().filter_map(|port| {
            let tcp = port.protocol.as_deref().unwrap_or("TCP") == "TCP";
            let number = u16::try_from(port.port?).ok().filter(|n| tcp && *n > 0)?;
            Some((port.name.clone().unwrap_or_default(), number))
        });
        // All addresses of one endpoint are the same thing; by the contract of the API only the first counts.
        let entries = object.endpoints.iter().filter_map(|endpoint| {
            let address = endpoint.addresses.first()?.parse::<IpAddr>().ok()?;
            Some(entry(endpoint, address.to_canonical(), &namespace))
        });
        Some(Self {
            service: ServiceName::new(namespace.clone(), service),
            v6,
            ports: ports.collect(),
            entries: entries.collect(),
            name: ObjectName {
                namespace,
                name: object.metadata.name.clone().unwrap_or_default(),
            },
        })
    }

    /// The addresses and pods that stand differently in `self` and `other`, either way.
    #[must_use]
    pub fn difference<'a>(&'a self, other: &'a Self) -> Vec<&'a SliceEntry> {
        if self.service != other.service || self.ports != other.ports {
            return self.entries.iter().chain(&other.entries).collect();
        }
        let (old, new): (BTreeSet<_>, BTreeSet<_>) =
            (self.entries.iter().collect(), other.entries.iter().collect());
        old.symmetric_difference(&new).copied().collect()
    }
}

fn entry(endpoint: &discovery::Endpoint, address: IpAddr, namespace: &str) -> SliceEntry {
    let conditions = endpoint.conditions.as_ref();
    let pod = endpoint
        .target_ref
        .as_ref()
        .filter(|r| r.kind.as_deref() == Some("Pod"));
    // An unknown condition counts as ready, and as not going away.
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let hints = endpoint
        .hints
        .iter()
        .flat_map(|hints| hints.for_zones.iter().flatten());
    SliceEntry {
        address,
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        pod: pod.and_then(|r| {
            Some(ObjectName {
                namespace: r.namespace.clone().unwrap_or_else(|| namespace.to_owned()),
                name: r.name.clone()?,
            })
        }),
        node: endpoint.node_name.clone().unwrap_or_default(),
        zone: endpoint.zone.clone().unwrap_or_default(),
        hints: hints.map(|zone| zone.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(endpoints: &str) -> Slice {
        let yaml = format!(
            "
            metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
            addressType: IPv4
            ports: [{{name: http, port: 8080}}, {{name: dns, port: 53, protocol: UDP}}, {{name: none}}]
            endpoints: {endpoints}
            "
        );
        Slice::from_object(&serde_saphyr::from_str(&yaml).unwrap()).unwrap()
    }

    #[test]
    fn conditions_default_to_ready_and_staying() {
        let slice = read(
            "[{addresses: [10.1.0.1]},
              {addresses: [10.1.0.2], conditions: {ready: false, serving: true, terminating: true}, zone: z, nodeName: n,
               hints: {forZones: [{name: y}, {name: z}]}, targetRef: {kind: Pod, name: p}},
              {addresses: [not-an-address]}, {addresses: []}]",
        );
        assert_eq!(slice.service, ServiceName::new("shop", "web"));
        assert_eq!(slice.ports, [("http".to_owned(), 8080)]);
        let [first, second] = slice.entries.as_slice() else {
            panic!("{:?}", slice.entries)
        };
        assert!(first.ready && !first.terminating && first.pod.is_none());
        assert!(first.serving && first.hints.is_empty());
        assert!(!second.ready && second.serving && second.terminating);
        assert_eq!((second.zone.as_str(), second.node.as_str()), ("z", "n"));
        assert_eq!(second.hints, ["y", "z"]);
        assert_eq!(second.pod.as_ref().map(|p| p.namespace.as_str()), Some("shop"));
    }

    #[test]
    fn the_difference_names_only_what_changed() {
        let old = read("[{addresses: [10.1.0.1]}, {addresses: [10.1.0.2]}]");
        let new = read("[{addresses: [10.1.0.1]}, {addresses: [10.1.0.2], conditions: {ready: false}}]");
        let addresses: BTreeSet<_> = old
            .difference(&new)
            .into_iter()
            .map(|e| e.address.to_string())
            .collect();
        assert_eq!(addresses, BTreeSet::from(["10.1.0.2".to_owned()]));
        assert!(old.difference(&old.clone()).is_empty());
    }

    #[test]
    fn a_slice_without_a_service_or_with_names_is_none() {
        for yaml in [
            "{metadata: {name: a}, addressType: IPv4, endpoints: []}",
            "{metadata: {name: a, labels: {kubernetes.io/service-name: b}}, addressType: FQDN, endpoints: []}",
        ] {
            assert_eq!(Slice::from_object(&serde_saphyr::from_str(yaml).unwrap()), None);
        }
    }
}
