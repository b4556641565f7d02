//! The kubelet's probes of an application. The kubelet has no identity in the mesh, so under strict mutual TLS its
//! plaintext calls are refused; they go to the proxy's admin port instead, which is never redirected, and the proxy calls
//! the application in its place. What runs inside the container (`exec`), what goes to another host and what goes to a port
//! that bypasses the proxy stays as it is.
//!
//! Hooks (`postStart`, `preStop`) are never sent that way: whoever reaches the admin port could then set one off, and a
//! hook, unlike a probe, does something.

use std::collections::BTreeMap;

use api::names::{ADMIN_PORT, PROBE_PATH};
use api::{Invalid, Ports};
use k8s_openapi::api::core::v1::{
    Container, GRPCAction, HTTPGetAction, HTTPHeader, PodSpec, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use crate::parts::goes_on;

/// Under `container/kind`, what the proxy is to call when the kubelet asks for that.
pub(crate) type Targets = BTreeMap<String, Target>;

/// What a probe calls in the application. The proxy's setting `HAUBERK_PROBES` is a JSON object of these, each under
/// `<container>/<kind>`, where the kind is `startup`, `readiness` or `liveness`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// How the application is asked.
    pub kind: ProbeKind,
    /// The application's port.
    pub port: u16,
    /// For HTTP: `HTTP` or `HTTPS`; a certificate is not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// For HTTP: the path with its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// For HTTP: headers of the request, `Host` among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// For gRPC: the service that the health check names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How long the answer may take.
    pub timeout_seconds: u32,
}

/// How an application is asked for its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// GET, answered with 200 to 399.
    Http,
    /// `grpc.health.v1.Health/Check`, answered with SERVING.
    Grpc,
    /// A connection that is accepted.
    Tcp,
}

/// A header of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Sends the pod's probes to the proxy, and says what the proxy is to call for them. `bypass` are the ports that
/// are not redirected.
pub(crate) fn rewrite(spec: &mut PodSpec, bypass: &Ports) -> Result<Targets, Vec<Invalid>> {
    let mut targets = Targets::new();
    let mut problems = Vec::new();
    for (list, container) in serving(spec) {
        let name = container.name.clone();
        let ports = NamedPorts::of(container);
        for (kind, probe) in probes(container) {
            let field = format!("spec.{list}[{name}].{kind}Probe");
            match target_of_probe(probe, &ports, &field) {
                Ok(Some(target)) if !bypass.contains(target.port) => {
                    redirect(probe, &name, kind);
                    targets.insert(key(&name, kind), target);
                }
                Ok(_) => {}
                Err(problem) => problems.push(problem),
            }
        }
    }
    if problems.is_empty() {
        Ok(targets)
    } else {
        Err(problems)
    }
}

/// Takes the rewriting back.
pub(crate) fn restore(spec: &mut PodSpec, targets: &Targets) -> Vec<Invalid> {
    let mut problems = Vec::new();
    for (list, container) in serving(spec) {
        let name = container.name.clone();
        for (kind, probe) in probes(container) {
            if !probe
                .http_get
                .as_ref()
                .is_some_and(|http| is_ours(http, &name, kind))
            {
                continue;
            }
            match targets.get(&key(&name, kind)) {
                Some(target) => {
                    probe.http_get = None;
                    match target.kind {
                        ProbeKind::Http => probe.http_get = Some(http_action(target)),
                        ProbeKind::Tcp => probe.tcp_socket = Some(tcp_action(target)),
                        ProbeKind::Grpc => probe.grpc = Some(grpc_action(target)),
                    }
                }
                None => problems.push(lost(&format!("spec.{list}[{name}].{kind}Probe"))),
            }
        }
    }
    problems
}

fn lost(field: &str) -> Invalid {
    Invalid::new(
        field,
        "asks the proxy, which does not know what to call for it: write what the application is to be asked",
    )
}

/// The containers that the kubelet probes, with the name of their list.
fn serving(spec: &mut PodSpec) -> impl Iterator<Item = (&'static str, &mut Container)> {
    let init = spec.init_containers.iter_mut().flatten().filter(|c| goes_on(c));
    let init = init.map(|c| ("initContainers", c));
    init.chain(spec.containers.iter_mut().map(|c| ("containers", c)))
}

fn probes(container: &mut Container) -> impl Iterator<Item = (&'static str, &mut Probe)> {
    let all = [
        ("startup", container.startup_probe.as_mut()),
        ("readiness", container.readiness_probe.as_mut()),
        ("liveness", container.liveness_probe.as_mut()),
    ];
    all.into_iter().filter_map(|(kind, probe)| Some((kind, probe?)))
}

