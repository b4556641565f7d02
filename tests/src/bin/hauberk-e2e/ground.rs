//! What everything else stands on: that the cluster runs pods, has names, and takes calls and loads. Without the mesh.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use libtest_mimic::Trial;
use tests::caller::{Answered, Ask, Order};
use tests::cluster::{Cluster, manifests, trial};
use tests::lab::{eventually, eventually_every};

const NAMESPACE: &str = "e2e-ground";
/// A cluster's DNS may keep for half a minute that a name is not there.
const NAMED_WITHIN: Duration = Duration::from_secs(60);
/// Kubelets measure every ten seconds or so.
const MEASURED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "ground::two_pods_answer_under_the_name_of_their_service",
            two_pods,
        ),
        trial("ground::names_lead_to_pods_and_to_other_names", names),
        trial("ground::a_load_outlives_the_api_server", load_without_api_server),
        trial("ground::pods_are_scaled_drained_read_and_entered", pods),
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
    // kube-proxy hears of a pod some time after the pod says that it is ready.
    eventually(NAMED_WITHIN, "both pods answer", async || {
        for name in [
            "reviews",
            "reviews.e2e-ground",
            "reviews.e2e-ground.svc.cluster.local",
        ] {
            let answer = web.get(&format!("http://{name}:8080/")).await?;
            ensure!(answer.status == 200, "{answer:?}");
            ensure!(answer.header("x-app-version") == "v1", "{answer:?}");
            pods.insert(answer.header("x-app-pod").to_owned());
        }
        ensure!(pods.len() == 2, "these answered: {pods:?}");
        Ok(())
    })
    .await
}

async fn names(cluster: &Cluster) -> anyhow::Result<()> {
    let services = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: each, namespace: {NAMESPACE}}}, spec: {{\
         clusterIP: None, selector: {{app: reviews}}}}}}\n---\n\
         {{apiVersion: v1, kind: Service, metadata: {{name: old, namespace: {NAMESPACE}}}, spec: {{\
         type: ExternalName, externalName: reviews.{NAMESPACE}.svc.cluster.local}}}}\n"
    );
    cluster.apply(&services).await?;
    let web = cluster.caller(NAMESPACE, &cluster.pod(NAMESPACE, "app=web").await?);
    for name in ["each", "old"] {
        eventually(NAMED_WITHIN, &format!("{name} has an address"), async || {
            let answer = web.get(&format!("http://{name}:8080/")).await?;
            ensure!(answer.header("x-app-service") == "reviews", "{answer:?}");
            Ok(())
        })
        .await?;
    }
    let pods = cluster.pods(NAMESPACE, "app=reviews").await?;
    let address = pods[0].status.as_ref().and_then(|status| status.pod_ip.clone());
    let dashed = address.context("a pod without an address")?.replace('.', "-");
    let answer = web.get(&format!("http://{dashed}.each:8080/")).await?;
    ensure!(answer.header("x-app-pod") == pods[0].name_any(), "{answer:?}");
    match web.try_call(&Ask::get("http://nobody:8080/")).await? {
        Answered::Failed { reason, .. } => ensure!(reason.contains("lookup"), "{reason}"),
        Answered::Answer(answer) => bail!("a name that nobody has answers {answer:?}"),
    }
    Ok(())
}

async fn pods(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.scale(NAMESPACE, "reviews-v1", 3).await?;
    let before = cluster.pods(NAMESPACE, "app=reviews").await?;
    ensure!(before.len() == 3, "three pods, not {}", before.len());
    let drained = before[0].name_any();
    cluster.drain(NAMESPACE, &drained).await?;
    cluster.wait_gone(NAMESPACE, &drained).await?;
    cluster.wait_rollout(NAMESPACE, "reviews-v1").await?;
    cluster.restart(NAMESPACE, "reviews-v1").await?;
    let after = cluster.pods(NAMESPACE, "app=reviews").await?;
    let names = |pods: &[Pod]| {
        pods.iter()
            .map(ResourceExt::name_any)
            .collect::<BTreeSet<String>>()
    };
    ensure!(
        names(&before).is_disjoint(&names(&after)),
        "a restart replaces every pod"
    );
    let pod = after[0].name_any();
    let said = cluster
        .exec(NAMESPACE, &pod, "app", &["hauberk-testapp", "--version"])
        .await?;
    ensure!(
        said.trim() == concat!("hauberk-testapp ", env!("CARGO_PKG_VERSION")),
        "{said}"
    );
    let refused = cluster
        .exec(NAMESPACE, &pod, "app", &["hauberk-testapp", "--nonsense"])
        .await;
    ensure!(
        refused.is_err_and(|error| error.to_string().contains("nonsense")),
        "a failure is an error"
    );
    cluster.logs(NAMESPACE, &pod, "app", false).await?;
    let memory = eventually_every(
        Duration::from_secs(1),
        MEASURED_WITHIN,
        "memory is measured",
        async || cluster.memory(NAMESPACE, &pod, "app").await,
    );
    let memory = memory.await?;
    ensure!((1 << 16..1 << 28).contains(&memory), "{memory} bytes of memory");
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
