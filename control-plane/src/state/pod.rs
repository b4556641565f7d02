//! A pod, with what routing needs of it. Made from the Kubernetes object by `World::apply`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use api::names::{INJECTED_LABEL, PROXY_CONTAINER};
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
    /// Its node; empty until it has one.
    pub node: String,
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
    /// Every container but the proxy's has ended and none will run again: only the proxy keeps the pod from ending.
    pub finished: bool,
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
            node: spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
            addresses: if on_host || ended {
                Vec::new()
            } else {
                addresses(status)
            },
            weight: *weight.as_ref().unwrap_or(&NonZeroU32::MIN),
            problem: weight.err(),
            named_ports: spec.map(named_ports).unwrap_or_default(),
            finished: finished(spec, status),
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

/// Whether the pod waits for its proxy alone, as a Job's does. Where the proxy is an init container that restarts, the
/// kubelet ends it by itself, and this stays false.
fn finished(spec: Option<&core::PodSpec>, status: Option<&core::PodStatus>) -> bool {
    let Some(spec) = spec else { return false };
    let (proxy, others): (Vec<_>, Vec<_>) = spec.containers.iter().partition(|c| c.name == PROXY_CONTAINER);
    if proxy.is_empty() || others.is_empty() {
        return false;
    }
    let statuses = status
        .and_then(|s| s.container_statuses.as_deref())
        .unwrap_or_default();
    others.iter().all(|container| {
        let status = statuses.iter().find(|s| s.name == container.name);
        let ended = status.and_then(|s| s.state.as_ref()?.terminated.as_ref());
        ended.is_some_and(|ended| match spec.restart_policy.as_deref() {
            Some("Never") => true,
            Some("OnFailure") => ended.exit_code == 0,
            // Always, which is what the server fills in: it runs again.
            Some(_) | None => false,
        })
    })
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
    fn a_pod_is_finished_when_only_its_proxy_can_still_run() {
        const RUNS: &str = "running: {}";
        const WELL: &str = "terminated: {exitCode: 0}";
        const FAILED: &str = "terminated: {exitCode: 3}";
        // Policy, states of `app` and `more`, and what they mean.
        let cases = [
            ("Never", WELL, WELL, true),
            ("Never", FAILED, WELL, true),
            ("Never", WELL, RUNS, false),
            ("OnFailure", WELL, WELL, true),
            ("OnFailure", WELL, FAILED, false),
            ("OnFailure", WELL, "waiting: {reason: CrashLoopBackOff}", false),
            ("Always", WELL, WELL, false),
        ];
        for (policy, app, more, expected) in cases {
            let pod = read(&format!(
                "
                metadata: {{name: p, labels: {{hauberk.dev/injected: 'true'}}}}
                spec: {{restartPolicy: {policy}, containers: [{{name: hauberk-proxy}}, {{name: app}}, {{name: more}}]}}
                status:
                  containerStatuses:
                  - {{name: more, image: m, imageID: m, ready: false, restartCount: 0, state: {{{more}}}}}
                  - {{name: hauberk-proxy, image: p, imageID: p, ready: true, restartCount: 0, state: {{{RUNS}}}}}
                  - {{name: app, image: a, imageID: a, ready: false, restartCount: 0, state: {{{app}}}}}
                "
            ));
            assert_eq!(pod.finished, expected, "{policy}: {app}, {more}");
        }
    }

    #[test]
    fn a_pod_whose_proxy_needs_no_word_or_whose_state_is_unknown_is_not_finished() {
        let status = "status: {containerStatuses: [{name: app, image: a, imageID: a, ready: false, restartCount: 0, \
                      state: {terminated: {exitCode: 0}}}]}";
        for spec in [
            // The kubelet ends it.
            "{restartPolicy: Never, initContainers: [{name: hauberk-proxy, restartPolicy: Always}], containers: [{name: app}]}",
            "{restartPolicy: Never, containers: [{name: hauberk-proxy}]}",
            "{restartPolicy: Never, containers: [{name: hauberk-proxy}, {name: app}, {name: not-started}]}",
            "{containers: [{name: hauberk-proxy}, {name: app}]}",
        ] {
            let pod = read(&format!("metadata: {{name: p}}\nspec: {spec}\n{status}\n"));
            assert!(!pod.finished, "{spec}");
        }
        let pod = read(
            "{metadata: {name: p}, spec: {restartPolicy: Never, containers: [{name: hauberk-proxy}, {name: app}]}}",
        );
        assert!(!pod.finished);
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
