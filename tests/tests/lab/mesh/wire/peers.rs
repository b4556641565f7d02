//! Peers that are gone without a word: the network between takes everything and says nothing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::client::Call;
use tests::lab::{Builder, Lab, ServiceSpec, eventually};
use tests::load::Plan;

use super::super::SOON;
use super::super::group::alone;
use super::super::rules::policy;

pub(super) fn trials() -> Vec<Trial> {
    vec![alone(
        "a peer that vanishes without a FIN is left alone, and costs no request",
        lab,
        vanished,
    )]
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("reviews").version("v1", 2))
        .client("web")
}

/// Pulls a pod's cable: no packet passes, and no one is told.
fn pull_cable(lab: &Lab, pod: &str) -> anyhow::Result<()> {
    let [_, _, high, low] = lab.pod(pod).ip().octets();
    let port = format!("pod{}", u16::from_be_bytes([high, low]));
    let done = Command::new("ip")
        .args(["link", "set", &port, "down"])
        .status()
        .context("ip")?;
    ensure!(done.success(), "ip link set {port} down: {done}");
    Ok(())
}

async fn vanished(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy:\n  loadBalancer: {simple: ROUND_ROBIN}\n  \
                connectionPool: {tcp: {connectTimeout: 500ms}}\n  \
                circuitBreaker: {failureThreshold: 3, recoveryTimeout: 30s}";
    let rules = "- retries: {attempts: 2, perTryTimeout: 500ms, retryOn: \"gateway-error,connect-failure\"}\n  \
                 route: [{destination: {host: reviews}}]";
    policy(lab, &["web"], "reviews", spec, rules).await?;
    let load = lab
        .load("web", Plan::get("http://reviews:8080/").connections(4).rate(60.0))
        .await?;
    eventually(SOON, "both pods are used", async || {
        for pod in lab.pods_of("reviews") {
            ensure!(lab.app(&pod).counters().await?.requests > 10);
        }
        Ok(())
    })
    .await?;
    pull_cable(lab, "reviews-v1-0")?;
    let pulled = load.now();
    let before = load.so_far().total();
    eventually(SOON * 2, "many more requests", async || {
        let now = load.so_far().total();
        ensure!(now > before + 200, "{now}");
        Ok(())
    })
    .await?;
    let report = load.stop().await;
    ensure!(report.errors() == 0, "{}", report.summary());
    let slow = report
        .samples
        .iter()
        .filter(|sample| {
            sample.started > pulled + Duration::from_secs(4) && sample.took > Duration::from_millis(450)
        })
        .count();
    ensure!(slow == 0, "{slow} requests still waited for the pod that is gone");
    let direct = Call::get("http://reviews:8080/").patience(SOON);
    ensure!(lab.pod("web").send(direct).await?.app_pod() == "reviews-v1-1");
    lab.proxy("web").ready().await
}
