//! Traffic is shared between places, or stays near until what is near has failed.

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::app::Mode;
use tests::lab::{Builder, Lab, PodSpec, ServiceSpec, Workload, eventually};
use tests::load::Plan;

use super::super::SOON;
use super::super::group::Group;
use super::super::rules::{all_to, policy};
use super::requests;

const REGION: &str = "topology.kubernetes.io/region";

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial("distribute shares traffic between regions", distribute),
        group.trial(
            "a region that fails is taken over by the one that is named for it",
            failover,
        ),
    ]
}

/// Two services with pods in three regions, and a client in the first.
fn lab() -> Builder {
    let there =
        |version: &str, pods, region: &str| Workload::new(version, pods).label(REGION, region).zone("z");
    let service = |name: &str| {
        ServiceSpec::http(name)
            .workload(there("near", 2, "r1"))
            .workload(there("heir", 1, "r2"))
            .workload(there("far", 1, "r3"))
    };
    Lab::builder()
        .service(service("shared"))
        .service(service("fails"))
        .pod(PodSpec::new("web").label(REGION, "r1").zone("z"))
}

/// What each of a service's regions gets of so many requests.
async fn regions(lab: &Lab, service: &str, count: u64) -> anyhow::Result<[u64; 3]> {
    let pods = ["near-0", "near-1", "heir-0", "far-0"].map(|pod| format!("{service}-{pod}"));
    let mut got = [0; 4];
    for (got, pod) in got.iter_mut().zip(&pods) {
        *got = requests(lab, pod).await?;
    }
    let plan = Plan::get(&format!("http://{service}:8080/"))
        .connections(2)
        .requests(count);
    let report = lab.load("web", plan).await?.finish().await;
    ensure!(report.errors() == 0, "{}", report.summary());
    for (got, pod) in got.iter_mut().zip(&pods) {
        *got = requests(lab, pod).await? - *got;
    }
    Ok([got[0] + got[1], got[2], got[3]])
}

async fn distribute(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {distribute: [
        {from: r2/*, to: {r3/*: 100}}, {from: r1/z, to: {r1/*: 30, r2/z: 70}}]}}}";
    policy(lab, &["web"], "shared", spec, &all_to("shared")).await?;
    let got = regions(lab, "shared", 600).await?;
    // Five standard deviations around 180, whatever the numbers of pods.
    ensure!((124..=236).contains(&got[0]) && got[2] == 0, "{got:?}");
    Ok(())
}

async fn failover(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy:
  loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r2}]}}
  outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 5m, maxEjectionPercent: 100}";
    let rules = format!(
        "{}\n  retries: {{attempts: 10, retryOn: 5xx, backoff: 1ms}}",
        all_to("fails")
    );
    policy(lab, &["web"], "fails", spec, &rules).await?;
    let got = regions(lab, "fails", 200).await?;
    ensure!(got == [200, 0, 0], "all is well, and near: {got:?}");
    for pod in ["fails-near-0", "fails-near-1"] {
        lab.app(pod).mode(Mode::Fail(500)).await?;
    }
    eventually(SOON, "the region that took over has everything", async || {
        let got = regions(lab, "fails", 50).await?;
        ensure!(got == [0, 50, 0], "{got:?}");
        Ok(())
    })
    .await
}
