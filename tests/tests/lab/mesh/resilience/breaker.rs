//! Endpoints that fail are left alone, and come back.

use std::time::Duration;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tests::app::Mode;
use tests::lab::{Builder, Lab, ServiceSpec, eventually};
use tests::load::Plan;

use super::super::SOON;
use super::super::group::Group;
use super::super::rules::{all_to, cluster, policy};
use super::{all_requests, requests};

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial(
            "a breaker opens, probes and closes, and the client sees no error",
            breaker,
        ),
        group.trial("when all breakers are open the client hears so at once", all_open),
        group.trial("an outlier is ejected and comes back", outlier),
        group.trial(
            "an outlier by a status that only the policy calls an error is ejected",
            own_status,
        ),
        group.trial(
            "a dead pod is left alone at once, and the client sees no error",
            dead_pod,
        ),
        group.trial(
            "a dead application behind a living proxy costs the client nothing",
            dead_app,
        ),
    ]
}

fn lab() -> Builder {
    let mut builder = Lab::builder().client("web");
    for service in ["breaks", "opens", "ejects", "limits", "dies", "crashes"] {
        builder = builder.service(ServiceSpec::http(service).version("v1", 2));
    }
    builder
}

fn retrying(host: &str) -> String {
    format!(
        "- retries: {{attempts: 2, retryOn: 5xx, backoff: 5ms}}\n  route: [{{destination: {{host: {host}}}}}]"
    )
}

/// What the proxy of `web` says of an endpoint.
async fn endpoint(lab: &Lab, service: &str, pod: &str) -> anyhow::Result<Value> {
    let cluster = cluster(lab, "web", service).await?;
    let endpoints = cluster["endpoints"].as_array().context("no endpoints")?;
    let found = endpoints
        .iter()
        .find(|endpoint| endpoint["pod"].as_str().is_some_and(|p| p.contains(pod)));
    found.cloned().with_context(|| format!("no {pod} in {cluster}"))
}

async fn breaker_is(lab: &Lab, service: &str, pod: &str, state: &str) -> anyhow::Result<()> {
    let found = endpoint(lab, service, pod).await?;
    let text = found["breaker"].to_string();
    ensure!(text.contains(state), "not {state}: {found}");
    Ok(())
}

async fn breaker(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy:\n  loadBalancer: {simple: ROUND_ROBIN}\n  \
                circuitBreaker: {failureThreshold: 3, recoveryTimeout: 1s}";
    policy(lab, &["web"], "breaks", spec, &retrying("breaks")).await?;
    let load = lab
        .load("web", Plan::get("http://breaks:8080/").connections(2).rate(100.0))
        .await?;
    eventually(SOON, "both endpoints are used", async || {
        let used = requests(lab, "breaks-v1-0")
            .await?
            .min(requests(lab, "breaks-v1-1").await?);
        ensure!(used > 5, "{used}");
        Ok(())
    })
    .await?;
    breaker_is(lab, "breaks", "breaks-v1-0", "closed").await?;
    lab.app("breaks-v1-0").mode(Mode::Fail(500)).await?;
    eventually(SOON, "the breaker opens", async || {
        breaker_is(lab, "breaks", "breaks-v1-0", "open").await
    })
    .await?;
    let changes = async |to: &str| {
        lab.proxy("web")
            .metric("hauberk_breaker_transitions_total", &[("to", to)])
            .await
    };
    ensure!(changes("open").await? >= 1.0);
    eventually(SOON, "a probe is made and fails", async || {
        ensure!(changes("half_open").await? >= 1.0 && changes("open").await? >= 2.0);
        Ok(())
    })
    .await?;
    let failed = lab.app("breaks-v1-0").counters().await?.failed;
    ensure!(
        failed < 15,
        "{failed} requests went to an endpoint whose threshold is 3"
    );
    lab.app("breaks-v1-0").mode(Mode::Ok).await?;
    eventually(SOON, "the breaker closes", async || {
        breaker_is(lab, "breaks", "breaks-v1-0", "closed").await
    })
    .await?;
    let before = requests(lab, "breaks-v1-0").await?;
    eventually(SOON, "traffic is back", async || {
        let now = requests(lab, "breaks-v1-0").await?;
        ensure!(now > before + 10, "{now} after {before}");
        Ok(())
    })
    .await?;
    ensure!(changes("closed").await? >= 1.0);
    let report = load.stop().await;
    ensure!(report.errors() == 0, "{}", report.summary());
    Ok(())
}

async fn all_open(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy: {circuitBreaker: {failureThreshold: 2, recoveryTimeout: 60s}}";
    policy(lab, &["web"], "opens", spec, &all_to("opens")).await?;
    for pod in ["opens-v1-0", "opens-v1-1"] {
        lab.app(pod).mode(Mode::Fail(500)).await?;
    }
    let start = all_requests(lab, "opens").await?;
    let refused = eventually(SOON, "all breakers are open", async || {
        let reply = lab.pod("web").get("http://opens:8080/").await?;
        ensure!(
            reply.header("x-hauberk-reason") == "breaker_open",
            "{} {}",
            reply.status,
            reply.text()
        );
        Ok(reply)
    })
    .await?;
    ensure!(
        refused.status == 503 && refused.text().contains("circuit breaker"),
        "{}",
        refused.text()
    );
    let before = all_requests(lab, "opens").await?;
    ensure!(
        before - start == 4,
        "two failures open a breaker, {} requests came",
        before - start
    );
    for _ in 0..10 {
        lab.pod("web").get("http://opens:8080/").await?;
    }
    let after = all_requests(lab, "opens").await?;
    ensure!(
        after == before,
        "{} requests passed open breakers",
        after - before
    );
    Ok(())
}