/// What a probe calls, when it calls the application over the network.
fn target_of_probe(probe: &Probe, ports: &NamedPorts, field: &str) -> Result<Option<Target>, Invalid> {
    let timeout = seconds(i64::from(probe.timeout_seconds.unwrap_or(1)));
    if let Some(http) = &probe.http_get {
        return http_target(http, ports, timeout, &format!("{field}.httpGet"));
    }
    if let Some(tcp) = &probe.tcp_socket {
        if elsewhere(tcp.host.as_deref()) {
            return Ok(None);
        }
        let port = ports.resolve(&tcp.port, &format!("{field}.tcpSocket.port"))?;
        return Ok(Some(target(ProbeKind::Tcp, port, timeout)));
    }
    if let Some(grpc) = &probe.grpc {
        let port = ports.resolve(&IntOrString::Int(grpc.port), &format!("{field}.grpc.port"))?;
        return Ok(Some(Target {
            service: grpc.service.clone().filter(|s| !s.is_empty()),
            ..target(ProbeKind::Grpc, port, timeout)
        }));
    }
    Ok(None)
}

fn http_target(
    http: &HTTPGetAction,
    ports: &NamedPorts,
    timeout: u32,
    field: &str,
) -> Result<Option<Target>, Invalid> {
    if elsewhere(http.host.as_deref()) {
        return Ok(None);
    }
    let port = ports.resolve(&http.port, &format!("{field}.port"))?;
    let headers = http.http_headers.iter().flatten().map(|h| Header {
        name: h.name.clone(),
        value: h.value.clone(),
    });
    Ok(Some(Target {
        scheme: Some(http.scheme.clone().unwrap_or_else(|| "HTTP".to_owned())),
        path: Some(
            http.path
                .clone()
                .filter(|p| !p.is_empty())
                .unwrap_or_else(|| "/".to_owned()),
        ),
        headers: headers.collect(),
        ..target(ProbeKind::Http, port, timeout)
    }))
}

fn target(kind: ProbeKind, port: u16, timeout_seconds: u32) -> Target {
    Target {
        kind,
        port,
        scheme: None,
        path: None,
        headers: Vec::new(),
        service: None,
        timeout_seconds,
    }
}

fn elsewhere(host: Option<&str>) -> bool {
    host.is_some_and(|host| !host.is_empty())
}

fn seconds(seconds: i64) -> u32 {
    u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)
}

/// Thresholds and times stay the user's.
fn redirect(probe: &mut Probe, container: &str, kind: &str) {
    probe.tcp_socket = None;
    probe.grpc = None;
    probe.http_get = Some(to_proxy(container, kind));
}

fn to_proxy(container: &str, kind: &str) -> HTTPGetAction {
    HTTPGetAction {
        path: Some(path(container, kind)),
        port: IntOrString::Int(ADMIN_PORT.into()),
        scheme: Some("HTTP".to_owned()),
        ..HTTPGetAction::default()
    }
}

fn is_ours(http: &HTTPGetAction, container: &str, kind: &str) -> bool {
    http.port == IntOrString::Int(ADMIN_PORT.into()) && http.path.as_deref() == Some(&path(container, kind))
}

fn key(container: &str, kind: &str) -> String {
    format!("{container}/{kind}")
}

fn path(container: &str, kind: &str) -> String {
    format!("{PROBE_PATH}{}", key(container, kind))
}

fn http_action(target: &Target) -> HTTPGetAction {
    let headers: Vec<_> = target
        .headers
        .iter()
        .map(|h| HTTPHeader {
            name: h.name.clone(),
            value: h.value.clone(),
        })
        .collect();
    HTTPGetAction {
        host: None,
        http_headers: (!headers.is_empty()).then_some(headers),
        path: target.path.clone(),
        port: IntOrString::Int(target.port.into()),
        scheme: target.scheme.clone(),
    }
}

fn tcp_action(target: &Target) -> TCPSocketAction {
    TCPSocketAction {
        host: None,
        port: IntOrString::Int(target.port.into()),
    }
}

fn grpc_action(target: &Target) -> GRPCAction {
    GRPCAction {
        port: target.port.into(),
        service: target.service.clone(),
    }
}

/// The port that a probe or hook of the container means, where there is one.
pub(crate) fn port_of(container: &Container, port: &IntOrString) -> Option<u16> {
    NamedPorts::of(container).find(port)
}

/// The ports that a container gives names to: the kubelet looks nowhere else.
struct NamedPorts(Vec<(String, i32)>);

impl NamedPorts {
    fn of(container: &Container) -> Self {
        let ports = container.ports.iter().flatten();
        Self(
            ports
                .filter_map(|p| Some((p.name.clone()?, p.container_port)))
                .collect(),
        )
    }

    fn find(&self, port: &IntOrString) -> Option<u16> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let named = self.0.iter().find(|(known, _)| known == name);
                // The kubelet also takes a number that was written as a text.
                named.map(|(_, number)| *number).or_else(|| name.parse().ok())
            }
        };
        number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
    }

    fn resolve(&self, port: &IntOrString, field: &str) -> Result<u16, Invalid> {
        self.find(port).ok_or_else(|| {
            let problem = match port {
                IntOrString::Int(number) => format!("{number} is not a port: write a number from 1 to 65535"),
                IntOrString::String(name) => format!(
                    "no port of the container is named {name:?}: name one in its ports, or write the number"
                ),
            };
            Invalid::new(field, problem)
        })
    }
}

#[cfg(test)]
mod tests;
