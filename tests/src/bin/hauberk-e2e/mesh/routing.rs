//! Pods in the mesh, the split and its edit, objects that are broken.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::app;
use tests::caller::{Answered, Ask};
use tests::cluster::Cluster;
use tests::lab::eventually_every;
use tokio::time::Instant;

use super::SOON;
use super::shop::{self, REVIEWS, SHOP};
use super::tools::{condition, delete, get, hauberk, refused, request};

const PAUSE: Duration = Duration::from_millis(100);
const OBJECT: &str = "/apis/hauberk.dev/v1alpha1/namespaces/e2e-shop/virtualservices/reviews";
const WEBHOOK: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/hauberk-control-plane";
const ME: &str = "spiffe://cluster.local/ns/e2e-shop/sa/default";

pub(super) async fn pods_join(cluster: &'static Cluster) -> anyhow::Result<()> {
    shop::open(cluster).await?;
    for pod in cluster.pods(SHOP, "").await? {
        let labels = pod.metadata.labels.unwrap_or_default();
        let injected = labels
            .get("hauberk.dev/injected")
            .is_some_and(|value| value == "true");
        ensure!(injected, "{:?} has no proxy", pod.metadata.name);
    }
    cluster.apply(&strict(SHOP)).await?;
    let web = shop::web(cluster).await?;
    // Who calls is what the server is told, and only mutual TLS can tell it.
    shop::answers(&web, REVIEWS, "the server knows its caller", |answer| {
        let seen: Result<app::Answer, _> = serde_json::from_str(&answer.body);
        seen.is_ok_and(|seen| {
            seen.request
                .headers
                .get("x-hauberk-peer")
                .is_some_and(|peer| peer == ME)
        })
    })
    .await?;
    let stranger = shop::stranger(cluster).await?;
    eventually_every(PAUSE, SOON, "STRICT refuses a pod outside the mesh", async || {
        let told = stranger
            .try_call(&Ask::get("http://reviews.e2e-shop:8080/"))
            .await?;
        let refused = match &told {
            Answered::Failed { .. } => true,
            Answered::Answer(answer) => answer.status == 403,
        };
        ensure!(refused, "{told:?}");
        Ok(())
    })
    .await?;
    // Probes come every second: for longer than it takes them to fail, all stay ready and none is restarted.
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        for pod in cluster.pods(SHOP, "app=reviews").await? {
            for container in pod
                .status
                .and_then(|status| status.container_statuses)
                .unwrap_or_default()
            {
                ensure!(container.ready && container.restart_count == 0, "{container:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

pub(super) async fn split_and_edit(cluster: &'static Cluster) -> anyhow::Result<()> {
    cluster.apply(SUBSETS).await?;
    cluster.apply(&split(90, 10)).await?;
    applied(cluster).await?;
    let share = shop::share_of_v2(cluster, 2000).await?;
    println!("      90/10: v2 answered {:.2} % of 2000 requests", share * 100.0);
    // Four standard deviations of so many draws.
    ensure!((0.073..=0.127).contains(&share), "v2 answered {share}");

    let begun = Instant::now();
    cluster.apply(&split(0, 100)).await?;
    let web = shop::web(cluster).await?;
    shop::answers(&web, REVIEWS, "the edit holds", |answer| {
        answer.header("x-app-version") == "v2"
    })
    .await?;
    println!(
        "      0/100: the first answer by v2 came {:.2} s after the edit began",
        begun.elapsed().as_secs_f64()
    );
    applied(cluster).await?;
    println!(
        "      and the status said so after {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    ensure!(
        (shop::share_of_v2(cluster, 200).await? - 1.0).abs() < f64::EPSILON,
        "v1 answered"
    );

    cluster.apply(&split(50, 50)).await?;
    applied(cluster).await?;
    let share = shop::share_of_v2(cluster, 2000).await?;
    println!("      50/50: v2 answered {:.2} % of 2000 requests", share * 100.0);
    ensure!((0.455..=0.545).contains(&share), "v2 answered {share}");
    let table = cluster
        .kubectl(&["get", "virtualservices", "--namespace", SHOP])
        .await?;
    print!("{table}");
    ensure!(table.contains("True"), "{table}");
    let status = hauberk(cluster, &["status"])?;
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    print!("{text}");
    ensure!(status.status.success() && text.contains("reviews"), "{text}");
    Ok(())
}

/// Waits until the status says of the newest generation that it is applied everywhere.
pub(super) async fn applied(cluster: &Cluster) -> anyhow::Result<()> {
    eventually_every(PAUSE, SOON, "the VirtualService is applied", async || {
        let object = get(cluster, OBJECT).await?;
        let generation = object["metadata"]["generation"].as_i64();
        for kind in ["Accepted", "Programmed"] {
            let condition = condition(&object, kind)?;
            let current = condition["observedGeneration"].as_i64() == generation;
            ensure!(
                current && condition["status"] == "True",
                "{generation:?}: {condition}"
            );
        }
        Ok(())
    })
    .await
}

pub(super) async fn broken_is_refused(cluster: &'static Cluster) -> anyhow::Result<()> {
    let told = refused(cluster, BROKEN).await?;
    println!("      {told}");
    ensure!(told.contains("regex"), "the field is not named: {told}");
    // A field that nobody knows is not dropped in silence.
    let told = refused(
        cluster,
        &BROKEN.replace("match: [{ uri: { regex: '(' } }]", "timeoot: 3s"),
    )
    .await?;
    ensure!(told.contains("timeoot"), "the field is not named: {told}");
    Ok(())
}

pub(super) async fn broken_slips_past(cluster: &'static Cluster) -> anyhow::Result<()> {
    let mut kept = get(cluster, WEBHOOK).await?;
    delete(cluster, WEBHOOK).await?;
    let outcome = slipped(cluster).await;
    let metadata = kept["metadata"].as_object_mut().context("no metadata")?;
    for field in [
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "generation",
        "managedFields",
        "selfLink",
    ] {
        metadata.remove(field);
    }
    let (all, _) = WEBHOOK.rsplit_once('/').context("no path")?;
    request(cluster, "POST", all, "application/json", Some(&kept)).await?;
    outcome
}

async fn slipped(cluster: &Cluster) -> anyhow::Result<()> {
    let path = OBJECT.replace("/reviews", "/broken");
    eventually_every(PAUSE, SOON, "the object gets past", async || {
        cluster.apply(BROKEN).await
    })
    .await?;
    eventually_every(PAUSE, SOON, "its status says why", async || {
        let object = get(cluster, &path).await?;
        let accepted = condition(&object, "Accepted")?;
        let named = accepted["message"]
            .as_str()
            .is_some_and(|message| message.contains("regex"));
        ensure!(named && accepted["status"] == "False", "{accepted}");
        Ok(())
    })
    .await?;
    eventually_every(PAUSE, SOON, "an Event tells it", async || {
        let events = get(cluster, "/api/v1/namespaces/e2e-shop/events").await?;
        let events = events["items"].as_array().context("no items")?;
        let told = events
            .iter()
            .any(|e| e["involvedObject"]["name"] == "broken" && e["type"] == "Warning");
        ensure!(told, "none among {}", events.len());
        Ok(())
    })
    .await?;
    // The other one goes on, and can be changed.
    cluster.apply(&split(100, 0)).await?;
    applied(cluster).await?;
    let share = shop::share_of_v2(cluster, 200).await?;
    ensure!(share < f64::EPSILON, "v2 answered {share} at 100/0");
    cluster.apply(&split(50, 50)).await?;
    applied(cluster).await?;
    delete(cluster, &path).await
}

const SUBSETS: &str = r"
apiVersion: hauberk.dev/v1alpha1
kind: DestinationRule
metadata: { name: reviews, namespace: e2e-shop }
spec:
  host: reviews
  subsets:
    - { name: v1, labels: { version: v1 } }
    - { name: v2, labels: { version: v2 } }
";

/// What no schema refuses, and the operator does.
const BROKEN: &str = r"
apiVersion: hauberk.dev/v1alpha1
kind: VirtualService
metadata: { name: broken, namespace: e2e-shop }
spec:
  hosts: [nobody]
  http:
    - match: [{ uri: { regex: '(' } }]
      route: [{ destination: { host: reviews } }]
";

/// A split of `reviews` over its versions.
pub(super) fn split(v1: u32, v2: u32) -> String {
    format!(
        r"
apiVersion: hauberk.dev/v1alpha1
kind: VirtualService
metadata: {{ name: reviews, namespace: e2e-shop }}
spec:
  hosts: [reviews]
  http:
    - route:
        - {{ destination: {{ host: reviews, subset: v1 }}, weight: {v1} }}
        - {{ destination: {{ host: reviews, subset: v2 }}, weight: {v2} }}
"
    )
}

fn strict(namespace: &str) -> String {
    format!(
        r"
apiVersion: hauberk.dev/v1alpha1
kind: PeerAuthentication
metadata: {{ name: strict, namespace: {namespace} }}
spec: {{ mtls: {{ mode: STRICT }} }}
"
    )
}
