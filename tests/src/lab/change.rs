//! Changes to a running lab: the user's manifests, endpoints that come and go, pods that start and end.
//!
//! Each does what the part of Kubernetes does that the lab stands in for, and in the same order. What a change means
//! for proxies is the operator's business; nothing here talks to them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use super::manifests::{EndpointState, PodFacts, endpoint_slice, families, file_name, pod as pod_object};
use super::pod::Pod;
use super::process::{Process, Signal};
use super::spec::PodSpec;
use super::{Lab, Member, Service, lock};

/// How long a pod may take to shut down, as Kubernetes' default says.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(30);

impl Lab {
    /// Writes or replaces a manifest of the user's.
    pub fn apply(&self, name: &str, yaml: &str) -> anyhow::Result<()> {
        self.folder.write(&format!("user-{name}"), yaml)
    }

    /// Deletes a manifest of the user's.
    pub fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.folder.delete(&format!("user-{name}"))
    }

    /// The file of a manifest of the user's.
    pub fn manifest_path(&self, name: &str) -> anyhow::Result<std::path::PathBuf> {
        self.folder.path(&format!("user-{name}"))
    }

    /// Says in the endpoint slices that a pod is ready, or not.
    pub fn endpoint_ready(&self, pod: &str, ready: bool) -> anyhow::Result<()> {
        self.set_endpoint(
            pod,
            Some(EndpointState {
                ready,
                terminating: false,
            }),
        )
    }

    /// Says in the endpoint slices that a pod is shutting down.
    pub fn endpoint_terminating(&self, pod: &str) -> anyhow::Result<()> {
        self.set_endpoint(
            pod,
            Some(EndpointState {
                ready: true,
                terminating: true,
            }),
        )
    }

    /// Takes a pod out of the endpoint slices. The pod goes on.
    pub fn remove_endpoint(&self, pod: &str) -> anyhow::Result<()> {
        self.set_endpoint(pod, None)
    }

    /// Starts more pods of a service's version and publishes their endpoints. Returns their names, which no pod of
    /// this lab had before.
    pub async fn add_pods(&self, service: &str, version: &str, count: usize) -> anyhow::Result<Vec<String>> {
        let spec = self.service(service).spec;
        let workload = spec.workloads.iter().find(|workload| workload.version == version);
        let workload = workload.with_context(|| format!("service {service} has no version {version}"))?;
        let mut started = Vec::new();
        for index in 0.. {
            let pod = spec.pod(workload, index);
            if started.len() == count {
                break;
            }
            if !lock(&self.used_names).contains(&pod.name) {
                started.push(pod.name.clone());
                self.launch(Some(service.to_owned()), pod).await?;
            }
        }
        self.publish(service)?;
        Ok(started)
    }

    /// Starts another pod.
    pub async fn add_pod(&self, spec: PodSpec) -> anyhow::Result<Pod> {
        let name = spec.name.clone();
        if lock(&self.used_names).contains(&name) {
            bail!("this lab has or had a pod {name} already");
        }
        self.launch(None, spec).await?;
        Ok(self.pod(&name))
    }

    /// Ends a pod as Kubernetes does: its endpoint terminates, its programs get SIGTERM, then it is gone.
    pub async fn remove_pod(&self, name: &str) -> anyhow::Result<()> {
        let member = self.member(name);
        if member.service.is_some() {
            self.endpoint_terminating(name)?;
        }
        let apps = lock(&member.apps).clone();
        let proxy = member.proxy.as_ref().and_then(|proxy| proxy.process().ok());
        let running: Vec<Arc<Process>> = apps
            .into_iter()
            .chain(proxy)
            .filter(|process| process.ended().is_none())
            .collect();
        for process in &running {
            process.signal(Signal::SIGTERM)?;
        }
        for process in running {
            process.wait(SHUTDOWN_WITHIN).await?;
        }
        self.forget(name)
    }

    /// Ends a pod without warning, as a failing node does. Its endpoint is taken out only afterwards.
    pub fn kill_pod(&self, name: &str) -> anyhow::Result<()> {
        let member = self.member(name);
        if let Some(proxy) = &member.proxy {
            proxy.kill();
        }
        lock(&member.apps).iter().for_each(|app| app.kill());
        self.forget(name)
    }

    /// The programs of a pod: `http`, `grpc`, `tcp` by their control; use [`proxy`](Lab::proxy) for the proxy.
    pub fn kill_apps(&self, pod: &str) {
        lock(&self.member(pod).apps).iter().for_each(|app| app.kill());
    }

    /// Says in a pod's status that its application has ended and will not run again, as a Job's does.
    pub fn finish(&self, pod: &str) -> anyhow::Result<()> {
        let member = self.member(pod);
        let facts = {
            let mut facts = lock(&member.facts);
            facts.finished = true;
            facts.clone()
        };
        self.write_pod(&facts)
    }

    /// Writes a service's endpoint slices.
    pub(super) fn publish(&self, service: &str) -> anyhow::Result<()> {
        let Service { spec, .. } = self.service(service);
        let members: Vec<Arc<Member>> = lock(&self.members).values().cloned().collect();
        let of = members
            .iter()
            .filter(|member| member.service.as_deref() == Some(service));
        let facts: Vec<PodFacts> = of.map(|member| lock(&member.facts).clone()).collect();
        for family in families(&spec) {
            let slice = endpoint_slice(&spec, *family, facts.iter());
            let kind = format!("endpoints-{}", family.name().to_ascii_lowercase());
            self.folder
                .write_json(&file_name(&kind, &spec.namespace, &spec.name), &slice)?;
        }
        Ok(())
    }

    pub(super) fn publish_all(&self) -> anyhow::Result<()> {
        let names: Vec<String> = lock(&self.services).keys().cloned().collect();
        names.iter().try_for_each(|name| self.publish(name))
    }

    fn set_endpoint(&self, pod: &str, endpoint: Option<EndpointState>) -> anyhow::Result<()> {
        let member = self.member(pod);
        let service = member
            .service
            .as_ref()
            .with_context(|| format!("pod {pod} belongs to no service"))?;
        let facts = {
            let mut facts = lock(&member.facts);
            facts.endpoint = endpoint;
            facts.clone()
        };
        self.write_pod(&facts)?;
        self.publish(service)
    }

    pub(super) fn write_pod(&self, facts: &PodFacts) -> anyhow::Result<()> {
        let file = file_name("pod", &facts.identity.namespace, &facts.identity.name);
        self.folder.write_json(&file, &pod_object(facts))
    }

    fn forget(&self, name: &str) -> anyhow::Result<()> {
        let Some(member) = lock(&self.members).remove(name) else {
            return Ok(());
        };
        if let Some(service) = &member.service {
            self.publish(service)?;
        }
        self.names.remove(name, member.pod.namespace());
        self.folder
            .delete(&file_name("pod", member.pod.namespace(), name))
    }
}
