//! Hours in minutes: load, connections that come and go, endpoints and policies that change, and the memory of the
//! proxies beside it. What grows after the warm-up is a leak.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, interval};

use super::cases::{http1, small};
use crate::cell::rss_mib;
use crate::peer::{Peer, Protocol};
use crate::place::{self, Extra, Place, Way};
use crate::statistics::Spread;
use crate::work::{Outcome, Work};

/// How much the median of the last fifth may lie above that of the second.
const MOST_GROWTH: f64 = 1.05;
/// Memory moves in steps; what is below one is no growth.
const STEP_MIB: f64 = 1.0;
const SLICE: Duration = Duration::from_secs(5);

/// Runs it for `time` and prints what it finds; fails when a request failed or memory grew.
pub(crate) async fn soak(place: &Place, time: Duration) -> anyhow::Result<()> {
    let name = "soak";
    let addresses = [place.plain_address()];
    let extra = place
        .add_service(name, 90, &addresses, &place::features(name, ""))
        .await?;
    let same_proxy = Extra {
        shared: true,
        ..Extra::default()
    };
    let ways = [
        open(place, None, Some(&extra)).await?,
        open(place, Some(Protocol::Http2), Some(&same_proxy)).await?,
    ];
    let end = Instant::now() + time;
    let mut memory: Vec<f64> = Vec::new();
    let mut total = Outcome::default();
    while Instant::now() < end {
        let outcome = tokio::select! {
            outcome = slice(place, &ways) => outcome?,
            Err(error) = change(place, name, extra.clone()) => return Err(error),
        };
        total.succeeded += outcome.succeeded;
        total.failed += outcome.failed;
        let now: Option<f64> = ways.iter().map(|way| rss_mib(&way.proxies).ok().flatten()).sum();
        memory.push(now.context("a proxy has ended")?);
    }
    let (early, late) = fifths(&memory).context("too short: let it run for some minutes")?;
    println!(
        "\nsoak: {} requests, {} failed; memory of the proxies {early:.1} MiB after the warm-up, {late:.1} MiB at the end",
        total.succeeded, total.failed
    );
    ensure!(total.failed == 0, "{} requests failed", total.failed);
    ensure!(
        late <= early * MOST_GROWTH || late - early <= STEP_MIB,
        "memory grew from {early:.1} to {late:.1} MiB"
    );
    Ok(())
}

async fn open(place: &Place, wire: Option<Protocol>, extra: Option<&Extra>) -> anyhow::Result<Way> {
    let way = place.way(Peer::Hauberk, http1(wire), extra).await?;
    way.context("Hauberk takes every shape")
}

/// Load and new connections, on both ways.
async fn slice(place: &Place, ways: &[Way; 2]) -> anyhow::Result<Outcome> {
    let mut total = Outcome::default();
    for way in ways {
        for work in [Work::Requests(small("/1024")), Work::NewConnections] {
            let outcome = work
                .run(way, Protocol::Http1, SLICE, &place.file("soak.tsv"))
                .await
                .with_context(|| format!("{work:?} to {}", way.authority))?;
            total.succeeded += outcome.succeeded;
            total.failed += outcome.failed;
        }
    }
    Ok(total)
}

/// Endpoints and policies, a change a second until it is dropped.
async fn change(place: &Place, name: &str, extra: Extra) -> anyhow::Result<()> {
    let (_, address) = extra.service.context("the soak has a service of its own")?;
    let mut seconds = interval(Duration::from_secs(1));
    for number in (0_u8..=u8::MAX).cycle() {
        seconds.tick().await;
        // The application answers at one address; the others are there and not ready, as pods that start are.
        let mut yaml = place::service(name, address, &[place.plain_address()]);
        yaml += &place::not_ready(name, &[Ipv4Addr::new(10, 79, 0, number)]);
        yaml += &place::features(
            name,
            &format!("tcp: {{maxConnections: {}}}", 1000 + u32::from(number)),
        );
        place.lab().apply(name, &yaml)?;
    }
    Ok(())
}

/// The medians of the second fifth, when all is warm, and of the last.
fn fifths(memory: &[f64]) -> Option<(f64, f64)> {
    let fifth = memory.len() / 5;
    let median = |part: &[f64]| Spread::of(part.iter().copied()).map(|spread| spread.median);
    let early = median(memory.get(fifth..2 * fifth)?)?;
    let late = median(memory.get(memory.len() - fifth..)?)?;
    Some((early, late))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_lies_between_the_warm_up_and_the_end() {
        let memory = [5.0, 9.0, 10.0, 10.0, 11.0, 11.0, 11.0, 12.0, 12.0, 14.0];
        assert_eq!(fifths(&memory), Some((10.0, 13.0)));
        assert_eq!(fifths(&[1.0; 4]), None);
    }
}
