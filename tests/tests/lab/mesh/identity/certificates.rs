//! Certificates that last seconds: renewed while they are in use, and honestly missed when nobody renews them.

use std::time::Duration;

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::lab::{Builder, Lab, ServiceSpec, eventually};
use tests::load::Plan;

use super::super::SOON;
use super::super::group::alone;

/// The shortest that the operator signs.
const LIFETIME: &str = "10s";

pub(super) fn trials() -> Vec<Trial> {
    vec![
        alone(
            "field_lesson: certificates are renewed under load, and no request fails",
            lab,
            renewal,
        ),
        alone(
            "field_lesson: an expired certificate is said to be expired, and never used",
            lab,
            expiry,
        ),
    ]
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("reviews").version("v1", 2))
        .client("web")
        .operator_env("HAUBERK_CERTIFICATE_LIFETIME", LIFETIME)
}

async fn renewals(lab: &Lab, pod: &str) -> anyhow::Result<f64> {
    lab.proxy(pod)
        .metric("hauberk_certificate_renewals_total", &[])
        .await
}

async fn renewal(lab: &Lab) -> anyhow::Result<()> {
    // Both kept connections, which must outlive their certificate, and a new handshake for every request.
    let url = "http://reviews:8080/";
    let kept = lab.load("web", Plan::get(url).connections(2).rate(40.0)).await?;
    let fresh = lab
        .load(
            "web",
            Plan::get(url).connections(2).rate(40.0).fresh_connections(),
        )
        .await?;
    let pods = ["web", "reviews-v1-0", "reviews-v1-1"];
    let mut before = Vec::new();
    for pod in pods {
        before.push(renewals(lab, pod).await?);
    }
    eventually(SOON * 3, "every certificate is renewed twice", async || {
        for (pod, before) in pods.iter().zip(&before) {
            let now = renewals(lab, pod).await?;
            ensure!(now >= before + 2.0, "{pod}: {now} after {before}");
        }
        Ok(())
    })
    .await?;
    let (kept, fresh) = (kept.stop().await, fresh.stop().await);
    ensure!(kept.errors() == 0 && kept.opened == 2, "{}", kept.summary());
    ensure!(fresh.errors() == 0, "{}", fresh.summary());
    ensure!(
        kept.elapsed > Duration::from_secs(9),
        "certificates did expire meanwhile"
    );
    Ok(())
}

async fn expiry(lab: &Lab) -> anyhow::Result<()> {
    ensure!(lab.pod("web").get("http://reviews:8080/").await?.status == 200);
    lab.operator().kill();
    eventually(
        SOON * 2,
        "the proxies say that their certificates have expired",
        async || {
            for pod in ["web", "reviews-v1-0", "reviews-v1-1"] {
                let health = lab.proxy(pod).admin("/health/ready").await?;
                ensure!(
                    health.status == 503 && health.text().contains("expired"),
                    "{pod}: {}",
                    health.text()
                );
            }
            Ok(())
        },
    )
    .await?;
    let refused = lab
        .pod("web")
        .get(&format!("http://{}/", lab.pod("reviews-v1-1").address(8080)))
        .await?;
    ensure!(
        refused.status == 503
            && ["no_certificate", "discovery_timeout"].contains(&refused.header("x-hauberk-reason")),
        "{} {:?}",
        refused.status,
        refused.headers
    );
    lab.operator().start().await?;
    eventually(
        SOON * 2,
        "the operator is back, and so is everything",
        async || {
            let reply = lab.pod("web").get("http://reviews:8080/").await?;
            ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
            Ok(())
        },
    )
    .await
}
