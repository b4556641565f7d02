//! An endpoint that appears among others starts slowly.

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::lab::{Builder, Lab, ServiceSpec, eventually};
use tests::load::Plan;

use super::super::SOON;
use super::super::group::Group;
use super::super::rules::{all_to, cluster, policy};
use super::requests;

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![group.trial(
        "an endpoint that is new gets a part of its share at first",
        slow_start,
    )]
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("warm").version("v1", 3))
        .client("web")
}

async fn slow_start(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 5m}}}";
    policy(lab, &["web"], "warm", spec, &all_to("warm")).await?;
    let pod = "warm-v1-2";
    ensure!(
        share(lab, pod).await? > 90,
        "what the proxy found at first has its whole share"
    );
    lab.endpoint_ready(pod, false)?;
    sees(lab, 2).await?;
    lab.endpoint_ready(pod, true)?;
    sees(lab, 3).await?;
    let share = share(lab, pod).await?;
    // A tenth of what the others get: 14 of 300.
    ensure!((3..=40).contains(&share), "{share} of 300");
    Ok(())
}

/// Returns when the client's proxy has so many endpoints.
async fn sees(lab: &Lab, count: usize) -> anyhow::Result<()> {
    eventually(SOON, "the proxy has heard of the endpoints", async || {
        let cluster = cluster(lab, "web", "warm").await?;
        let endpoints = cluster["endpoints"].as_array().context("a list of endpoints")?;
        ensure!(endpoints.len() == count, "{cluster}");
        Ok(())
    })
    .await
}

/// How many of 300 requests a pod gets.
async fn share(lab: &Lab, pod: &str) -> anyhow::Result<u64> {
    let before = requests(lab, pod).await?;
    let plan = Plan::get("http://warm:8080/").connections(2).requests(300);
    let report = lab.load("web", plan).await?.finish().await;
    ensure!(report.errors() == 0, "{}", report.summary());
    Ok(requests(lab, pod).await? - before)
}
