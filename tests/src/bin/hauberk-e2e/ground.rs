//! What everything else stands on: that the cluster runs pods, has names, and takes calls and loads. Without the mesh.

use std::collections::BTreeSet;

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::caller::{Ask, Order};
use tests::cluster::{Cluster, manifests, trial};

const NAMESPACE: &str = "e2e-ground";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "ground::two_pods_answer_under_the_name_of_their_service",
            two_pods,
        ),
        trial("ground::a_load_outlives_the_api_server", load_without_api_server),
        trial("ground::the_last_namespace_can_be_removed", clean_up),
    ]
}

async fn two_pods(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.namespace(NAMESPACE, &[]).await?;
    let reviews = manifests::application(NAMESPACE, "reviews", "v1").replicas(2);
    let web = manifests::caller(NAMESPACE, "web");
    cluster.apply(&manifests::service(NAMESPACE, "reviews")).await?;
    cluster.apply(&reviews.deployment(cluster.images())).await?;
    cluster.apply(&web.deployment(cluster.images())).await?;
    cluster.wait_rollout(NAMESPACE, reviews.name()).await?;
    cluster.wait_rollout(NAMESPACE, web.name()).await?;
    let web = cluster.caller(NAMESPACE, &cluster.pod(NAMESPACE, "app=web").await?);
    let mut pods = BTreeSet::new();
    for name in [
        "reviews",
        "reviews.e2e-ground",
        "reviews.e2e-ground.svc.cluster.local",
    ] {
        for _ in 0..20 {
            let answer = web.get(&format!("http://{name}:8080/")).await?;
            ensure!(answer.status == 200, "{answer:?}");
            ensure!(answer.header("x-app-version") == "v1", "{answer:?}");
            pods.insert(answer.header("x-app-pod").to_owned());
        }
    }
    ensure!(
        pods.len() == 2,
        "kube-proxy spreads connections over two pods: {pods:?}"
    );
    Ok(())
}

async fn load_without_api_server(cluster: &Cluster) -> anyhow::Result<()> {
    let web = cluster.caller(NAMESPACE, &cluster.pod(NAMESPACE, "app=web").await?);
    let order = Order::new(Ask::get("http://reviews:8080/"))
        .rate(50.0)
        .fresh_connections();
    let load = web.load(&order).await?;
    load.goes_on(20).await?;
    if let Some(node) = cluster.node("the API server's restart") {
        node.restart_apiserver().await?;
    }
    load.goes_on(20).await?;
    let standing = load.stop().await?;
    ensure!(standing.summary.errors == 0, "{}", standing.summary);
    ensure!(
        standing.summary.versions.get("v1") == Some(&standing.summary.requests),
        "{}",
        standing.summary
    );
    ensure!(
        load.stop().await?.summary == standing.summary,
        "a load that is over stays as it was"
    );
    Ok(())
}

async fn clean_up(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.delete_namespace(NAMESPACE).await?;
    ensure!(
        cluster.pods(NAMESPACE, "").await?.is_empty(),
        "its pods are gone with it"
    );
    Ok(())
}
