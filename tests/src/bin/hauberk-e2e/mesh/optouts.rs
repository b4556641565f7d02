//! What is left out of the mesh, and how.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use tests::cluster::{Cluster, manifests};
use tests::lab::eventually_every;

use super::SOON;
use super::shop::{self, OUTSIDE, SHOP};
use super::tools::{hauberk, refused};

const PAUSE: Duration = Duration::from_millis(250);

fn has_proxy(pod: &Pod) -> bool {
    let spec = pod.spec.iter();
    let mut containers = spec.flat_map(|spec| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
    });
    containers.any(|container| container.name == "hauberk-proxy")
}

/// A pod that says no; pods in the mesh call it in plaintext.
pub(super) async fn excluded_pod(cluster: &'static Cluster) -> anyhow::Result<()> {
    let plain = manifests::application(SHOP, "plain", "v1").annotation("hauberk.dev/inject", "false");
    cluster.apply(&manifests::service(SHOP, "plain")).await?;
    cluster.apply(&plain.deployment(cluster.images())).await?;
    cluster.wait_rollout(SHOP, plain.name()).await?;
    for pod in cluster.pods(SHOP, "app=plain").await? {
        ensure!(!has_proxy(&pod), "it got a proxy");
    }
    let web = shop::web(cluster).await?;
    shop::answers(&web, "http://plain:8080/", "it answers", |answer| {
        answer.status == 200
    })
    .await
}

/// Plaintext from outside the mesh reaches an excluded port, though the namespace is STRICT.
pub(super) async fn excluded_port(cluster: &'static Cluster) -> anyhow::Result<()> {
    let open =
        manifests::application(SHOP, "open", "v1").annotation("hauberk.dev/skip-inbound-ports", "8080");
    cluster.apply(&manifests::service(SHOP, "open")).await?;
    cluster.apply(&open.deployment(cluster.images())).await?;
    cluster.wait_rollout(SHOP, open.name()).await?;
    for pod in cluster.pods(SHOP, "app=open").await? {
        ensure!(has_proxy(&pod), "it has no proxy");
    }
    let stranger = shop::stranger(cluster).await?;
    shop::answers(&stranger, "http://open.e2e-shop:8080/", "it answers", |answer| {
        answer.status == 200
    })
    .await
}

fn pod(cluster: &Cluster, name: &str, more: &str) -> String {
    let image = &cluster.images().testapp;
    format!(
        r"
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: {SHOP}, labels: {{ app: {name} }} }}
spec:
  {more}
  containers: [{{ name: app, image: {image}, imagePullPolicy: IfNotPresent, args: [pause] }}]
"
    )
}

/// It would redirect the traffic of the whole node.
pub(super) async fn host_network(cluster: &'static Cluster) -> anyhow::Result<()> {
    cluster.apply(&pod(cluster, "host", "hostNetwork: true")).await?;
    let pods = cluster.pods(SHOP, "app=host").await?;
    ensure!(pods.len() == 1 && !has_proxy(&pods[0]), "it got a proxy");
    cluster.delete_pod(SHOP, "host").await
}

/// As when a cluster's policy takes the right away: from a pod that was injected before it is applied, in a namespace where
/// the webhook does not give it back.
pub(super) async fn no_network_rights(cluster: &'static Cluster) -> anyhow::Result<()> {
    let file = std::env::temp_dir().join(format!("hauberk-e2e-pod-{}.yaml", std::process::id()));
    std::fs::write(
        &file,
        pod(cluster, "barred", "restartPolicy: Never").replace(SHOP, OUTSIDE),
    )?;
    let file = file.display().to_string();
    let injected = hauberk(
        cluster,
        &["inject", "-f", &file, "--image", &cluster.images().proxy],
    )?;
    let text = String::from_utf8(injected.stdout)?;
    ensure!(
        text.contains("NET_ADMIN"),
        "{text}{}",
        String::from_utf8_lossy(&injected.stderr)
    );
    let kept: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().trim_start_matches("- ").starts_with("NET_"))
        .collect();
    cluster
        .apply(&kept.join("\n").replace("add:\n", "add: []\n"))
        .await?;
    eventually_every(PAUSE, SOON, "the init container fails and says why", async || {
        let log = cluster.logs(OUTSIDE, "barred", "hauberk-init", false).await?;
        ensure!(log.contains("NET_ADMIN"), "{log:?}");
        println!("      {}", log.trim());
        Ok(())
    })
    .await?;
    cluster.delete_pod(OUTSIDE, "barred").await
}

pub(super) async fn wrong_annotation(cluster: &'static Cluster) -> anyhow::Result<()> {
    let wrong = pod(cluster, "wrong", "restartPolicy: Never").replace(
        "labels:",
        "annotations: { hauberk.dev/skip-inbound-ports: eighty }, labels:",
    );
    let told = refused(cluster, &wrong).await.context("a pod")?;
    println!("      {told}");
    ensure!(
        told.contains("hauberk.dev/skip-inbound-ports") && told.contains("eighty"),
        "{told}"
    );
    Ok(())
}
