//! The objects that Hauberk gets: services, and what is asked of the traffic to them.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::ensure;
use tests::lab::{App, PortSpec, ServiceSpec, Workload, eventually};

use super::{CLIENT, ECHO, HTTP1, HTTP2, LOGGING_CLIENT, PLAIN, Place, SOURCE};

/// How long the operator and a proxy may take until a new service can be called.
const CALLABLE_WITHIN: Duration = Duration::from_secs(30);

/// A way through Hauberk that differs from the usual one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    /// The pod that calls, where it is not the usual client.
    pub(crate) client: Option<&'static str>,
    /// The service that is called, where it is not the usual one.
    pub(crate) service: Option<(String, Ipv4Addr)>,
    /// Go on with the proxy that runs, since other ways lead through it.
    pub(crate) shared: bool,
}

/// An application on the ports of the backend.
pub(super) fn app(name: &str, meshed: bool) -> ServiceSpec {
    ServiceSpec::new(name)
        .port(PortSpec::new("http", HTTP1, App::Nothing))
        .port(PortSpec::new("http2", HTTP2, App::Nothing))
        .port(PortSpec::new("tcp-echo", ECHO, App::Nothing))
        .port(PortSpec::new("tcp-source", SOURCE, App::Nothing))
        .workload(Workload::new("v1", 1).meshed(meshed))
}

/// All that a mesh is expected to do for a request: a route, retries armed, a breaker, outlier detection.
pub(crate) fn features(service: &str, pool: &str) -> String {
    format!(
        "{}{}",
        virtual_service(
            service,
            &format!(
                "    - retries: {{attempts: 2, retryOn: 'connect-failure,refused-stream,gateway-error'}}
      route: [{{destination: {{host: {service}}}}}]
"
            )
        ),
        destination_rule(
            service,
            &format!(
                "    connectionPool: {{{pool}}}
    outlierDetection: {{consecutive5xxErrors: 5, interval: 10s}}
    circuitBreaker: {{failureThreshold: 5}}
"
            )
        )
    )
}

/// A VirtualService with these `http` rules.
pub(crate) fn virtual_service(service: &str, rules: &str) -> String {
    format!(
        "---
apiVersion: hauberk.dev/v1alpha1
kind: VirtualService
metadata: {{name: {service}, namespace: shop}}
spec:
  hosts: [{service}]
  http:
{rules}"
    )
}

/// A DestinationRule with this `trafficPolicy`.
pub(crate) fn destination_rule(service: &str, policy: &str) -> String {
    format!(
        "---
apiVersion: hauberk.dev/v1alpha1
kind: DestinationRule
metadata: {{name: {service}, namespace: shop}}
spec:
  host: {service}
  trafficPolicy:
{policy}"
    )
}

/// A Service and its EndpointSlices, 100 endpoints in each as Kubernetes does it.
pub(crate) fn service(name: &str, address: Ipv4Addr, endpoints: &[Ipv4Addr]) -> String {
    let mut yaml = format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{type: ClusterIP, clusterIP: {address}, clusterIPs: [{address}], ports: [{{name: http, port: {HTTP1}}}]}}
"
    );
    for (number, some) in endpoints.chunks(100).enumerate() {
        let _ = write!(
            yaml,
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{number}, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: {HTTP1}, protocol: TCP}}]
endpoints:
"
        );
        for address in some {
            let _ = writeln!(yaml, "- {{addresses: [{address}], conditions: {{ready: true}}}}");
        }
    }
    yaml
}

/// Endpoints of a service that are not ready.
pub(crate) fn not_ready(name: &str, endpoints: &[Ipv4Addr]) -> String {
    let mut yaml = format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-starting, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: {HTTP1}, protocol: TCP}}]
endpoints:
"
    );
    for address in endpoints {
        let _ = writeln!(yaml, "- {{addresses: [{address}], conditions: {{ready: false}}}}");
    }
    yaml
}

impl Place {
    /// The application without a proxy beside it.
    pub(crate) fn plain_address(&self) -> Ipv4Addr {
        self.lab.pod(&format!("{PLAIN}-v1-0")).ip()
    }

    /// The address of one of the services of [`services`](Self::services).
    pub(crate) fn service_address(number: u16) -> Ipv4Addr {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, 96, 100 + high, low)
    }

    /// `count` services, numbered from `first`, with the application behind each of them.
    pub(crate) fn services(&self, first: u16, count: u16) -> String {
        (first..first + count)
            .map(|number| {
                let address = Self::service_address(number);
                service(&format!("s{number}"), address, &[self.plain_address()])
            })
            .collect()
    }

    /// Adds a service with what is asked of it, in one change, and waits until it can be called through Hauberk.
    pub(crate) async fn add_service(
        &self,
        name: &str,
        number: u8,
        endpoints: &[Ipv4Addr],
        more: &str,
    ) -> anyhow::Result<Extra> {
        let address = Ipv4Addr::new(10, 96, 200, number);
        self.lab
            .apply(name, &format!("{}{more}", service(name, address, endpoints)))?;
        let url = format!("http://{address}:{HTTP1}/1");
        // Another pod asks until the operator knows it. A proxy that asked too early would dial the address itself, and the
        // kernel would keep that connection's ports out of the redirect for two minutes.
        for client in [LOGGING_CLIENT, CLIENT] {
            let client = self.lab.pod(client);
            eventually(CALLABLE_WITHIN, &format!("{name} can be called"), async || {
                let reply = client.get(&url).await?;
                ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
                Ok(())
            })
            .await?;
        }
        Ok(Extra {
            service: Some((name.to_owned(), address)),
            ..Extra::default()
        })
    }
}
