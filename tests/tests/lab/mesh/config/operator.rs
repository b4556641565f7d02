//! The operator is killed, and comes back.

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::client::Call;
use tests::lab::{Builder, Lab, PodSpec, ServiceSpec, eventually};
use tests::load::Plan;

use super::super::SOON;
use super::super::group::{Group, alone};
use super::super::rules::{all_to, route};

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial(
            "without the operator traffic goes on, and its return pushes nothing",
            gone,
        ),
        group.trial(
            "an address that is new while the operator is away is refused, and works later",
            new_address,
        ),
        alone(
            "field_lesson: a proxy is not ready before its first configuration",
            lab,
            readiness,
        ),
        alone(
            "field_lesson: calls of an application that starts before its proxy end in time",
            lab,
            early_app,
        ),
    ]
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("reviews").version("v1", 2))
        .service(ServiceSpec::http("ratings").version("v1", 1))
        .proxy_env("HAUBERK_DISCOVERY_TIMEOUT", "1s")
        .client("web")
}

async fn sent(lab: &Lab) -> anyhow::Result<f64> {
    let text = lab.operator().metrics().await?;
    let lines = text
        .lines()
        .filter(|line| line.contains("resources_sent_total") && !line.starts_with('#'));
    Ok(lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}

async fn connected(lab: &Lab) -> anyhow::Result<()> {
    for pod in ["web", "reviews-v1-0", "reviews-v1-1", "ratings-v1-0"] {
        let up = lab.proxy(pod).metric("hauberk_operator_connected", &[]).await?;
        ensure!((up - 1.0).abs() < f64::EPSILON, "{pod} is not connected");
    }
    Ok(())
}

async fn gone(lab: &Lab) -> anyhow::Result<()> {
    route(lab, &["web"], "reviews", &all_to("reviews")).await?;
    let load = lab
        .load(
            "web",
            Plan::get("http://reviews:8080/").connections(2).rate(100.0),
        )
        .await?;
    let fresh = lab
        .load(
            "web",
            Plan::get("http://reviews:8080/")
                .connections(1)
                .rate(50.0)
                .fresh_connections(),
        )
        .await?;
    let snapshot = async || lab.proxy("web").metric("hauberk_config_snapshot", &[]).await;
    let before = snapshot().await?;
    lab.operator().kill();
    eventually(SOON, "the proxies have noticed", async || {
        let up = lab.proxy("web").metric("hauberk_operator_connected", &[]).await?;
        ensure!(up < 1.0);
        Ok(())
    })
    .await?;
    let health: serde_json::Value = lab.proxy("web").admin("/health").await?.json()?;
    ensure!(
        health["status"] == "degraded" && health["reasons"].to_string().contains("operator"),
        "{health}"
    );
    lab.proxy("web").ready().await?;
    lab.operator().start().await?;
    eventually(SOON * 2, "all proxies are connected again", async || {
        connected(lab).await
    })
    .await?;
    // A change that is followed: had the operator more to say, it would have said it before.
    let (pushed, swapped) = (sent(lab).await?, snapshot().await? - before);
    ensure!(
        pushed == 0.0,
        "the operator sent {pushed} resources that nobody had missed"
    );
    ensure!(swapped == 0.0, "{swapped} swaps for nothing");
    let before = fresh.so_far().total();
    eventually(SOON, "traffic goes on", async || {
        let now = fresh.so_far().total();
        ensure!(now > before + 50, "{now}");
        Ok(())
    })
    .await?;
    route(lab, &["web"], "reviews", &all_to("reviews")).await?;
    for load in [load, fresh] {
        let report = load.stop().await;
        ensure!(
            report.errors() == 0 && report.total() > 50,
            "{}",
            report.summary()
        );
    }
    Ok(())
}

async fn new_address(lab: &Lab) -> anyhow::Result<()> {
    ensure!(lab.pod("web").get("http://reviews:8080/").await?.status == 200);
    lab.operator().kill();
    let reply = lab.pod("web").get("http://ratings:8080/").await?;
    ensure!(
        reply.status == 503 && reply.header("x-hauberk-reason") == "discovery_timeout",
        "{} {:?}",
        reply.status,
        reply.headers
    );
    ensure!(
        lab.pod("web").get("http://reviews:8080/").await?.status == 200,
        "known addresses go on"
    );
    lab.operator().start().await?;
    eventually(SOON * 2, "the new address works", async || {
        let reply = lab.pod("web").get("http://ratings:8080/").await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(())
    })
    .await
}

async fn readiness(lab: &Lab) -> anyhow::Result<()> {
    lab.operator().kill();
    let proxy = lab.proxy("web");
    proxy.kill();
    proxy.start().await?;
    eventually(
        SOON,
        "the proxy lives and says that it is not ready",
        async || {
            let live = proxy.admin("/health/live").await?;
            let ready = proxy.admin("/health/ready").await?;
            ensure!(
                live.status == 200 && ready.status == 503,
                "{} {}",
                live.status,
                ready.status
            );
            ensure!(
                ready.text().contains("configuration"),
                "it says why: {}",
                ready.text()
            );
            Ok(())
        },
    )
    .await?;
    lab.operator().start().await?;
    eventually(SOON * 2, "it is ready once the operator is back", async || {
        let ready = proxy.admin("/health/ready").await?;
        ensure!(ready.status == 200, "{}", ready.text());
        Ok(())
    })
    .await?;
    ensure!(lab.pod("web").get("http://reviews:8080/").await?.status == 200);
    Ok(())
}

async fn early_app(lab: &Lab) -> anyhow::Result<()> {
    // The application calls while its proxy is still starting: it is refused or answered, never left hanging, and
    // never sent out in clear text.
    let proxy = lab.proxy("web");
    proxy.kill();
    let refused = lab.pod("web").get("http://reviews:8080/").await;
    ensure!(
        refused.is_err(),
        "without a proxy nothing leaves the pod: {refused:?}"
    );
    proxy.start().await?;
    let answered = eventually(SOON * 2, "the first call is answered", async || {
        let reply = lab
            .pod("web")
            .send(Call::get("http://reviews:8080/").patience(SOON / 2))
            .await?;
        ensure!(reply.status == 200 || reply.status == 503, "{}", reply.status);
        ensure!(reply.status == 200, "not yet: {}", reply.text());
        Ok(reply)
    })
    .await?;
    ensure!(answered.app_pod().starts_with("reviews-"));
    // What the kubelet would do: the pod counts as ready only when its proxy says so, and then the first call works.
    for number in 0..3 {
        let name = format!("late-{number}");
        lab.add_pod(PodSpec::new(&name)).await?;
        let first = lab.pod(&name).get("http://reviews:8080/").await?;
        ensure!(
            first.status == 200,
            "the first call of a ready pod: {} {}",
            first.status,
            first.text()
        );
    }
    Ok(())
}
