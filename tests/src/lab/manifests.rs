//! The folder of Kubernetes objects that the lab's operator watches, and what the lab itself writes into it.
//!
//! The lab plays the part of kubelet and endpoint controller: it writes its pods, services and endpoint slices. JSON
//! is YAML, so objects are built as JSON values. A file is always replaced as a whole.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::pod::PodIdentity;
use super::spec::{PortSpec, ServiceSpec};

/// The label that tells the operator which pods have a proxy.
pub const INJECTED: &str = "hauberk.dev/injected";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What an endpoint slice says about a pod.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EndpointState {
    /// New traffic may go there.
    pub ready: bool,
    /// It is shutting down.
    pub terminating: bool,
}

/// A pod as the manifests describe it.
#[derive(Clone, Debug)]
pub(super) struct PodFacts {
    pub(super) identity: PodIdentity,
    pub(super) ips: Vec<IpAddr>,
    pub(super) zone: Option<String>,
    pub(super) meshed: bool,
    pub(super) ports: Vec<PortSpec>,
    /// Its place in its service's endpoint slices; nothing when it is not listed there.
    pub(super) endpoint: Option<EndpointState>,
    /// Its application has ended, as that of a Job does.
    pub(super) finished: bool,
}

/// The watched folder.
#[derive(Debug)]
pub(super) struct Folder {
    config: PathBuf,
    staging: PathBuf,
}

impl Folder {
    pub(super) fn create(config: PathBuf, staging: PathBuf) -> anyhow::Result<Folder> {
        for folder in [&config, &staging] {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(Folder { config, staging })
    }

    /// Writes `name`.yaml in one step: a watcher sees the old file or the new one.
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let target = self.path(name)?;
        // Not in the watched folder, and on the same file system, so that the rename is atomic.
        let staged = self.staging.join(format!("{name}.yaml"));
        std::fs::write(&staged, text).with_context(|| format!("cannot write {}", staged.display()))?;
        std::fs::rename(&staged, &target).with_context(|| format!("cannot replace {}", target.display()))
    }

    pub(super) fn write_json(&self, name: &str, object: &Value) -> anyhow::Result<()> {
        self.write(name, &format!("{object:#}\n"))
    }

    pub(super) fn delete(&self, name: &str) -> anyhow::Result<()> {
        let target = self.path(name)?;
        std::fs::remove_file(&target).with_context(|| format!("there is no manifest {name} to delete"))
    }

    pub(super) fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            bail!("{name:?} is not a manifest name: use letters, digits, dots and dashes");
        }
        Ok(self.config.join(format!("{name}.yaml")))
    }
}

/// The v1 Pod.
pub(super) fn pod(facts: &PodFacts) -> Value {
    let PodIdentity {
        name,
        namespace,
        service_account,
        labels,
        annotations,
    } = &facts.identity;
    let mut labels = labels.clone();
    if facts.meshed {
        labels.insert(INJECTED.to_owned(), "true".to_owned());
    }
    if let Some(zone) = &facts.zone {
        labels.insert(ZONE.to_owned(), zone.clone());
    }
    let ready = facts.endpoint.is_none_or(|endpoint| endpoint.ready);
    let ports: Vec<Value> = facts
        .ports
        .iter()
        .map(|port| json!({"containerPort": port.target}))
        .collect();
    let ips: Vec<Value> = facts.ips.iter().map(|ip| json!({"ip": ip})).collect();
    let mut metadata = json!({
        "name": name, "namespace": namespace, "uid": format!("uid-{namespace}-{name}"),
        "labels": labels, "annotations": annotations,
    });
    if facts.endpoint.is_some_and(|endpoint| endpoint.terminating) {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {
            "serviceAccountName": service_account,
            "nodeName": "lab",
            "containers": [{"name": "app", "image": "hauberk-testapp", "ports": ports}],
        },
        "status": {
            "phase": "Running",
            "podIP": facts.ips.first(),
            "podIPs": ips,
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    });
    if facts.finished {
        let state = json!({"terminated": {"exitCode": 0}});
        object["spec"]["restartPolicy"] = json!("Never");
        object["spec"]["containers"] = json!([{"name": "hauberk-proxy"}, {"name": "app"}]);
        object["status"]["containerStatuses"] = json!([
            {"name": "hauberk-proxy", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state},
        ]);
    }
    object
}

