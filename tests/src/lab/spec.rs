//! What a lab is to consist of: services, their workloads and ports, pods of their own. Plain data.
//!
//! Written by tests, read by [`Builder::start`]. Nothing here touches the machine.

use std::collections::BTreeMap;

use super::binaries::Binary;

/// The namespace of everything that names no other.
pub const NAMESPACE: &str = "shop";

/// What answers on a port of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum App {
    /// The test application's HTTP/1.1 and HTTP/2 server.
    Http,
    /// The test application's gRPC echo.
    Grpc,
    /// A line echo that speaks first, as databases do.
    Greeting(String),
    /// A line echo that waits for the client.
    Silent,
    /// Nothing: the test provides it, or wants the port closed.
    Nothing,
}

/// A port of a service and what stands behind it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PortSpec {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) target: u16,
    pub(super) app_protocol: Option<String>,
    pub(super) app: App,
}

/// A service with its workloads.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) ports: Vec<PortSpec>,
    pub(super) workloads: Vec<Workload>,
    pub(super) headless: bool,
    pub(super) dual_stack: bool,
    pub(super) annotations: BTreeMap<String, String>,
}

/// Some equal pods of a service: one of its versions.
#[derive(Clone, Debug)]
pub struct Workload {
    pub(super) version: String,
    pub(super) replicas: usize,
    pub(super) pod: PodSpec,
}

/// A pod. Its name is replaced where a workload gives its pods names.
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) service_account: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) zone: Option<String>,
    pub(super) meshed: bool,
    pub(super) proxy_env: BTreeMap<String, String>,
    pub(super) init_arguments: Vec<String>,
    pub(super) skip_inbound: Vec<u16>,
    pub(super) ports: Vec<PortSpec>,
}

impl PortSpec {
    /// A port with a name, the same in the pod, and an application behind it.
    pub fn new(name: &str, port: u16, app: App) -> PortSpec {
        PortSpec {
            name: name.to_owned(),
            port,
            target: port,
            app_protocol: None,
            app,
        }
    }

    /// Port `http` with the HTTP application.
    pub fn http(port: u16) -> PortSpec {
        PortSpec::new("http", port, App::Http)
    }

    /// Port `grpc` with the gRPC echo.
    pub fn grpc(port: u16) -> PortSpec {
        PortSpec::new("grpc", port, App::Grpc)
    }

    /// Port `tcp` with a server that speaks first.
    pub fn greeting(port: u16, greeting: &str) -> PortSpec {
        PortSpec::new("tcp", port, App::Greeting(greeting.to_owned()))
    }

    /// Port `tcp` with a server that waits for the client.
    pub fn silent(port: u16) -> PortSpec {
        PortSpec::new("tcp", port, App::Silent)
    }

    /// The port in the pod, where it is not the service's.
    #[must_use]
    pub fn target(mut self, target: u16) -> PortSpec {
        self.target = target;
        self
    }

    /// Another port name.
    #[must_use]
    pub fn named(mut self, name: &str) -> PortSpec {
        name.clone_into(&mut self.name);
        self
    }

    /// The port's `appProtocol`.
    #[must_use]
    pub fn app_protocol(mut self, protocol: &str) -> PortSpec {
        self.app_protocol = Some(protocol.to_owned());
        self
    }
}

impl ServiceSpec {
    /// A service without ports or pods.
    pub fn new(name: &str) -> ServiceSpec {
        ServiceSpec {
            name: name.to_owned(),
            namespace: NAMESPACE.to_owned(),
            ports: Vec::new(),
            workloads: Vec::new(),
            headless: false,
            dual_stack: false,
            annotations: BTreeMap::new(),
        }
    }

    /// A service with the HTTP application on port 8080.
    pub fn http(name: &str) -> ServiceSpec {
        ServiceSpec::new(name).port(PortSpec::http(8080))
    }

    /// A service with the gRPC echo on port 50051.
    pub fn grpc(name: &str) -> ServiceSpec {
        ServiceSpec::new(name).port(PortSpec::grpc(50_051))
    }

    /// A service that greets its clients on `port`, as a database does.
    pub fn tcp(name: &str, port: u16) -> ServiceSpec {
        ServiceSpec::new(name).port(PortSpec::greeting(port, &format!("220 {name} is ready")))
    }

