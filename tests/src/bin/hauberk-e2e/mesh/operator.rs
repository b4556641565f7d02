//! The operator goes, comes back, is upgraded and uninstalled, and the API server restarts: traffic goes on.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tests::cluster::Cluster;
use tests::lab::eventually_every;

use super::SOON;
use super::install::values_file;
use super::routing::{applied, split};
use super::shop::{self, SHOP};
use super::tools::{OPERATOR, OPERATORS, SYSTEM, get, helm};

const PAUSE: Duration = Duration::from_millis(250);
/// What stays when the chart is uninstalled, so that the mesh can come back as it was.
const LEFT: [&str; 3] = [
    "configmap/hauberk-trust-bundle",
    "secret/hauberk-authority",
    "lease.coordination.k8s.io/hauberk-control-plane",
];

async fn names(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let pods = cluster.pods(SYSTEM, OPERATORS).await?;
    Ok(pods.into_iter().filter_map(|pod| pod.metadata.name).collect())
}

/// One by one, then all at once; a change made afterwards is applied.
pub(super) async fn pods_deleted(cluster: &'static Cluster) -> anyhow::Result<()> {
    let load = shop::load(cluster).await?;
    for name in names(cluster).await? {
        cluster.delete_pod(SYSTEM, &name).await?;
        cluster.wait_gone(SYSTEM, &name).await?;
        cluster.wait_rollout(SYSTEM, OPERATOR).await?;
    }
    let all = names(cluster).await?;
    for name in &all {
        cluster.delete_pod(SYSTEM, name).await?;
    }
    for name in &all {
        cluster.wait_gone(SYSTEM, name).await?;
    }
    cluster.wait_rollout(SYSTEM, OPERATOR).await?;
    change(cluster, 70, 30).await?;
    shop::no_failure(&load).await
}

/// Applies a split, which may have to wait for the webhook, and waits until it is applied.
async fn change(cluster: &Cluster, v1: u32, v2: u32) -> anyhow::Result<()> {
    eventually_every(PAUSE, SOON, "a change is taken", async || {
        cluster.apply(&split(v1, v2)).await
    })
    .await?;
    applied(cluster).await
}

pub(super) async fn api_server_restarted(cluster: &'static Cluster) -> anyhow::Result<()> {
    let Some(node) = cluster.node("the API server's restart") else {
        return Ok(());
    };
    let load = shop::load(cluster).await?;
    node.restart_apiserver().await?;
    change(cluster, 50, 50).await?;
    shop::no_failure(&load).await
}

pub(super) async fn upgrade_and_rollback(cluster: &'static Cluster) -> anyhow::Result<()> {
    let load = shop::load(cluster).await?;
    let changed =
        json!({"podAnnotations": {"e2e/upgraded": "once"}, "log": {"level": "info,control_plane=debug"}});
    let file = values_file(cluster, &changed)?;
    helm(
        cluster,
        &[
            "upgrade",
            "hauberk",
            "charts/hauberk",
            "--values",
            &file,
            "--wait",
        ],
    )?;
    cluster.wait_rollout(SYSTEM, OPERATOR).await?;
    change(cluster, 60, 40).await?;
    helm(cluster, &["rollback", "hauberk", "1", "--wait"])?;
    cluster.wait_rollout(SYSTEM, OPERATOR).await?;
    change(cluster, 50, 50).await?;
    shop::no_failure(&load).await
}

/// Pods with proxies go on; new pods start without; what stays behind is what the guide says.
pub(super) async fn uninstall(cluster: &'static Cluster) -> anyhow::Result<()> {
    let load = shop::load(cluster).await?;
    helm(cluster, &["uninstall", "hauberk", "--wait"])?;
    eventually_every(PAUSE, SOON, "no operator is left", async || {
        let left = names(cluster).await?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    // For as long as proxies could still have noticed something.
    load.goes_on(1000).await?;
    shop::no_failure(&load).await?;
    cluster.restart(SHOP, "reviews-v2").await?;
    for pod in cluster.pods(SHOP, "app=reviews,version=v2").await? {
        let containers = pod.spec.map(|spec| spec.containers.len());
        ensure!(containers == Some(1), "{:?} has a proxy", pod.metadata.name);
    }
    // Pods that are about to go take their time.
    eventually_every(PAUSE, SOON, "only what the guide says is left", async || {
        let kinds = "all,configmaps,secrets,roles,rolebindings,leases";
        let left = cluster
            .kubectl(&["get", kinds, "-n", SYSTEM, "-o", "name"])
            .await?;
        let ours: Vec<_> = left.lines().filter(|name| name.contains("hauberk")).collect();
        let surprise = |name: &&&str| !LEFT.contains(name) && !name.contains("helm.release");
        let surprises: Vec<_> = ours.iter().filter(surprise).collect();
        ensure!(surprises.is_empty(), "{surprises:?}");
        println!("      left behind in {SYSTEM}: {}", ours.join(", "));
        Ok(())
    })
    .await?;
    let webhooks = get(
        cluster,
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    )
    .await?;
    ensure!(!webhooks.to_string().contains(OPERATOR), "a webhook is left");
    Ok(())
}
