//! A Service, with what routing needs of it. Made from the Kubernetes object by `World::apply`; everything else of the
//! object is dropped, so that memory follows what is used.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::age::Age;
use super::host::ServiceName;

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// Its cluster addresses, the primary family first; none for a headless Service.
    pub addresses: Vec<IpAddr>,
    /// Its TCP ports, in the order written.
    pub ports: Vec<ServicePort>,
    /// Labels of its pods; `None` for a Service whose endpoints somebody else keeps.
    pub selector: Option<BTreeMap<String, String>>,
    /// Send traffic to pods that are not ready.
    pub publish_not_ready: bool,
    /// Whether IPv6 is its primary family.
    pub prefers_v6: bool,
    /// Whether clients are to prefer endpoints of their own zone (`trafficDistribution`). Of those on the same node as the
    /// client, which Kubernetes can prefer too, no more is made than of those in the same zone.
    pub prefers_zone: bool,
    pub(crate) age: Age,
}

/// A TCP port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The port clients dial.
    pub number: u16,
    /// Its name; empty when it is the only one.
    pub name: String,
    /// What it is declared to speak, as written.
    pub app_protocol: Option<String>,
    /// The port of the pod.
    pub target: TargetPort,
}

/// The port of the pod that a Service's port leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that the pod's container gives it.
    Name(String),
}

impl Service {
    /// Reads the Kubernetes object. `None` for an `ExternalName`, which is a name in the DNS and nothing to route.
    #[must_use]
    pub fn from_object(object: &core::Service) -> Option<Self> {
        let age = Age::of(&object.metadata);
        let name = ServiceName::new(age.namespace.clone(), age.name.clone());
        let empty = core::ServiceSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let one = spec.cluster_ip.iter();
        let all = spec.cluster_ips.iter().flatten();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in one.chain(all).filter_map(|text| text.parse::<IpAddr>().ok()) {
            if !addresses.contains(&address.to_canonical()) {
                addresses.push(address.to_canonical());
            }
        }
        let family = spec.ip_families.iter().flatten().next().map(String::as_str);
        Some(Self {
            prefers_v6: addresses.first().map_or(family == Some("IPv6"), IpAddr::is_ipv6),
            name,
            addresses,
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter_map(ServicePort::from_object)
                .collect(),
            selector: spec.selector.clone().filter(|labels| !labels.is_empty()),
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
            prefers_zone: matches!(
                spec.traffic_distribution.as_deref(),
                Some("PreferClose" | "PreferSameZone" | "PreferSameNode")
            ),
            age,
        })
    }

    /// The name in the DNS that an `ExternalName` stands for. Such a Service has neither address nor endpoints: what its
    /// name resolves to is dialled, and that is what counts.
    #[must_use]
    pub fn external_name(object: &core::Service) -> Option<Arc<str>> {
        let spec = object.spec.as_ref()?;
        let external = spec.type_.as_deref() == Some("ExternalName");
        external.then(|| spec.external_name.as_deref().unwrap_or_default().into())
    }

    /// The port of this number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.number == number)
    }

    /// The port of this name.
    #[must_use]
    pub fn port_named(&self, name: &str) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.name == name)
    }

    /// Whether pods of `namespace` with these labels are its own.
    #[must_use]
    pub fn selects(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.name.namespace == namespace
            && self
                .selector
                .as_ref()
                .is_some_and(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
    }

    /// The first label that it selects on, with its namespace: what every pod that it selects has.
    pub(super) fn first_label(&self) -> Option<(String, String, String)> {
        let (key, value) = self.selector.as_ref()?.first_key_value()?;
        Some((self.name.namespace.clone(), key.clone(), value.clone()))
    }

    /// Its ports as a sentence has them: `9080, 9090`.
    #[must_use]
    pub fn port_list(&self) -> String {
        match self.ports.as_slice() {
            [] => "none".to_owned(),
            ports => ports
                .iter()
                .map(|p| p.number.to_string())
                .collect::<Vec<_>>()
                .join(", "),
        }
    }
}

impl ServicePort {
    fn from_object(port: &core::ServicePort) -> Option<Self> {
        if port.protocol.as_deref().unwrap_or("TCP") != "TCP" {
            return None;
        }
        let number = u16::try_from(port.port).ok().filter(|n| *n > 0)?;
        let target = match &port.target_port {
            None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::Int(n)) => TargetPort::Number(u16::try_from(*n).ok()?),
            // `targetPort: "8080"` is a number to Kubernetes' own clients as well.
            Some(IntOrString::String(text)) => match text.parse() {
                Ok(n) => TargetPort::Number(n),
                Err(_) => TargetPort::Name(text.clone()),
            },
        };
        Some(Self {
            number,
            name: port.name.clone().unwrap_or_default(),
            app_protocol: port.app_protocol.clone(),
            target,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Option<Service> {
        Service::from_object(&serde_saphyr::from_str(yaml).unwrap())
    }

    #[test]
    fn ports_and_addresses_are_read_and_udp_is_left_alone() {
        let service = read(
            "
            metadata: {name: web, namespace: shop}
            spec:
              clusterIP: 10.0.0.1
              clusterIPs: [10.0.0.1, 'fd00::1']
              selector: {app: web}
              ports:
              - {name: http, port: 80, targetPort: named}
              - {name: grpc, port: 81, targetPort: '8081', appProtocol: grpc}
              - {name: dns, port: 53, protocol: UDP}
              - {name: plain, port: 82}
            ",
        )
        .unwrap();
        assert_eq!(
            service.addresses,
            ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]
        );
        assert!(!service.prefers_v6);
        assert_eq!(service.port_list(), "80, 81, 82");
        let targets: Vec<_> = service.ports.iter().map(|p| p.target.clone()).collect();
        let expected = [
            TargetPort::Name("named".into()),
            TargetPort::Number(8081),
            TargetPort::Number(82),
        ];
        assert_eq!(targets, expected);
        assert!(service.port(53).is_none());
    }

    #[test]
    fn headless_and_external_services_have_no_address() {
        let headless =
            read("{metadata: {name: db, namespace: a}, spec: {clusterIP: None, ipFamilies: [IPv6]}}");
        let headless = headless.unwrap();
        assert!(headless.addresses.is_empty() && headless.prefers_v6);
        assert!(
            !headless.selects("a", &BTreeMap::new()),
            "without a selector, no pod is its own"
        );
        assert_eq!(
            read("{metadata: {name: x}, spec: {type: ExternalName, externalName: a.b}}"),
            None
        );
    }
}
