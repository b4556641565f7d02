//! The split is edited under load.

use std::time::Duration;

use tests::lab::{Lab, eventually};
use tests::load::Plan;
use tokio::time::Instant;

use super::{PATIENCE, URL, bounds, failures, millis};
use crate::shop::{REVIEWS, traffic};
use crate::tell::Teller;

const CONNECTIONS: usize = 8;
const RATE: f64 = 400.0;

pub(crate) async fn tell(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    teller.story("the split is edited to 50/50 while web calls 400 times a second");
    let load = lab
        .load("web", Plan::get(URL).connections(CONNECTIONS).rate(RATE))
        .await?;
    teller.wait("90/10 under load,", Duration::from_secs(2)).await;
    let before = applied(lab).await?;
    let edited = Instant::now();
    let edited_at = load.now();
    lab.apply(REVIEWS, &traffic(50, 50))?;
    teller.step("waiting for the proxy to apply it");
    eventually(PATIENCE, "web's proxy applies the edited route", async || {
        anyhow::ensure!(applied(lab).await? != before, "it still has version {before}");
        Ok(())
    })
    .await?;
    let took = edited.elapsed();
    let applied_at = load.now();
    teller.wait("50/50 under load,", Duration::from_secs(5)).await;
    let report = load.stop().await;

    teller.claim(
        took < Duration::from_secs(1),
        "in effect in well under a second",
        &millis(took),
    );
    let old = report.samples.iter().filter(|s| s.ended() < edited_at).count();
    let new = report.samples.iter().filter(|s| s.started >= applied_at).count();
    let share = share_of_v2(&report, applied_at);
    let (low, high) = bounds(0.5, f64::from(u32::try_from(new)?));
    teller.claim(
        (low..=high).contains(&share),
        "every later request follows it",
        &format!(
            "v2 got {:.1} % of {new} requests (chance allows {:.1} to {:.1} %), after 10 % of {old}",
            share * 100.0,
            low * 100.0,
            high * 100.0
        ),
    );
    teller.claim(report.errors() == 0, "no request failed", &failures(&report));
    teller.claim(
        report.opened == CONNECTIONS as u64,
        "no connection was closed",
        &format!("{} opened at the start, none since", report.opened),
    );
    Ok(())
}

/// Version of the route that web's proxy has applied.
async fn applied(lab: &Lab) -> anyhow::Result<String> {
    let config: serde_json::Value = lab.proxy("web").admin("/config").await?.json()?;
    let resources = config["resources"].as_array().cloned().unwrap_or_default();
    let route = resources
        .iter()
        .find(|r| r["kind"] == "route" && r["name"].as_str().is_some_and(|n| n.starts_with("reviews.")));
    let active = route.map(|route| route["version"].to_string());
    active.ok_or_else(|| anyhow::anyhow!("web's proxy has no route to reviews"))
}

fn share_of_v2(report: &tests::load::Report, from: Duration) -> f64 {
    let (mut all, mut v2) = (0_u32, 0_u32);
    for version in report
        .samples
        .iter()
        .filter(|s| s.started >= from)
        .filter_map(|s| s.version())
    {
        all += 1;
        v2 += u32::from(version == "v2");
    }
    f64::from(v2) / f64::from(all.max(1))
}