async fn outlier(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy:\n  loadBalancer: {simple: ROUND_ROBIN}\n  outlierDetection: \
                {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 2s, maxEjectionPercent: 50}";
    policy(lab, &["web"], "ejects", spec, &retrying("ejects")).await?;
    lab.app("ejects-v1-0").mode(Mode::Fail(500)).await?;
    let load = lab
        .load("web", Plan::get("http://ejects:8080/").connections(2).rate(100.0))
        .await?;
    let ejections = async || {
        lab.proxy("web")
            .metric("hauberk_cluster_ejections_total", &[])
            .await
    };
    eventually(SOON, "the endpoint is ejected", async || {
        ensure!(ejections().await? >= 1.0);
        Ok(())
    })
    .await?;
    let failed = lab.app("ejects-v1-0").counters().await?.failed;
    ensure!(
        failed <= 6,
        "{failed} requests failed before the ejection after 3"
    );
    lab.app("ejects-v1-0").mode(Mode::Ok).await?;
    let before = requests(lab, "ejects-v1-0").await?;
    eventually(SOON, "traffic is back", async || {
        let now = requests(lab, "ejects-v1-0").await?;
        ensure!(now > before + 10, "{now} after {before}");
        Ok(())
    })
    .await?;
    let report = load.stop().await;
    ensure!(report.errors() == 0, "{}", report.summary());
    Ok(())
}

async fn own_status(lab: &Lab) -> anyhow::Result<()> {
    let spec = "trafficPolicy:\n  loadBalancer: {simple: ROUND_ROBIN}\n  outlierDetection: \
                {consecutive5xxErrors: 3, outlierDetectionHttpErrorCodes: [429], baseEjectionTime: 60s, \
                maxEjectionPercent: 50}";
    policy(lab, &["web"], "limits", spec, &all_to("limits")).await?;
    lab.app("limits-v1-0").mode(Mode::Fail(429)).await?;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(lab.pod("web").get("http://limits:8080/").await?.status);
    }
    let refused = statuses.iter().filter(|status| **status == 429).count();
    ensure!(refused == 3, "ejected after 3, {refused} came back: {statuses:?}");
    Ok(())
}

async fn dead_pod(lab: &Lab) -> anyhow::Result<()> {
    let load = lab
        .load("web", Plan::get("http://dies:8080/").connections(4).rate(200.0))
        .await?;
    eventually(SOON, "both endpoints are used", async || {
        let used = requests(lab, "dies-v1-0")
            .await?
            .min(requests(lab, "dies-v1-1").await?);
        ensure!(used > 5, "{used}");
        Ok(())
    })
    .await?;
    // Its endpoint stays: the operator is the last to know.
    lab.proxy("dies-v1-0").kill();
    lab.kill_apps("dies-v1-0");
    let died = load.now();
    let before = load.so_far().total();
    eventually(SOON, "many more requests", async || {
        let now = load.so_far().total();
        ensure!(now > before + 300, "{now}");
        Ok(())
    })
    .await?;
    let failures = lab
        .proxy("web")
        .metric("hauberk_cluster_connect_failures_total", &[])
        .await?;
    let report = load.stop().await;
    // What was under way when the pod died may be lost; what came after may not.
    let cut = report
        .samples
        .iter()
        .filter(|sample| sample.started >= died && sample.version().is_none())
        .count();
    ensure!(
        cut == 0,
        "{cut} requests failed after the pod had died: {}",
        report.summary()
    );
    ensure!(
        report.errors() <= 4,
        "at most one a connection: {}",
        report.summary()
    );
    ensure!(
        failures < 20.0,
        "{failures} of 300 requests were tried on an endpoint that refuses connections"
    );
    Ok(())
}

async fn dead_app(lab: &Lab) -> anyhow::Result<()> {
    let load = lab
        .load(
            "web",
            Plan::get("http://crashes:8080/").connections(4).rate(200.0),
        )
        .await?;
    eventually(SOON, "both endpoints are used", async || {
        let used = requests(lab, "crashes-v1-0")
            .await?
            .min(requests(lab, "crashes-v1-1").await?);
        ensure!(used > 5, "{used}");
        Ok(())
    })
    .await?;
    lab.kill_apps("crashes-v1-0");
    let died = load.now();
    let before = load.so_far().total();
    eventually(SOON, "many more requests", async || {
        let now = load.so_far().total();
        ensure!(now > before + 300, "{now}");
        Ok(())
    })
    .await?;
    let report = load.stop().await;
    let late = died + Duration::from_millis(50);
    let lost = report
        .samples
        .iter()
        .filter(|sample| sample.started >= late && sample.version().is_none())
        .count();
    ensure!(
        lost == 0,
        "{lost} requests failed for an application that had died: {}",
        report.summary()
    );
    Ok(())
}