/// The v1 Service. Without addresses it is headless.
pub(super) fn service(spec: &ServiceSpec, addresses: &[IpAddr]) -> Value {
    let ports: Vec<Value> = spec
        .ports
        .iter()
        .map(|port| {
            let mut entry = json!({
                "name": port.name, "port": port.port, "targetPort": port.target, "protocol": "TCP",
            });
            if let Some(protocol) = &port.app_protocol {
                entry["appProtocol"] = json!(protocol);
            }
            entry
        })
        .collect();
    let cluster_ips = match addresses {
        [] => json!(["None"]),
        some => json!(some),
    };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "annotations": spec.annotations},
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_ips[0], "clusterIPs": cluster_ips,
            "ipFamilies": families(spec).iter().map(|family| family.name()).collect::<Vec<_>>(),
            "selector": {"app": spec.name},
            "ports": ports,
        },
    })
}

/// The address families of a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn has(self, ip: IpAddr) -> bool {
        match self {
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        }
    }
}

pub(super) fn families(spec: &ServiceSpec) -> &'static [Family] {
    if spec.dual_stack {
        &[Family::V4, Family::V6]
    } else {
        &[Family::V4]
    }
}

/// The discovery.k8s.io/v1 EndpointSlice of a service in one address family.
pub(super) fn endpoint_slice<'a>(
    spec: &ServiceSpec,
    family: Family,
    pods: impl Iterator<Item = &'a PodFacts>,
) -> Value {
    let endpoints: Vec<Value> = pods.filter_map(|pod| endpoint(pod, family)).collect();
    let ports: Vec<Value> = spec
        .ports
        .iter()
        .map(|port| {
            let mut entry = json!({"name": port.name, "port": port.target, "protocol": "TCP"});
            if let Some(protocol) = &port.app_protocol {
                entry["appProtocol"] = json!(protocol);
            }
            entry
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-{}", spec.name, family.name().to_ascii_lowercase()),
            "namespace": spec.namespace,
            "labels": {
                "kubernetes.io/service-name": spec.name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": family.name(),
        "endpoints": endpoints,
        "ports": ports,
    })
}

fn endpoint(pod: &PodFacts, family: Family) -> Option<Value> {
    let EndpointState { ready, terminating } = pod.endpoint?;
    let address = pod.ips.iter().find(|ip| family.has(**ip))?;
    let mut entry = json!({
        "addresses": [address],
        "conditions": {"ready": ready && !terminating, "serving": ready, "terminating": terminating},
        "nodeName": "lab",
        "targetRef": {"kind": "Pod", "name": pod.identity.name, "namespace": pod.identity.namespace},
    });
    if let Some(zone) = &pod.zone {
        entry["zone"] = json!(zone);
    }
    Some(entry)
}

/// Checks that labels, names and the like are what Kubernetes would take, before they reach the operator.
pub(super) fn check_name(kind: &str, name: &str) -> anyhow::Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(good) || name.starts_with('-') {
        bail!("{kind} {name:?}: use lower case letters, digits and dashes, 63 at most");
    }
    Ok(())
}

