//! Objects that tests on a cluster deploy: the test application in versions, callers, Services. Pure.
//!
//! Every pod satisfies the restricted Pod Security standard by itself, so that a test sees what injection adds to it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Images;
use crate::app::CONTROL_PORT;
use crate::caller::CALLER_PORT;

/// The port on which the test application serves.
pub const APP_PORT: u16 = 8080;

/// A Deployment of the test application. Its name is its service's, with the version behind it if there is one.
#[derive(Clone, Debug)]
pub struct Workload {
    namespace: String,
    name: String,
    app: String,
    replicas: u32,
    arguments: Vec<String>,
    port: u16,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// One version of a service, with one pod.
pub fn application(namespace: &str, service: &str, version: &str) -> Workload {
    let arguments = [
        "http",
        "--service",
        service,
        "--version",
        version,
        "--pod",
        "$(POD_NAME)",
        "--port",
        &APP_PORT.to_string(),
        "--control-port",
        &CONTROL_PORT.to_string(),
    ];
    let name = format!("{service}-{version}");
    Workload::new(namespace, &name, service, &arguments, APP_PORT).label("version", version)
}

/// A pod that makes calls and loads when asked ([`Cluster::caller`](super::Cluster::caller)). In the mesh, its proxy leaves
/// the port alone on which it is asked.
pub fn caller(namespace: &str, name: &str) -> Workload {
    let arguments = ["caller", "--port", &CALLER_PORT.to_string()];
    Workload::new(namespace, name, name, &arguments, CALLER_PORT)
        .annotation("hauberk.dev/skip-inbound-ports", &CALLER_PORT.to_string())
}

/// A Service whose port 8080, of the name `http`, leads to all versions of an application.
pub fn service(namespace: &str, name: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": APP_PORT, "targetPort": APP_PORT, "protocol": "TCP"}],
        },
    })
    .to_string()
}

impl Workload {
    fn new(namespace: &str, name: &str, app: &str, arguments: &[&str], port: u16) -> Workload {
        Workload {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            app: app.to_owned(),
            replicas: 1,
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            port,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// The Deployment's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has this many pods.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Workload {
        self.replicas = replicas;
        self
    }

    /// Gives its pods a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Workload {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Gives its pods an annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Workload {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The Deployment, for [`Cluster::apply`](super::Cluster::apply).
    pub fn deployment(&self, images: &Images) -> String {
        let mut labels = self.labels.clone();
        labels.insert("app".to_owned(), self.app.clone());
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels, "annotations": self.annotations},
                    "spec": self.pod(images),
                },
            },
        })
        .to_string()
    }

    fn pod(&self, images: &Images) -> Value {
        json!({
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "app",
                "image": images.testapp,
                "imagePullPolicy": "IfNotPresent",
                "args": self.arguments,
                "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "ports": [{"containerPort": self.port, "protocol": "TCP"}],
                "readinessProbe": {"httpGet": {"port": self.port, "path": "/"}, "periodSeconds": 1},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;

    use super::*;

    #[test]
    fn a_version_is_a_deployment_whose_pods_its_service_selects() {
        let text = application("shop", "reviews", "v2")
            .replicas(3)
            .deployment(&Images::local());
        let deployment: Deployment = serde_json::from_str(&text).unwrap();
        let spec = deployment.spec.unwrap();
        assert_eq!(deployment.metadata.name.as_deref(), Some("reviews-v2"));
        assert_eq!(spec.replicas, Some(3));
        let labels = spec.template.metadata.unwrap().labels.unwrap();
        let service: Value = serde_json::from_str(&service("shop", "reviews")).unwrap();
        assert_eq!(service["spec"]["selector"]["app"], labels["app"].as_str());
        assert_eq!(spec.selector.match_labels, Some(labels));
    }
}
