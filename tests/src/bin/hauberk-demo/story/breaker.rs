//! One instance fails, dies and comes back.

use std::time::Duration;

use tests::app::Mode;
use tests::lab::{Lab, eventually};
use tests::load::Plan;
use tokio::time::Instant;

use super::{PATIENCE, URL, failures, millis};
use crate::tell::Teller;

const RATE: f64 = 200.0;

pub(crate) async fn tell(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    teller.story("one of two v2 instances answers 503, then dies, then comes back");
    let pods = lab.pods_of("reviews");
    let sick = pods
        .iter()
        .find(|pod| pod.contains("v2"))
        .cloned()
        .unwrap_or_default();
    let load = lab.load("web", Plan::get(URL).connections(8).rate(RATE)).await?;
    teller.wait("healthy,", Duration::from_secs(1)).await;

    let failing = Instant::now();
    lab.app(&sick).mode(Mode::Fail(503)).await?;
    wait_for(lab, &sick, "open").await?;
    teller.claim(
        true,
        "its breaker opens",
        &format!("{} after its first 503 could come", millis(failing.elapsed())),
    );
    teller
        .wait("breaker open and probing,", Duration::from_secs(3))
        .await;
    let taken = lab.app(&sick).counters().await?.failed;

    lab.kill_apps(&sick);
    lab.endpoint_ready(&sick, false)?;
    let left = Instant::now();
    eventually(PATIENCE, "the endpoint leaves", async || {
        anyhow::ensure!(state(lab, &sick).await?.is_none(), "web's proxy still has it");
        Ok(())
    })
    .await?;
    teller.claim(true, "it dies and its endpoint leaves", &millis(left.elapsed()));
    teller.wait("without it,", Duration::from_secs(1)).await;

    lab.restart_apps(&sick).await?;
    let probes = transitions(lab, "half_open").await?;
    let closes = transitions(lab, "closed").await?;
    lab.endpoint_ready(&sick, true)?;
    let back = Instant::now();
    wait_for(lab, &sick, "closed").await?;
    let probed = transitions(lab, "half_open").await? - probes;
    let closed = transitions(lab, "closed").await? - closes;
    teller.claim(
        probed >= 1.0 && closed >= 1.0,
        "back again: half-open, a probe, closed",
        &format!(
            "{}, {probed:.0} time half-open, {closed:.0} time closed",
            millis(back.elapsed())
        ),
    );
    eventually(PATIENCE, "traffic reaches it again", async || {
        let counters = lab.app(&sick).counters().await?;
        anyhow::ensure!(counters.requests >= 10, "{} requests", counters.requests);
        Ok(())
    })
    .await?;
    teller.claim(
        true,
        "it gets traffic again",
        &format!("10 requests within {}", millis(back.elapsed())),
    );

    let report = load.stop().await;
    teller.claim(
        report.errors() == 0,
        "the client saw no error",
        &failures(&report),
    );
    let share = taken as f64 / report.total() as f64;
    teller.claim(
        share < 0.05,
        "retries stayed in their budget",
        &format!(
            "{taken} requests met the failing instance and were tried again, {:.2} % of all",
            share * 100.0
        ),
    );
    Ok(())
}

/// State of the breaker of a pod's endpoint, in web's proxy; `None` when it does not have the endpoint.
async fn state(lab: &Lab, pod: &str) -> anyhow::Result<Option<String>> {
    let view: serde_json::Value = lab.proxy("web").admin("/clusters").await?.json()?;
    let clusters = view.as_array().cloned().unwrap_or_default();
    let endpoints = clusters
        .iter()
        .filter_map(|c| c["endpoints"].as_array())
        .flatten();
    let states: Vec<String> = endpoints
        .filter(|e| e["pod"] == pod)
        .filter_map(|e| e["breaker"].as_str())
        .map(str::to_owned)
        .collect();
    // One pod may be in several clusters; the one with the subset carries the traffic.
    Ok(states.iter().find(|s| *s != "closed").or(states.first()).cloned())
}

async fn wait_for(lab: &Lab, pod: &str, wanted: &str) -> anyhow::Result<()> {
    eventually(
        PATIENCE,
        &format!("the breaker of {pod} is {wanted}"),
        async || {
            let state = state(lab, pod).await?;
            anyhow::ensure!(state.as_deref() == Some(wanted), "it is {state:?}");
            Ok(())
        },
    )
    .await
}

async fn transitions(lab: &Lab, to: &str) -> anyhow::Result<f64> {
    lab.proxy("web")
        .metric("hauberk_breaker_transitions_total", &[("to", to)])
        .await
}
