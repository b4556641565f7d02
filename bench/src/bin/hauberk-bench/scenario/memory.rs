//! Memory: of a proxy that does nothing, of each connection that stays, of destinations that nobody uses.

use std::time::Duration;

use anyhow::{Context, ensure};
use tests::lab::{Pod, eventually};

use super::cases::http1;
use crate::Options;
use crate::cell::{Cell, Row, Sample, rss_mib};
use crate::peer::Peer;
use crate::place::{CLIENT, HTTP1, LOGGING_CLIENT, Place};
use crate::work::connections;

const IDLE: usize = 1_000;
/// What a proxy gives back of a connection that stays idle, it has given back by then.
const SETTLE: Duration = Duration::from_secs(15);
const USED: u16 = 10;
const MORE: u16 = 990;
const KNOWN_WITHIN: Duration = Duration::from_secs(60);

/// An idle proxy, then one with 1,000 connections that each served one request.
pub(super) async fn idle(place: &Place, peers: &[Peer], options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut cells: Vec<Cell> = peers.iter().map(|peer| Cell::empty(*peer)).collect();
    for _ in 0..options.rounds {
        for cell in &mut cells {
            let Some(way) = place.way(cell.peer, http1(None), None).await? else {
                continue;
            };
            let (target, authority) = (way.target, way.authority.clone());
            // The first request brings what no further one does: the route, a connection to the application.
            let first = connections::idle(target, authority.clone(), 1);
            let first = way.client.run(first).await.context(cell.peer.name())?;
            let before = rss_mib(&way.proxies)?;
            let kept = connections::idle(target, authority, IDLE);
            let kept = way.client.run(kept).await.context(cell.peer.name())?;
            tokio::time::sleep(SETTLE).await;
            let after = rss_mib(&way.proxies)?;
            let grown = before.zip(after).map(|(before, after)| (after - before) * 1024.0);
            #[expect(clippy::cast_precision_loss, reason = "a thousand")]
            cell.samples.push(Sample {
                rss_mib: before,
                kib_each: grown.map(|kib| kib / IDLE as f64),
                requests: kept.len() as u64,
                ..Sample::default()
            });
            drop((first, kept));
        }
    }
    Ok(vec![Row {
        label: String::new(),
        cells,
    }])
}

/// A proxy whose application uses 10 destinations, in a mesh of 10 and in one of 1,000.
pub(super) async fn destinations(
    place: &Place,
    peers: &[Peer],
    options: &Options,
) -> anyhow::Result<Vec<Row>> {
    if !peers.contains(&Peer::Hauberk) {
        return Ok(Vec::new());
    }
    place.lab().apply("used", &place.services(0, USED))?;
    known(&place.lab().pod(LOGGING_CLIENT), USED - 1).await?;
    let mut few = Vec::new();
    for _ in 0..options.rounds {
        few.push(used(place).await?);
    }
    place.lab().apply("unused", &place.services(USED, MORE))?;
    // Another pod's proxy asks for the last, so that the one that is measured never hears of any.
    known(&place.lab().pod(LOGGING_CLIENT), USED + MORE - 1).await?;
    let mut cell = Cell::empty(Peer::Hauberk);
    for few in few {
        let many = used(place).await?;
        cell.samples.push(Sample {
            rss_mib: Some(many),
            kib_each: Some((many - few) * 1024.0 / f64::from(MORE)),
            requests: u64::from(USED),
            ..Sample::default()
        });
    }
    place.lab().delete("unused")?;
    Ok(vec![Row {
        label: "990 destinations more".to_owned(),
        cells: vec![cell],
    }])
}

/// The memory of a new proxy after its application has called the used destinations.
async fn used(place: &Place) -> anyhow::Result<f64> {
    let proxy = place.lab().proxy(CLIENT);
    proxy.restart().await?;
    let client = place.lab().pod(CLIENT);
    for number in 0..USED {
        known(&client, number).await?;
    }
    rss_mib(&[proxy.process()?])?.context("a proxy that runs uses memory")
}

async fn known(client: &Pod, number: u16) -> anyhow::Result<()> {
    let url = format!("http://{}:{HTTP1}/1", Place::service_address(number));
    eventually(KNOWN_WITHIN, &format!("{url} can be called"), async || {
        let reply = client.get(&url).await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(())
    })
    .await
}
