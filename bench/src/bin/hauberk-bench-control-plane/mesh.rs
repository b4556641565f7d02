//! The mesh that is simulated: its size, who uses what, and the manifests of everything in it. Pure, and the same for the
//! same size; `folder` writes it, `proxy` and `fleet` follow it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Services of one namespace, so that namespaces grow in number as teams do, and not in size.
const PER_NAMESPACE: usize = 20;
/// The Service that every proxy uses; the others are used by a few each.
pub(crate) const HOT: usize = 0;
/// The port of every Service.
const PORT: u16 = 80;

/// How large a mesh is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Size {
    /// Proxies that are connected.
    pub(crate) proxies: usize,
    /// Services, each with a VirtualService and a DestinationRule with two subsets.
    pub(crate) services: usize,
    /// Pods behind each Service.
    pub(crate) endpoints_each: usize,
    /// Services that each proxy uses.
    pub(crate) uses: usize,
}

/// What changes during a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// A pod is replaced by another.
    Endpoint,
    /// A VirtualService is edited.
    Route,
}

/// One of the simulated pods that have a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) pod: String,
}

impl Size {
    /// Whether such a mesh can be simulated, and what to change if not.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.endpoints_each >= 2,
            "--endpoints: there must be two a service"
        );
        // The last pod of a Service is the one that is replaced, so no proxy runs in it.
        let pods = self.services * (self.endpoints_each - 1);
        anyhow::ensure!(
            self.proxies <= pods,
            "--proxies: there are {pods} pods to run in at most"
        );
        anyhow::ensure!(
            (1..=self.services).contains(&self.uses),
            "--uses: must be from 1 to the number of services, {}",
            self.services
        );
        Ok(())
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.services * self.endpoints_each
    }

    /// Names that each proxy is subscribed to: six a Service that it uses (its destination, route, three clusters and
    /// endpoints), its own inbound and the trust bundle.
    pub(crate) fn subscriptions_each(&self) -> usize {
        self.uses * 6 + 2
    }

    pub(crate) fn identity(&self, proxy: usize) -> Identity {
        let service = proxy % self.services;
        Identity {
            namespace: namespace(service),
            service_account: name(service),
            pod: pod(service, proxy / self.services, 0),
        }
    }

    /// The Services that a proxy uses: the one that all use, and others spread evenly.
    pub(crate) fn used_by(&self, proxy: usize) -> BTreeSet<usize> {
        let mut used = BTreeSet::from([HOT]);
        let mut state = proxy as u64;
        while used.len() < self.uses {
            used.insert(usize::try_from(mixed(&mut state) % self.services as u64).expect("below a usize"));
        }
        used
    }

    /// For each Service the proxies that use it.
    pub(crate) fn users(&self) -> Vec<Vec<usize>> {
        let mut users = vec![Vec::new(); self.services];
        for proxy in 0..self.proxies {
            for service in self.used_by(proxy) {
                users[service].push(proxy);
            }
        }
        users
    }
}

/// SplitMix64: enough chance for who uses what, and the same on every machine.
pub(crate) fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn namespace(service: usize) -> String {
    format!("team-{}", service / PER_NAMESPACE)
}

fn name(service: usize) -> String {
    format!("svc-{service}")
}

fn pod(service: usize, replica: usize, generation: u64) -> String {
    format!("svc-{service}-{replica}-g{generation}")
}

/// What an application dials.
pub(crate) fn address(service: usize) -> String {
    let [_, a, b, c] = u32::try_from(service).expect("few enough").to_be_bytes();
    format!("{}:{PORT}", Ipv4Addr::new(172, 16 + a, b, c))
}

/// Which Service the resource `host:port` is of.
pub(crate) fn service_of(resource: &str) -> Option<usize> {
    let rest = resource.strip_prefix("svc-")?;
    rest.split_once('.')?.0.parse().ok()
}

/// The generation in the name of a pod or of a rule.
pub(crate) fn generation_of(name: &str) -> Option<u64> {
    name.rsplit_once('g')?.1.parse().ok()
}

/// The namespace, in which everything of the Service is.
pub(crate) fn namespace_manifest(service: usize) -> (String, String) {
    let namespace = namespace(service);
    let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
    (format!("{namespace}.yaml"), text)
}

/// The Service with its DestinationRule.
pub(crate) fn service_manifest(service: usize) -> (String, String) {
    let (namespace, name) = (namespace(service), name(service));
    let address = address(service);
    let ip = address.trim_end_matches(":80");
    let text = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{clusterIP: {ip}, selector: {{app: {name}}}, ports: [{{name: http, port: {PORT}, targetPort: 8080}}]}}
---
apiVersion: hauberk.dev/v1alpha1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  host: {name}
  trafficPolicy: {{circuitBreaker: {{failureThreshold: 5, recoveryTimeout: 5s}}}}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