    /// Adds a port.
    #[must_use]
    pub fn port(mut self, port: PortSpec) -> ServiceSpec {
        self.ports.push(port);
        self
    }

    /// Adds `replicas` pods labelled `version`, meshed.
    #[must_use]
    pub fn version(self, version: &str, replicas: usize) -> ServiceSpec {
        self.workload(Workload::new(version, replicas))
    }

    /// Adds pods.
    #[must_use]
    pub fn workload(mut self, workload: Workload) -> ServiceSpec {
        self.workloads.push(workload);
        self
    }

    /// Puts the service and its pods into another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> ServiceSpec {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Gives it no address of its own.
    #[must_use]
    pub fn headless(mut self) -> ServiceSpec {
        self.headless = true;
        self
    }

    /// Gives it an IPv6 address and IPv6 endpoints too.
    #[must_use]
    pub fn dual_stack(mut self) -> ServiceSpec {
        self.dual_stack = true;
        self
    }

    /// Annotates the service.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> ServiceSpec {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The pod number `index` of a workload, complete.
    pub(super) fn pod(&self, workload: &Workload, index: usize) -> PodSpec {
        let Workload {
            version,
            replicas: _,
            pod,
        } = workload;
        let mut pod = pod.clone();
        pod.name = format!("{}-{version}-{index}", self.name);
        pod.namespace.clone_from(&self.namespace);
        pod.service_account.get_or_insert_with(|| self.name.clone());
        pod.labels.insert("app".to_owned(), self.name.clone());
        pod.labels.insert("version".to_owned(), version.clone());
        pod.ports.clone_from(&self.ports);
        pod
    }
}

impl Workload {
    /// `replicas` pods labelled `version`, meshed.
    pub fn new(version: &str, replicas: usize) -> Workload {
        Workload {
            version: version.to_owned(),
            replicas,
            pod: PodSpec::new(""),
        }
    }

    /// Gives its pods a proxy, or none.
    #[must_use]
    pub fn meshed(mut self, meshed: bool) -> Workload {
        self.pod = self.pod.meshed(meshed);
        self
    }

    /// Puts its pods into a zone.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> Workload {
        self.pod = self.pod.zone(zone);
        self
    }

    /// Labels its pods.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Workload {
        self.pod = self.pod.label(key, value);
        self
    }

    /// Annotates its pods.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Workload {
        self.pod = self.pod.annotation(key, value);
        self
    }

    /// The service account of its pods, where it is not named after the service.
    #[must_use]
    pub fn service_account(mut self, account: &str) -> Workload {
        self.pod = self.pod.service_account(account);
        self
    }

    /// Sets a variable in the environment of its proxies.
    #[must_use]
    pub fn proxy_env(mut self, key: &str, value: &str) -> Workload {
        self.pod = self.pod.proxy_env(key, value);
        self
    }

    /// Keeps a port of its pods out of the redirect.
    #[must_use]
    pub fn skip_inbound(mut self, port: u16) -> Workload {
        self.pod = self.pod.skip_inbound(port);
        self
    }

    /// Adds an argument to `hauberk-proxy init` in its pods, other than those that the lab itself gives.
    #[must_use]
    pub fn init_argument(mut self, argument: &str) -> Workload {
        self.pod = self.pod.init_argument(argument);
        self
    }
}

