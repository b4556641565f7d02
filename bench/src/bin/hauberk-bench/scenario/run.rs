//! Runs a case: every peer in turn, round after round.

use std::time::Duration;

use anyhow::{Context, bail};

use super::Scenario;
use super::cases::{Case, For};
use crate::Options;
use crate::cell::{Cell, Meter, Recording, Row, Sample};
use crate::peer::Peer;
use crate::place::{Place, Way};

/// A run that brought nothing in so long a time is not repeated.
const LONGEST: Duration = Duration::from_secs(10);

/// Measures `cases` in turns: every peer of every case once in a round.
pub(super) async fn cases(
    scenario: Scenario,
    cases: Vec<Case>,
    place: &Place,
    peers: &[Peer],
    options: &Options,
) -> anyhow::Result<Vec<Row>> {
    let mut opened = Vec::new();
    for case in &cases {
        opened.push(open(scenario, case, place, peers).await?);
    }
    for round in 1..=options.rounds {
        for (case, ways) in cases.iter().zip(&mut opened) {
            for (cell, way) in ways {
                let Some(way) = way else { continue };
                let label = case.label.replace([' ', '/', ','], "-");
                let names = [scenario.name(), &label, cell.peer.name(), &round.to_string()];
                let name = names.into_iter().filter(|part| !part.is_empty());
                let name = name.collect::<Vec<_>>().join("-");
                let sample = measure(&name, case, place, way, options).await;
                cell.samples.push(sample.with_context(|| name)?);
            }
        }
    }
    let rows = cases.into_iter().zip(opened).map(|(case, ways)| Row {
        label: case.label,
        cells: ways.into_iter().map(|(cell, _)| cell).collect(),
    });
    Ok(rows.collect())
}

/// The ways of a case, each with an empty cell.
async fn open(
    scenario: Scenario,
    case: &Case,
    place: &Place,
    peers: &[Peer],
) -> anyhow::Result<Vec<(Cell, Option<Way>)>> {
    let direct = (case.for_whom == For::Everyone).then_some(Peer::Direct);
    let fits = |peer: &Peer| case.for_whom != For::Ours || *peer == Peer::Hauberk;
    let mut ways = Vec::new();
    for peer in direct.into_iter().chain(peers.iter().copied().filter(fits)) {
        let way = place.way(peer, case.shape, case.extra.as_ref()).await;
        let way = way.with_context(|| format!("{} {} {}", scenario.name(), case.label, peer.name()))?;
        ways.push((Cell::empty(peer), way));
    }
    Ok(ways)
}

async fn measure(
    name: &str,
    case: &Case,
    place: &Place,
    way: &Way,
    options: &Options,
) -> anyhow::Result<Sample> {
    let log = place.file("h2load.tsv");
    let (work, app) = (&case.work, case.shape.app);
    work.run(way, app, options.warm_up, &log)
        .await
        .context("warming up")?;
    let recording = Recording::start(way, options, name).await?;
    let mut time = options.measure;
    let (meter, outcome) = loop {
        let meter = Meter::start(way)?;
        let outcome = work.run(way, app, time, &log).await?;
        // On a machine with much else to do, a short run may end before its first answer.
        if outcome.succeeded + outcome.failed > 0 || time >= LONGEST {
            break (meter, outcome);
        }
        time *= 2;
    };
    let sample = meter.stop(&outcome, time).with_context(|| way.last_words())?;
    if let Some(recording) = recording {
        recording.stop().await?;
    }
    if outcome.failed > 0 {
        bail!(
            "{} of {} failed; {}",
            outcome.failed,
            outcome.succeeded + outcome.failed,
            way.last_words()
        );
    }
    Ok(sample)
}