"
    );
    (format!("{namespace}/{name}.yaml"), text)
}

/// The VirtualService; its generation is the name of its rule.
pub(crate) fn route_manifest(service: usize, generation: u64) -> (String, String) {
    let (namespace, name) = (namespace(service), name(service));
    let weight = 50 + generation % 50;
    let rest = 100 - weight;
    let text = format!(
        "apiVersion: hauberk.dev/v1alpha1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  hosts: [{name}]
  http:
    - name: g{generation}
      timeout: 10s
      retries: {{attempts: 2}}
      route:
        - {{destination: {{host: {name}, subset: v1}}, weight: {weight}}}
        - {{destination: {{host: {name}, subset: v2}}, weight: {rest}}}
"
    );
    (format!("{namespace}/{name}-route.yaml"), text)
}

/// One pod. The last of each Service is replaced by another with each generation: a new name and a new address.
pub(crate) fn pod_manifest(size: &Size, service: usize, replica: usize, generation: u64) -> (String, String) {
    let (namespace, name) = (namespace(service), name(service));
    let pod = pod(service, replica, generation);
    let ip = pod_address(size, service, replica, generation);
    let version = if replica.is_multiple_of(2) { "v1" } else { "v2" };
    let text = format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {pod}
  namespace: {namespace}
  labels: {{app: {name}, version: {version}, hauberk.dev/injected: 'true', pod-template-hash: 5d4f8c7b9}}
spec: {{serviceAccountName: {name}, nodeName: node-{}, containers: [{{name: app, image: app}}]}}
status: {{podIP: {ip}}}
",
        replica % 8
    );
    (format!("{namespace}/{name}-pod-{replica}.yaml"), text)
}

/// The EndpointSlice of a Service, its last pod in the given generation.
pub(crate) fn slice_manifest(size: &Size, service: usize, generation: u64) -> (String, String) {
    let (namespace, name) = (namespace(service), name(service));
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints:
"
    );
    let last = size.endpoints_each - 1;
    for replica in 0..size.endpoints_each {
        let generation = if replica == last { generation } else { 0 };
        let pod = pod(service, replica, generation);
        let ip = pod_address(size, service, replica, generation);
        text += &format!(
            "  - {{addresses: [{ip}], conditions: {{ready: true}}, nodeName: node-{}, zone: zone-{}, \
             targetRef: {{kind: Pod, name: {pod}}}}}\n",
            replica % 8,
            replica % 3
        );
    }
    (format!("{namespace}/{name}-slice.yaml"), text)
}

/// The first generation has the lower half of the addresses; those that come later follow one another in the upper half,
/// a range of its own for each Service.
fn pod_address(size: &Size, service: usize, replica: usize, generation: u64) -> Ipv4Addr {
    const LATER: u64 = 1 << 23;
    let service = service as u64;
    let number = if generation == 0 {
        service * size.endpoints_each as u64 + replica as u64
    } else {
        LATER + (service + size.services as u64 * (generation - 1)) % LATER
    };
    let [_, a, b, c] = u32::try_from(number).expect("of 24 bits").to_be_bytes();
    Ipv4Addr::new(10, a, b, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        proxies: 50,
        services: 40,
        endpoints_each: 3,
        uses: 5,
    };

    #[test]
    fn every_manifest_is_read_without_a_complaint() {
        for (_, text) in [
            namespace_manifest(3),
            service_manifest(3),
            route_manifest(3, 7),
            pod_manifest(&SIZE, 3, 2, 7),
            slice_manifest(&SIZE, 3, 7),
        ] {
            for object in crds::parse(&text) {
                object.unwrap();
            }
        }
    }

    #[test]
    fn users_are_those_who_use() {
        let users = SIZE.users();
        assert_eq!(users[HOT].len(), SIZE.proxies);
        for (service, users) in users.iter().enumerate() {
            assert!(users.iter().all(|proxy| SIZE.used_by(*proxy).contains(&service)));
        }
        assert_eq!(
            users.iter().map(Vec::len).sum::<usize>(),
            SIZE.proxies * SIZE.uses
        );
    }

    #[test]
    fn a_name_says_which_generation_it_is_of() {
        assert_eq!(generation_of(&pod(3, 2, 17)), Some(17));
        assert_eq!(generation_of("g5"), Some(5));
        assert_eq!(service_of("svc-12.team-0.svc.cluster.local:80"), Some(12));
    }

    #[test]
    fn pods_that_live_at_once_have_addresses_of_their_own() {
        let mut seen = BTreeSet::new();
        for service in 0..SIZE.services {
            for generation in 0..5 {
                let first = if generation == 0 {
                    0
                } else {
                    SIZE.endpoints_each - 1
                };
                for replica in first..SIZE.endpoints_each {
                    assert!(seen.insert(pod_address(&SIZE, service, replica, generation)));
                }
            }
        }
    }
}
