//! Pods: found, read, evicted, and spoken to through the API server, which works on every cluster.

use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::client::Body;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::objects::PAUSE;
use super::{Caller, Cluster, ROLLED_OUT_WITHIN, SHOWN_LINES};
use crate::lab::eventually_every;

impl Cluster {
    /// The pods that a label selector finds and that are not being deleted, in order of their names.
    pub async fn pods(&self, namespace: &str, selector: &str) -> anyhow::Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.client(), namespace);
        let found = pods.list(&ListParams::default().labels(selector)).await;
        let mut found = found
            .with_context(|| format!("pods {selector} of {namespace}"))?
            .items;
        found.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        found.sort_by_key(ResourceExt::name_any);
        Ok(found)
    }

    /// One pod that a label selector finds; an error when there is none.
    pub async fn pod(&self, namespace: &str, selector: &str) -> anyhow::Result<String> {
        let pods = self.pods(namespace, selector).await?;
        let pod = pods
            .first()
            .with_context(|| format!("namespace {namespace} has no pod {selector}"))?;
        Ok(pod.name_any())
    }

    /// Returns when a pod's containers have all ended well, as those of a Job do, or with how they ended.
    pub async fn wait_succeeded(&self, namespace: &str, pod: &str, within: Duration) -> anyhow::Result<()> {
        let pods = Api::<Pod>::namespaced(self.client(), namespace);
        eventually_every(
            PAUSE,
            within,
            &format!("pod {namespace}/{pod} succeeds"),
            async || match phase(&pods.get(pod).await?).as_str() {
                "Succeeded" => Ok(()),
                phase => bail!("its phase is {phase}"),
            },
        )
        .await
    }

    /// Deletes a pod and returns at once.
    pub async fn delete_pod(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let pods = Api::<Pod>::namespaced(self.client(), namespace);
        pods.delete(pod, &DeleteParams::default())
            .await
            .map(drop)
            .with_context(|| format!("pod {namespace}/{pod}"))
    }

    /// Returns when a pod is gone.
    pub async fn wait_gone(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let pods = Api::<Pod>::namespaced(self.client(), namespace);
        eventually_every(
            PAUSE,
            ROLLED_OUT_WITHIN,
            &format!("pod {namespace}/{pod} is gone"),
            async || match pods.get_opt(pod).await? {
                None => Ok(()),
                Some(pod) => bail!("its phase is {}", phase(&pod)),
            },
        )
        .await
    }

    /// Evicts a pod, as `kubectl drain` does with all pods of a node, and waits until its disruption budget allows it.
    pub async fn drain(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        // policy/v1 came with 1.22, its forerunner went with 1.25.
        let version = if self.version() < (1, 22) {
            "policy/v1beta1"
        } else {
            "policy/v1"
        };
        let metadata = json!({"name": pod, "namespace": namespace});
        let body = json!({"apiVersion": version, "kind": "Eviction", "metadata": metadata}).to_string();
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
        eventually_every(
            PAUSE,
            ROLLED_OUT_WITHIN,
            &format!("pod {namespace}/{pod} is evicted"),
            async || {
                let request = http::Request::post(&path).header("content-type", "application/json");
                let answer = self
                    .client
                    .request_text(request.body(body.clone().into_bytes())?)
                    .await;
                answer.map(drop).context("the server refuses")
            },
        )
        .await
    }

    /// All that a container has written; `previous` is the one before its last restart.
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> anyhow::Result<String> {
        let pods = Api::<Pod>::namespaced(self.client(), namespace);
        let params = LogParams {
            container: Some(container.to_owned()),
            previous,
            ..LogParams::default()
        };
        pods.logs(pod, &params)
            .await
            .with_context(|| format!("logs of {namespace}/{pod} {container}"))
    }

    /// Runs a program in a container and returns what it prints. An error when it fails.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[&str],
    ) -> anyhow::Result<String> {
        let mut arguments = vec![
            "exec",
            "--namespace",
            namespace,
            pod,
            "--container",
            container,
            "--",
        ];
        arguments.extend(command);
        self.kubectl(&arguments).await
    }

    /// GETs `path` of a pod's port through the API server; anything but success is an error.
    ///
    /// The connection comes from the API server, so a mesh that demands mutual TLS refuses it on intercepted ports.
    pub async fn get(&self, namespace: &str, pod: &str, port: u16, path: &str) -> anyhow::Result<String> {
        self.request("GET", namespace, pod, port, path, String::new())
            .await
    }

    pub(super) async fn request(
        &self,
        method: &str,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
        body: String,
    ) -> anyhow::Result<String> {
        let path = path.trim_start_matches('/');
        let place = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}");
        let request = http::Request::builder().method(method).uri(&place);
        let what = || format!("{method} {place}");
        let answer = self
            .client
            .send(request.body(Body::from(body.into_bytes()))?)
            .await
            .with_context(what)?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await.with_context(what)?.to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if !status.is_success() {
            bail!("{}: {status}: {}", what(), text.trim());
        }
        Ok(text)
    }

    /// The caller that runs in a pod (see [`manifests::caller`](super::manifests::caller)).
    pub fn caller<'a>(&'a self, namespace: &str, pod: &str) -> Caller<'a> {
        Caller::new(self, namespace, pod)
    }

    /// The memory that a container has in use, in bytes, as its kubelet measures it every ten seconds or so.
    pub async fn memory(&self, namespace: &str, pod: &str, container: &str) -> anyhow::Result<u64> {
        let pods = Api::<Pod>::namespaced(self.client(), namespace);
        let node = pods
            .get(pod)
            .await?
            .spec
            .and_then(|spec| spec.node_name)
            .context("the pod has no node yet")?;
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let stats: serde_json::Value = self
            .client
            .request(http::Request::get(path).body(Vec::new())?)
            .await?;
        let named = |list: &serde_json::Value, wanted: &dyn Fn(&serde_json::Value) -> bool| {
            list.as_array()
                .into_iter()
                .flatten()
                .find(|one| wanted(one))
                .cloned()
        };
        let found = named(&stats["pods"], &|one| {
            one["podRef"]["name"] == pod && one["podRef"]["namespace"] == namespace
        });
        let found = found.and_then(|found| named(&found["containers"], &|one| one["name"] == container));
        found
            .and_then(|found| found["memory"]["workingSetBytes"].as_u64())
            .with_context(|| format!("{node} has not measured {namespace}/{pod} {container} yet"))
    }

    /// The last lines of every container that is not ready.
    pub(super) async fn logs_of_unready(&self) -> String {
        let Ok(pods) = Api::<Pod>::all(self.client()).list(&ListParams::default()).await else {
            return String::new();
        };
        let mut text = String::new();
        for pod in pods.items {
            let Some(status) = &pod.status else { continue };
            let lists = [&status.init_container_statuses, &status.container_statuses];
            for container in lists.into_iter().flatten().flatten() {
                let ended_well = container
                    .state
                    .as_ref()
                    .and_then(|state| state.terminated.as_ref());
                if container.ready || ended_well.is_some_and(|ended| ended.exit_code == 0) {
                    continue;
                }
                let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
                let mut logs = String::new();
                for previous in [true, false] {
                    logs += &self
                        .logs(&namespace, &name, &container.name, previous)
                        .await
                        .unwrap_or_default();
                }
                let lines: Vec<&str> = logs.lines().collect();
                let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
                text += &format!("--- {namespace}/{name} {}\n{shown}\n", container.name);
            }
        }
        text
    }
}

fn phase(pod: &Pod) -> String {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.clone())
        .unwrap_or_else(|| "unknown".to_owned())
}
