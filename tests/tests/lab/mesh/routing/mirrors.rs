//! Mirrors: copies of the share that is meant, which the caller neither waits for nor hears of.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::app::Mode;
use tests::client::Call;
use tests::lab::{Lab, eventually};

use super::super::SOON;
use super::super::group::Group;
use super::super::resilience::all_requests;
use super::super::rules::{all_to, route};
use super::by_chance;

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial(
            "a mirror gets its share of copies, and the caller the answer",
            share,
        ),
        group.trial("a mirror that hangs neither delays nor fails anything", hangs),
    ]
}

const MIRROR: &str = "ratings-v1-0";

/// Copies that the caller's proxy has sent, and those of them that failed.
async fn counted(lab: &Lab) -> anyhow::Result<[f64; 2]> {
    let proxy = lab.proxy("web");
    let sent = proxy.metric("hauberk_cluster_mirrored_total", &[]).await?;
    let failed = proxy.metric("hauberk_cluster_mirror_failures_total", &[]).await?;
    Ok([sent, failed])
}

async fn share(lab: &Lab) -> anyhow::Result<()> {
    let rules = "- match: [{uri: {prefix: /all}}]\n  mirrors: [{destination: {host: ratings}}]\n  \
                 route: [{destination: {host: reviews}}]\n\
                 - mirror: {host: ratings}\n  mirrorPercentage: {value: 20}\n  \
                 route: [{destination: {host: reviews}}]";
    route(lab, &["web"], "reviews", rules).await?;
    let copies = all_requests(lab, "ratings").await?;
    let [sent, failed] = counted(lab).await?;
    for call in [
        Call::post("http://reviews:8080/all", "x".repeat(100_000)),
        Call::post("http://reviews:8080/all", "x".repeat(100_000)).http2(),
    ] {
        let reply = lab.pod("web").send(call).await?;
        ensure!(
            reply.status == 200 && reply.header("x-app-service") == "reviews",
            "{reply:?}"
        );
    }
    eventually(SOON, "both copies have arrived and are counted", async || {
        let arrived = all_requests(lab, "ratings").await? - copies;
        let [sent_now, failed_now] = counted(lab).await?;
        ensure!(
            arrived == 2 && (sent_now - sent - 2.0).abs() < 0.5 && failed_now - failed < 0.5,
            "{arrived} arrived, {sent_now} sent, {failed_now} failed"
        );
        Ok(())
    })
    .await?;

    let originals = all_requests(lab, "reviews").await?;
    let mut session = lab
        .pod("web")
        .session("reviews:8080", tests::client::Protocol::Http1)
        .await?;
    for _ in 0..400 {
        let reply = session.send(&Call::get("http://reviews:8080/")).await?;
        ensure!(
            reply.status == 200 && reply.header("x-app-service") == "reviews",
            "{reply:?}"
        );
    }
    ensure!(all_requests(lab, "reviews").await? == originals + 400);
    by_chance(all_requests(lab, "ratings").await? - copies - 2, 400, 0.2)
}

async fn hangs(lab: &Lab) -> anyhow::Result<()> {
    let rules = "- mirror: {host: ratings}\n  timeout: 1s\n  route: [{destination: {host: reviews}}]";
    route(lab, &["web"], "reviews", rules).await?;
    let [_, failed] = counted(lab).await?;
    lab.app(MIRROR).mode(Mode::Hang).await?;
    for _ in 0..20 {
        let call = Call::post("http://reviews:8080/", "x".repeat(10_000));
        let reply = lab.pod("web").send(call).await?;
        ensure!(
            reply.status == 200 && reply.took < Duration::from_millis(800),
            "{reply:?}"
        );
    }
    eventually(SOON, "the copies are given up", async || {
        let [_, failed_now] = counted(lab).await?;
        ensure!(failed_now - failed > 19.5, "{failed_now}");
        Ok(())
    })
    .await?;
    lab.app(MIRROR).mode(Mode::Ok).await?;
    route(lab, &["web"], "reviews", &all_to("reviews")).await
}
