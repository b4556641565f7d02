//! The shop that the trials play with: `reviews` in two versions, a client in the mesh, and one outside of it.

use anyhow::{Context as _, ensure};
use tests::caller::{Answer, Ask, Order};
use tests::cluster::{Caller, Cluster, RunningLoad, manifests};
use tests::lab::eventually_every;

use super::SOON;

/// The namespace whose pods are in the mesh.
pub(super) const SHOP: &str = "e2e-shop";
/// One whose pods are not.
pub(super) const OUTSIDE: &str = "e2e-outside";
/// What the load calls.
pub(super) const REVIEWS: &str = "http://reviews:8080/";
/// Calls a second of a load that must see no failure.
const RATE: f64 = 100.0;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(250);

/// Opens the shop; it stays open for the trials that follow.
pub(super) async fn open(cluster: &Cluster) -> anyhow::Result<()> {
    cluster
        .namespace(SHOP, &[("hauberk.dev/inject", "enabled")])
        .await?;
    cluster.namespace(OUTSIDE, &[]).await?;
    cluster.apply(&manifests::service(SHOP, "reviews")).await?;
    let workloads = [
        (SHOP, manifests::application(SHOP, "reviews", "v1")),
        (SHOP, manifests::application(SHOP, "reviews", "v2")),
        (SHOP, manifests::caller(SHOP, "web")),
        (OUTSIDE, manifests::caller(OUTSIDE, "stranger")),
    ];
    for (_, workload) in &workloads {
        cluster.apply(&workload.deployment(cluster.images())).await?;
    }
    for (namespace, workload) in &workloads {
        cluster.wait_rollout(namespace, workload.name()).await?;
    }
    Ok(())
}

/// The client in the mesh.
pub(super) async fn web(cluster: &Cluster) -> anyhow::Result<Caller<'_>> {
    Ok(cluster.caller(SHOP, &cluster.pod(SHOP, "app=web").await?))
}

/// The client outside of it.
pub(super) async fn stranger(cluster: &Cluster) -> anyhow::Result<Caller<'_>> {
    Ok(cluster.caller(OUTSIDE, &cluster.pod(OUTSIDE, "app=stranger").await?))
}

/// Waits until a client's calls are answered as wanted.
pub(super) async fn answers(
    caller: &Caller<'_>,
    url: &str,
    what: &str,
    wanted: impl Fn(&Answer) -> bool,
) -> anyhow::Result<()> {
    eventually_every(PAUSE, SOON, what, async || {
        let answer = caller.get(url).await?;
        ensure!(wanted(&answer), "{answer:?}");
        Ok(())
    })
    .await
}

/// The share of v2 among so many answers; every request must have got one.
pub(super) async fn share_of_v2(cluster: &Cluster, requests: u64) -> anyhow::Result<f64> {
    let order = Order::new(Ask::get(REVIEWS)).connections(8).requests(requests);
    let load = web(cluster).await?.load(&order).await?;
    let standing = eventually_every(PAUSE, SOON, "the requests are made", async || {
        let standing = load.standing().await?;
        ensure!(standing.ended, "{}", standing.summary);
        Ok(standing)
    })
    .await?;
    let summary = standing.summary;
    ensure!(summary.errors == 0, "{summary}");
    let of = |version: &str| summary.versions.get(version).copied().unwrap_or(0);
    ensure!(of("v1") + of("v2") == requests, "{summary}");
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    Ok(of("v2") as f64 / requests as f64)
}

/// Starts a load from the client in the mesh that must see no failure, and waits until it runs.
pub(super) async fn load(cluster: &Cluster) -> anyhow::Result<RunningLoad<'_>> {
    let order = Order::new(Ask::get(REVIEWS)).connections(8).rate(RATE);
    let load = web(cluster).await?.load(&order).await?;
    load.goes_on(50).await?;
    Ok(load)
}

/// Ends it: it must still have been at work, and every call must have been answered well.
pub(super) async fn no_failure(load: &RunningLoad<'_>) -> anyhow::Result<()> {
    load.goes_on(50).await?;
    let summary = load.stop().await?.summary;
    println!("      {summary}");
    ensure!(summary.errors == 0, "{summary}");
    let only_ok = summary.statuses.keys().all(|status| *status == 200);
    ensure!(only_ok, "{summary}");
    Ok(())
}

/// The name of the first pod with these labels.
pub(super) async fn first(cluster: &Cluster, labels: &str) -> anyhow::Result<String> {
    let pods = cluster.pods(SHOP, labels).await?;
    let name = pods.first().and_then(|pod| pod.metadata.name.clone());
    name.with_context(|| format!("no pod with {labels}"))
}
