//! Faults on purpose: in the client's proxy, for the share of the requests that is meant, and told as what they are.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use http::Method;
use libtest_mimic::Trial;
use tests::client::Call;
use tests::lab::Lab;
use tests::load::Plan;

use super::super::group::Group;
use super::super::resilience::all_requests;
use super::super::rules::route;
use super::by_chance;

pub(super) fn trials(group: &Arc<Group>) -> Vec<Trial> {
    vec![
        group.trial(
            "a fault answers its share of the requests in the client's proxy",
            aborts,
        ),
        group.trial(
            "a fault holds requests back, within the timeout of its rule",
            delays,
        ),
    ]
}

const TO_REVIEWS: &str = "  route: [{destination: {host: reviews}}]";

async fn aborts(lab: &Lab) -> anyhow::Result<()> {
    let rules = format!(
        "- match: [{{uri: {{prefix: /all}}}}]\n  \
         fault: {{abort: {{httpStatus: 418, percentage: {{value: 100}}}}}}\n{TO_REVIEWS}\n\
         - match: [{{uri: {{prefix: /grpc}}}}]\n  \
         fault: {{abort: {{grpcStatus: RESOURCE_EXHAUSTED, percentage: {{value: 100}}}}}}\n{TO_REVIEWS}\n\
         - fault: {{abort: {{httpStatus: 503, percentage: {{value: 25}}}}}}\n{TO_REVIEWS}"
    );
    route(lab, &["web"], "reviews", &rules).await?;
    let before = all_requests(lab, "reviews").await?;
    let all = lab.pod("web").get("http://reviews:8080/all").await?;
    ensure!(
        all.status == 418 && all.header("x-hauberk-reason") == "fault_abort",
        "{all:?}"
    );
    let grpc = Call::new(Method::POST, "http://reviews:8080/grpc").http2();
    let grpc = lab
        .pod("web")
        .send(grpc.header("content-type", "application/grpc"))
        .await?;
    ensure!(
        grpc.status == 200
            && grpc.header("grpc-status") == "8"
            && grpc.header("x-hauberk-reason") == "fault_abort",
        "{grpc:?}"
    );
    let other = lab.pod("web").get("http://reviews:8080/grpc").await?;
    ensure!(other.status == 429, "{other:?}");
    ensure!(
        all_requests(lab, "reviews").await? == before,
        "an endpoint heard of it"
    );

    let mut aborted = 0;
    let mut session = lab
        .pod("web")
        .session("reviews:8080", tests::client::Protocol::Http1)
        .await?;
    for _ in 0..400 {
        let reply = session.send(&Call::get("http://reviews:8080/")).await?;
        ensure!(matches!(reply.status, 200 | 503), "{reply:?}");
        aborted += u64::from(reply.status == 503);
    }
    by_chance(aborted, 400, 0.25)?;
    ensure!(
        all_requests(lab, "reviews").await? == before + 400 - aborted,
        "an aborted request reached an endpoint"
    );
    let counted = lab
        .proxy("web")
        .metric("hauberk_faults_total", &[("fault", "abort")])
        .await?;
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    let least = (aborted + 3) as f64;
    ensure!(counted >= least, "{counted} of {least}");
    Ok(())
}

async fn delays(lab: &Lab) -> anyhow::Result<()> {
    let rules = format!(
        "- match: [{{uri: {{prefix: /short}}}}]\n  timeout: 200ms\n  \
         fault: {{delay: {{fixedDelay: 8s, percentage: {{value: 100}}}}}}\n{TO_REVIEWS}\n\
         - match: [{{uri: {{prefix: /late}}}}]\n  \
         fault: {{delay: {{fixedDelay: 300ms, percent: 100}}}}\n{TO_REVIEWS}\n- {}",
        TO_REVIEWS.trim_start()
    );
    route(lab, &["web"], "reviews", &rules).await?;
    let late = lab.pod("web").get("http://reviews:8080/late").await?;
    ensure!(
        late.status == 200
            && late.header("x-hauberk-reason") == "fault_delay"
            && late.took >= Duration::from_millis(300),
        "{late:?}"
    );
    let short = lab.pod("web").get("http://reviews:8080/short").await?;
    ensure!(
        short.status == 504
            && short.header("x-hauberk-reason") == "timeout"
            && short.took < Duration::from_secs(4),
        "{short:?}"
    );
    let quick = lab
        .load("web", Plan::get("http://reviews:8080/").requests(20))
        .await?;
    let report = quick.finish().await;
    ensure!(report.errors() == 0, "{}", report.summary());
    Ok(())
}
