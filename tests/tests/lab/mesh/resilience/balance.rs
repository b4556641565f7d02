//! Load is shared fairly, and by load where the balancer says so.

use std::collections::BTreeMap;

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::app::Mode;
use tests::lab::{Builder, Lab, ServiceSpec};
use tests::load::Plan;

use super::super::group::Group;
use super::super::rules::{all_to, policy};
use super::requests;

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial("round robin gives every endpoint the same", round_robin),
        group.trial("random gives every endpoint about the same", random),
        group.trial("least request spares an endpoint that is slow", least_request),
        group.trial("peak EWMA spares an endpoint that is slow", peak_ewma),
    ]
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("three").version("v1", 3))
        .client("web")
}

/// Sends `plan` under a balancer and says what each pod got.
async fn shares(lab: &Lab, balancer: &str, plan: Plan) -> anyhow::Result<BTreeMap<String, u64>> {
    let spec = format!("trafficPolicy: {{loadBalancer: {{simple: {balancer}}}}}");
    policy(lab, &["web"], "three", &spec, &all_to("three")).await?;
    let mut shares = BTreeMap::new();
    for pod in lab.pods_of("three") {
        shares.insert(pod.clone(), requests(lab, &pod).await?);
    }
    let report = lab.load("web", plan).await?.finish().await;
    ensure!(report.errors() == 0, "{}", report.summary());
    for (pod, share) in &mut shares {
        *share = requests(lab, pod).await? - *share;
    }
    Ok(shares)
}

async fn round_robin(lab: &Lab) -> anyhow::Result<()> {
    let shares = shares(
        lab,
        "ROUND_ROBIN",
        Plan::get("http://three:8080/").connections(2).requests(300),
    )
    .await?;
    ensure!(
        shares.values().all(|share| (98..=102).contains(share)),
        "{shares:?}"
    );
    Ok(())
}

async fn random(lab: &Lab) -> anyhow::Result<()> {
    let shares = shares(
        lab,
        "RANDOM",
        Plan::get("http://three:8080/").connections(2).requests(600),
    )
    .await?;
    // Five standard deviations around 200.
    ensure!(
        shares.values().all(|share| (142..=258).contains(share)),
        "{shares:?}"
    );
    Ok(())
}

async fn spares(lab: &Lab, balancer: &str) -> anyhow::Result<()> {
    lab.app("three-v1-1").mode(Mode::Slow(150)).await?;
    let plan = Plan::get("http://three:8080/").connections(8).requests(400);
    let shares = shares(lab, balancer, plan).await;
    lab.app("three-v1-1").mode(Mode::Ok).await?;
    let shares = shares?;
    ensure!(shares["three-v1-1"] < 80, "a fair share would be 133: {shares:?}");
    ensure!(shares["three-v1-0"].min(shares["three-v1-2"]) > 100, "{shares:?}");
    Ok(())
}

async fn least_request(lab: &Lab) -> anyhow::Result<()> {
    spares(lab, "LEAST_REQUEST").await
}

async fn peak_ewma(lab: &Lab) -> anyhow::Result<()> {
    spares(lab, "PEAK_EWMA").await
}
