//! Small requests, as many as the proxy takes.

use anyhow::{Context, bail};

use super::Scenario;
use crate::Options;
use crate::cell::{Cell, Meter, Recording, Sample};
use crate::h2load::{self, Load};
use crate::peer::{Peer, Protocol, Shape};
use crate::place::{Place, Way};

/// Bytes in an answer.
const SMALL: u32 = 32;

pub(crate) async fn run(
    scenario: Scenario,
    shape: Shape,
    place: &Place,
    peers: &[Peer],
    options: &Options,
) -> anyhow::Result<Vec<Cell>> {
    let mut cells = Vec::new();
    let mut ways = Vec::new();
    for peer in peers {
        cells.push(Cell {
            peer: *peer,
            samples: Vec::new(),
        });
        ways.push(place.way(*peer, shape).await?);
    }
    for round in 1..=options.rounds {
        for (cell, way) in cells.iter_mut().zip(&ways) {
            let Some(way) = way else { continue };
            let name = format!("{}-{}-{round}", scenario.name(), cell.peer.name());
            let sample = measure(&name, shape, place, way, options).await;
            cell.samples.push(sample.with_context(|| name)?);
        }
    }
    Ok(cells)
}

async fn measure(
    name: &str,
    shape: Shape,
    place: &Place,
    way: &Way,
    options: &Options,
) -> anyhow::Result<Sample> {
    let http1 = shape.app == Protocol::Http1;
    let load = Load {
        url: format!("http://{}/{SMALL}", way.target),
        http1,
        connections: if http1 { 64 } else { 10 },
        streams: if http1 { 1 } else { 10 },
        rate: None,
        body: None,
        authority: way.authority.clone(),
    };
    let log = place.file("h2load.tsv");
    h2load::run(&way.client, &load, options.warm_up, &log).await?;
    let recording = Recording::start(way, options, name).await?;
    let meter = Meter::start(way)?;
    let outcome = h2load::run(&way.client, &load, options.measure, &log).await?;
    let sample = meter.stop(outcome.succeeded, outcome.failed, &outcome.latencies)?;
    if let Some(recording) = recording {
        recording.stop().await?;
    }
    if outcome.failed > 0 {
        bail!(
            "{} of {} requests failed",
            outcome.failed,
            outcome.succeeded + outcome.failed
        );
    }
    Ok(sample)
}
