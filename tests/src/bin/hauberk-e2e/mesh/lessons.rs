//! What hurts users of meshes in clusters and has no trial of its own elsewhere.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use tests::cluster::Cluster;
use tests::lab::eventually_every;

use super::SOON;
use super::shop::{self, SHOP};
use super::tools::{OPERATOR, OPERATORS, SYSTEM, get, refused};

const PAUSE: Duration = Duration::from_millis(250);

/// Dialling a pod's own address reaches that pod, with mutual TLS: STRICT holds in the namespace.
pub(super) async fn stateful_set(cluster: &'static Cluster) -> anyhow::Result<()> {
    let image = &cluster.images().testapp;
    let manifest = format!(
        r"
apiVersion: v1
kind: Service
metadata: {{ name: ledger, namespace: {SHOP} }}
spec: {{ clusterIP: None, selector: {{ app: ledger }}, ports: [{{ name: http, port: 8080, protocol: TCP }}] }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{ name: ledger, namespace: {SHOP} }}
spec:
  serviceName: ledger
  replicas: 2
  podManagementPolicy: Parallel
  selector: {{ matchLabels: {{ app: ledger }} }}
  template:
    metadata: {{ labels: {{ app: ledger }} }}
    spec:
      containers:
        - name: app
          image: {image}
          imagePullPolicy: IfNotPresent
          args: [http, --port, '8080', --service, ledger, --pod, $(POD)]
          env: [{{ name: POD, valueFrom: {{ fieldRef: {{ fieldPath: metadata.name }} }} }}]
          readinessProbe: {{ tcpSocket: {{ port: 8080 }}, periodSeconds: 1 }}
"
    );
    cluster.apply(&manifest).await?;
    let web = shop::web(cluster).await?;
    for number in 0..2 {
        let url = format!("http://ledger-{number}.ledger:8080/");
        shop::answers(&web, &url, "the pod that was named answers", |answer| {
            answer.header("x-app-pod") == format!("ledger-{number}") && answer.body.contains("x-hauberk-peer")
        })
        .await?;
    }
    Ok(())
}

/// Without an operator the system's pods and the operator itself start; where injection is on, a pod is rather not created
/// than created without mutual TLS.
pub(super) async fn no_deadlock(cluster: &'static Cluster) -> anyhow::Result<()> {
    let operators = cluster.pods(SYSTEM, OPERATORS).await?;
    cluster.scale(SYSTEM, OPERATOR, 0).await?;
    for name in operators.into_iter().filter_map(|pod| pod.metadata.name) {
        cluster.wait_gone(SYSTEM, &name).await?;
    }
    let image = &cluster.images().testapp;
    let pod = |namespace: &str| {
        format!(
            r"
apiVersion: v1
kind: Pod
metadata: {{ name: unhindered, namespace: {namespace} }}
spec: {{ containers: [{{ name: app, image: {image}, imagePullPolicy: IfNotPresent, args: [pause] }}] }}
"
        )
    };
    for namespace in ["kube-system", SYSTEM, shop::OUTSIDE] {
        cluster
            .apply(&pod(namespace))
            .await
            .with_context(|| format!("a pod of {namespace}"))?;
        cluster.delete_pod(namespace, "unhindered").await?;
    }
    println!("      {}", refused(cluster, &pod(SHOP)).await?);
    cluster.scale(SYSTEM, OPERATOR, 2).await?;
    eventually_every(PAUSE, SOON, "pods are created again", async || {
        cluster.apply(&pod(SHOP)).await
    })
    .await?;
    cluster.delete_pod(SHOP, "unhindered").await
}

/// Both roots are trusted while one replaces the other.
pub(super) async fn root_rotation(cluster: &'static Cluster) -> anyhow::Result<()> {
    let load = shop::load(cluster).await?;
    let before = bundle(cluster).await?;
    println!("      {}", rotate(cluster).await?.trim());
    eventually_every(PAUSE, SOON, "two roots are trusted", async || {
        let both = bundle(cluster).await?;
        ensure!(
            both.contains(before.trim()) && roots(&both) == 2,
            "{} roots",
            roots(&both)
        );
        Ok(())
    })
    .await?;
    println!("      {}", rotate(cluster).await?.trim());
    // What starts now gets a certificate of the new root, and talks with those that have one of the old.
    cluster.restart(SHOP, "reviews-v1").await?;
    cluster.restart(SHOP, "reviews-v2").await?;
    shop::no_failure(&load).await
}

async fn rotate(cluster: &Cluster) -> anyhow::Result<String> {
    let pods = cluster.pods(SYSTEM, OPERATORS).await?;
    let name = pods
        .first()
        .and_then(|pod| pod.metadata.name.clone())
        .context("no operator")?;
    let command = ["/hauberk-control-plane", "rotate-root", "--source", "kubernetes"];
    cluster.exec(SYSTEM, &name, "control-plane", &command).await
}

async fn bundle(cluster: &Cluster) -> anyhow::Result<String> {
    let map = get(
        cluster,
        &format!("/api/v1/namespaces/{SHOP}/configmaps/hauberk-trust-bundle"),
    )
    .await?;
    map["data"]["roots.pem"]
        .as_str()
        .map(str::to_owned)
        .context("no roots.pem")
}

fn roots(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

/// Printed for the record; the bound is what the chart allows.
pub(super) async fn memory(cluster: &'static Cluster) -> anyhow::Result<()> {
    for (namespace, labels, container) in [
        (SYSTEM, OPERATORS, "control-plane"),
        (SHOP, "app=reviews", "hauberk-proxy"),
        (SHOP, "app=web", "hauberk-proxy"),
    ] {
        for pod in cluster.pods(namespace, labels).await? {
            let name = pod.metadata.name.context("a pod without a name")?;
            let bytes = eventually_every(Duration::from_secs(1), SOON, "memory is measured", async || {
                cluster.memory(namespace, &name, container).await
            })
            .await?;
            println!(
                "      {name} {container}: {:.1} MiB",
                bytes as f64 / f64::from(1 << 20)
            );
            ensure!(bytes < 256 << 20, "{bytes} bytes");
        }
    }
    Ok(())
}