impl PodSpec {
    /// A meshed pod without an application.
    pub fn new(name: &str) -> PodSpec {
        PodSpec {
            name: name.to_owned(),
            namespace: NAMESPACE.to_owned(),
            service_account: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            zone: None,
            meshed: true,
            proxy_env: BTreeMap::new(),
            init_arguments: Vec::new(),
            skip_inbound: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// Puts it into another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> PodSpec {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Its service account, where it is not named after the pod.
    #[must_use]
    pub fn service_account(mut self, account: &str) -> PodSpec {
        self.service_account = Some(account.to_owned());
        self
    }

    /// Labels it.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> PodSpec {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Annotates it.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> PodSpec {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Puts it into a zone.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> PodSpec {
        self.zone = Some(zone.to_owned());
        self
    }

    /// Gives it a proxy, or none.
    #[must_use]
    pub fn meshed(mut self, meshed: bool) -> PodSpec {
        self.meshed = meshed;
        self
    }

    /// Sets a variable in its proxy's environment.
    #[must_use]
    pub fn proxy_env(mut self, key: &str, value: &str) -> PodSpec {
        self.proxy_env.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Keeps a port of the pod out of the redirect.
    #[must_use]
    pub fn skip_inbound(mut self, port: u16) -> PodSpec {
        self.skip_inbound.push(port);
        self
    }

    /// Adds an argument to `hauberk-proxy init`, other than those that the lab itself gives.
    #[must_use]
    pub fn init_argument(mut self, argument: &str) -> PodSpec {
        self.init_arguments.push(argument.to_owned());
        self
    }

    /// Runs an application on a port that belongs to no service.
    #[must_use]
    pub fn port(mut self, port: PortSpec) -> PodSpec {
        self.ports.push(port);
        self
    }

    pub(super) fn account(&self) -> String {
        self.service_account.clone().unwrap_or_else(|| self.name.clone())
    }
}

/// A lab to be started.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    pub(super) services: Vec<ServiceSpec>,
    pub(super) pods: Vec<PodSpec>,
    pub(super) manifests: Vec<(String, String)>,
    pub(super) proxy_env: BTreeMap<String, String>,
    pub(super) operator_env: BTreeMap<String, String>,
    pub(super) without_mesh: bool,
}

impl Builder {
    /// Adds a service with its pods.
    #[must_use]
    pub fn service(mut self, service: ServiceSpec) -> Builder {
        self.services.push(service);
        self
    }

    /// Adds a pod that belongs to no service.
    #[must_use]
    pub fn pod(mut self, pod: PodSpec) -> Builder {
        self.pods.push(pod);
        self
    }

    /// Adds a meshed pod that only calls others.
    #[must_use]
    pub fn client(self, name: &str) -> Builder {
        self.pod(PodSpec::new(name))
    }

    /// Adds a pod without a proxy that only calls others.
    #[must_use]
    pub fn outsider(self, name: &str) -> Builder {
        self.pod(PodSpec::new(name).meshed(false))
    }

    /// Applies a manifest before the operator starts.
    #[must_use]
    pub fn manifest(mut self, name: &str, yaml: &str) -> Builder {
        self.manifests.push((name.to_owned(), yaml.to_owned()));
        self
    }

    /// Sets a variable in every proxy's environment.
    #[must_use]
    pub fn proxy_env(mut self, key: &str, value: &str) -> Builder {
        self.proxy_env.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets a variable in the operator's environment.
    #[must_use]
    pub fn operator_env(mut self, key: &str, value: &str) -> Builder {
        self.operator_env.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Starts neither operator nor proxies: pods and applications alone.
    #[must_use]
    pub fn without_mesh(mut self) -> Builder {
        self.without_mesh = true;
        self
    }

    /// The programs that this lab runs.
    pub(super) fn binaries(&self) -> Vec<Binary> {
        let mut needed = Vec::new();
        if !self.without_mesh {
            needed.extend([Binary::ControlPlane, Binary::Proxy]);
        }
        let service_ports = self.services.iter().flat_map(|service| &service.ports);
        let pod_ports = self.pods.iter().flat_map(|pod| &pod.ports);
        if service_ports
            .chain(pod_ports)
            .any(|port| port.app != App::Nothing)
        {
            needed.push(Binary::TestApp);
        }
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Lab;

    #[test]
    fn a_workloads_pods_carry_the_services_name_labels_ports_and_account() {
        let service = ServiceSpec::http("reviews")
            .namespace("books")
            .workload(Workload::new("v2", 3).zone("a"));
        let pod = service.pod(&service.workloads[0], 1);
        assert_eq!(
            (pod.name.as_str(), pod.namespace.as_str()),
            ("reviews-v2-1", "books")
        );
        assert_eq!(pod.account(), "reviews");
        assert_eq!(pod.labels["app"], "reviews");
        assert_eq!(pod.labels["version"], "v2");
        assert_eq!(pod.ports, service.ports);
        assert_eq!(pod.zone.as_deref(), Some("a"));
    }

    #[test]
    fn a_lab_needs_only_the_programs_that_it_runs() {
        let apps = Lab::builder().service(ServiceSpec::http("a")).without_mesh();
        assert_eq!(apps.binaries(), [Binary::TestApp]);
        assert_eq!(Lab::builder().outsider("x").without_mesh().binaries(), []);
        let mesh = Lab::builder().client("x");
        assert_eq!(mesh.binaries(), [Binary::ControlPlane, Binary::Proxy]);
    }
}
