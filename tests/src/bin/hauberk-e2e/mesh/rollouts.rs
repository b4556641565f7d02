//! Pods that come and go under load, and pods that end.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::cluster::Cluster;
use tests::lab::eventually_every;
use tokio::time::Instant;

use super::shop::{self, SHOP};
use super::tools::{delete, get};

const PAUSE: Duration = Duration::from_millis(250);
const JOB: &str = "/apis/batch/v1/namespaces/e2e-shop/jobs/errand";

pub(super) async fn restart_scale_drain(cluster: &'static Cluster) -> anyhow::Result<()> {
    let load = shop::load(cluster).await?;
    cluster.restart(SHOP, "reviews-v1").await?;
    cluster.scale(SHOP, "reviews-v1", 5).await?;
    cluster.scale(SHOP, "reviews-v1", 1).await?;
    // Two, so that one stays while the other is evicted.
    cluster.scale(SHOP, "reviews-v1", 2).await?;
    let evicted = shop::first(cluster, "app=reviews,version=v1").await?;
    cluster.drain(SHOP, &evicted).await?;
    cluster.wait_gone(SHOP, &evicted).await?;
    cluster.wait_rollout(SHOP, "reviews-v1").await?;
    shop::no_failure(&load).await
}

pub(super) async fn job(cluster: &'static Cluster) -> anyhow::Result<()> {
    let image = &cluster.images().testapp;
    let job = format!(
        r"
apiVersion: batch/v1
kind: Job
metadata: {{ name: errand, namespace: {SHOP} }}
spec:
  backoffLimit: 0
  template:
    metadata: {{ labels: {{ app: errand }} }}
    spec:
      restartPolicy: Never
      containers:
        - name: app
          image: {image}
          imagePullPolicy: IfNotPresent
          args: [load, --url, '{url}', --requests, '1', --strict]
",
        url = shop::REVIEWS
    );
    cluster.apply(&job).await?;
    let begun = Instant::now();
    eventually_every(
        PAUSE,
        Duration::from_secs(120),
        "the Job is complete",
        async || {
            let job = get(cluster, JOB).await?;
            ensure!(job["status"]["succeeded"] == 1, "{}", job["status"]);
            Ok(())
        },
    )
    .await?;
    println!("      complete after {:.1} s", begun.elapsed().as_secs_f64());
    let pods = cluster.pods(SHOP, "app=errand").await?;
    ensure!(pods.len() == 1, "{} pods: its first call failed", pods.len());
    let statuses = pods
        .into_iter()
        .next()
        .and_then(|pod| pod.status?.container_statuses)
        .unwrap_or_default();
    ensure!(
        statuses.len() == 2 || cluster.version() >= (1, 29),
        "no proxy beside it"
    );
    for status in statuses {
        let ended = status
            .state
            .and_then(|state| state.terminated)
            .context("a container still runs")?;
        ensure!(
            ended.exit_code == 0,
            "{} ended with {}",
            status.name,
            ended.exit_code
        );
    }
    delete(cluster, &format!("{JOB}?propagationPolicy=Background")).await
}
