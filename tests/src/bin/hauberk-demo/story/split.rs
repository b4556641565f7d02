//! 90/10 over 2,000 requests.

use tests::lab::Lab;
use tests::load::Plan;

use super::{URL, bounds, failures, millis};
use crate::tell::Teller;

const REQUESTS: u64 = 2000;

pub(crate) async fn tell(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    teller.story("a VirtualService splits reviews 90/10 over two subsets");
    teller.step("2,000 requests from web");
    let report = lab
        .load("web", Plan::get(URL).connections(8).requests(REQUESTS))
        .await?
        .finish()
        .await;
    let v2 = report.share("v2", std::time::Duration::ZERO);
    let (low, high) = bounds(0.1, 2000.0);
    teller.claim(
        (low..=high).contains(&v2) && report.total() == REQUESTS,
        "v2 gets a tenth",
        &format!(
            "{:.2} % of {} requests (chance allows {:.2} to {:.2} %)",
            v2 * 100.0,
            report.total(),
            low * 100.0,
            high * 100.0
        ),
    );
    teller.claim(report.errors() == 0, "no request failed", &failures(&report));
    let latency = |share| millis(report.latency.quantile(share));
    teller.note(&format!(
        "latency through both proxies, with mutual TLS: p50 {}, p99 {}",
        latency(0.5),
        latency(0.99)
    ));
    Ok(())
}