/// File names of the lab's own objects.
pub(super) fn file_name(kind: &str, namespace: &str, name: &str) -> String {
    format!("lab-{kind}-{namespace}-{name}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn facts(endpoint: Option<EndpointState>) -> PodFacts {
        PodFacts {
            identity: PodIdentity {
                name: "reviews-v1-0".to_owned(),
                namespace: "shop".to_owned(),
                service_account: "reviews".to_owned(),
                labels: BTreeMap::from([("app".to_owned(), "reviews".to_owned())]),
                annotations: BTreeMap::new(),
            },
            ips: vec!["10.77.1.1".parse().unwrap(), "fd77::1:1".parse().unwrap()],
            zone: Some("a".to_owned()),
            meshed: true,
            ports: vec![PortSpec::http(8080)],
            endpoint,
            finished: false,
        }
    }

    #[test]
    fn a_meshed_pod_is_labelled_and_shows_its_addresses_and_readiness() {
        let ready = pod(&facts(Some(EndpointState {
            ready: true,
            terminating: false,
        })));
        assert_eq!(ready["metadata"]["labels"][INJECTED], "true");
        assert_eq!(ready["metadata"]["labels"][ZONE], "a");
        assert_eq!(ready["spec"]["serviceAccountName"], "reviews");
        assert_eq!(
            ready["status"]["podIPs"],
            json!([{"ip": "10.77.1.1"}, {"ip": "fd77::1:1"}])
        );
        assert_eq!(ready["status"]["conditions"][0]["status"], "True");
        let starting = pod(&facts(Some(EndpointState::default())));
        assert_eq!(starting["status"]["conditions"][0]["status"], "False");
    }

    #[test]
    fn a_slice_lists_one_address_of_its_family_and_leaves_out_unlisted_pods() {
        let spec = ServiceSpec::new("reviews").port(PortSpec::http(80).target(8080));
        let listed = facts(Some(EndpointState {
            ready: true,
            terminating: false,
        }));
        let leaving = facts(Some(EndpointState {
            ready: true,
            terminating: true,
        }));
        let unlisted = facts(None);
        let slice = endpoint_slice(&spec, Family::V4, [&listed, &leaving, &unlisted].into_iter());
        let endpoints = slice["endpoints"].as_array().unwrap();
        assert_eq!(endpoints.len(), 2);
        assert_eq!(endpoints[0]["addresses"], json!(["10.77.1.1"]));
        assert_eq!(endpoints[0]["zone"], "a");
        assert_eq!(
            endpoints[1]["conditions"],
            json!({"ready": false, "serving": true, "terminating": true})
        );
        assert_eq!(slice["ports"][0]["port"], 8080);
        let v6 = endpoint_slice(&spec, Family::V6, std::iter::once(&listed));
        assert_eq!(v6["endpoints"][0]["addresses"], json!(["fd77::1:1"]));
    }

    #[test]
    fn a_service_without_an_address_is_headless() {
        let spec = ServiceSpec::http("reviews").headless();
        assert_eq!(service(&spec, &[])["spec"]["clusterIP"], "None");
        let address: IpAddr = "10.96.0.10".parse().unwrap();
        assert_eq!(
            service(&spec, &[address])["spec"]["clusterIPs"],
            json!(["10.96.0.10"])
        );
    }

    #[test]
    fn files_are_replaced_whole_and_odd_names_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::create(temp.path().join("config"), temp.path().join("staging")).unwrap();
        folder.write("route", "a: 1\n").unwrap();
        folder.write("route", "a: 2\n").unwrap();
        assert_eq!(
            std::fs::read_to_string(temp.path().join("config/route.yaml")).unwrap(),
            "a: 2\n"
        );
        assert_eq!(std::fs::read_dir(temp.path().join("staging")).unwrap().count(), 0);
        folder.delete("route").unwrap();
        assert!(folder.delete("route").is_err());
        for name in ["", "../x", ".hidden"] {
            assert!(folder.write(name, "").is_err(), "{name:?}");
        }
    }

    #[test]
    fn names_that_kubernetes_would_refuse_are_refused() {
        assert!(check_name("service", "reviews-v2").is_ok());
        for name in ["", "Reviews", "a_b", "-a", &"x".repeat(64)] {
            assert!(check_name("service", name).is_err(), "{name:?}");
        }
    }
}
