//! What Hauberk wants to reach, against what was measured. It says met or missed, and never ends a run.

use crate::cell::{Row, Sample};
use crate::peer::Peer;
use crate::results::Results;
use crate::scenario::Scenario;
use crate::statistics::Spread;
use crate::table::{Table, with_spread};

/// Shares of the other's CPU time per request.
const OF_THE_FLOOR: f64 = 1.3;
const OF_NGINX: f64 = 1.0;
const OF_ENVOY: f64 = 0.35;
const IDLE_MIB: f64 = 10.0;
const KIB_PER_CONNECTION: f64 = 10.0;
/// Memory is counted in pages, and comes in larger pieces: 990 destinations may move it by so much either way.
const NOISE_KIB: f64 = 0.3;

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    goal: String,
    measured: Option<Spread>,
    digits: usize,
    met: bool,
}

impl Verdict {
    fn most(goal: String, measured: Spread, limit: f64) -> Verdict {
        Verdict {
            met: measured.median <= limit,
            digits: 2,
            measured: Some(measured),
            goal,
        }
    }
}

/// All goals that this run can tell about.
pub(crate) fn table(results: &Results) -> Table {
    let mut rows = vec![["goal", "measured", "verdict"].map(str::to_owned).to_vec()];
    for verdict in verdicts(results) {
        let word = if verdict.met { "met" } else { "missed" };
        rows.push(vec![
            verdict.goal,
            with_spread(verdict.measured, verdict.digits),
            word.to_owned(),
        ]);
    }
    Table {
        title: "goals: Hauberk against the floor and its peers".to_owned(),
        rows,
    }
}

fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for scenario in [
        Scenario::Http1,
        Scenario::Http2,
        Scenario::Http1Mtls,
        Scenario::Http2Mtls,
    ] {
        for row in results.rows(scenario) {
            for (peer, share) in [
                (Peer::Floor, OF_THE_FLOOR),
                (Peer::Nginx, OF_NGINX),
                (Peer::Envoy, OF_ENVOY),
            ] {
                let goal = format!("{}: CPU ≤ {share} × {}", scenario.name(), peer.name());
                let ratio = row.ratio(Peer::Hauberk, peer, |sample| sample.cpu_us);
                verdicts.extend(ratio.map(|ratio| Verdict::most(goal, ratio, share)));
            }
        }
    }
    verdicts.extend(results.rows(Scenario::Latency).iter().flat_map(latency));
    for row in results.rows(Scenario::TcpMtlsBulk) {
        let more = |sample: &Sample| sample.per_second;
        verdicts.extend(against(results, |peer| {
            let ratio = row.ratio(Peer::Hauberk, peer, more)?;
            let goal = format!("tcp-mtls-bulk: throughput ≥ {}", peer.name());
            Some(Verdict {
                met: ratio.median >= 1.0,
                ..Verdict::most(goal, ratio, 1.0)
            })
        }));
    }
    for row in results.rows(Scenario::ChurnMtls) {
        verdicts.extend(against(results, |peer| {
            let ratio = row.ratio(Peer::Hauberk, peer, |sample| sample.cpu_us)?;
            let goal = format!("churn-mtls, {}: CPU per connection ≤ {}", row.label, peer.name());
            Some(Verdict::most(goal, ratio, 1.0))
        }));
    }
    verdicts.extend(memory(results));
    verdicts
}

fn against(results: &Results, verdict: impl Fn(Peer) -> Option<Verdict>) -> Vec<Verdict> {
    let others = results.peers.iter().filter(|peer| Peer::foreign().contains(peer));
    others.filter_map(|peer| verdict(*peer)).collect()
}

/// What each proxy adds to the p99 of the client without one, against the least that another adds.
fn latency(row: &Row) -> Vec<Verdict> {
    let added = |peer: Peer| -> Option<Spread> {
        let p99 = |peer: Peer| Some(row.cell(peer)?.values(|sample| sample.p99_us));
        let (with, without) = (p99(peer)?, p99(Peer::Direct)?);
        let pairs = with.iter().zip(&without);
        Spread::of(pairs.filter_map(|(with, without)| Some((*with)? - (*without)?)))
    };
    let Some(ours) = added(Peer::Hauberk) else {
        return Vec::new();
    };
    let others = Peer::foreign()
        .into_iter()
        .filter_map(|peer| Some((peer, added(peer)?)));
    others
        .map(|(peer, theirs)| Verdict {
            goal: format!(
                "latency, {}: p99 adds less than {} ({:.0} µs)",
                row.label,
                peer.name(),
                theirs.median
            ),
            met: ours.median < theirs.median,
            digits: 0,
            measured: Some(ours),
        })
        .collect()
}

fn memory(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let ours = |row: &Row, of: fn(&Sample) -> Option<f64>| row.cell(Peer::Hauberk)?.spread(of);
    for row in results.rows(Scenario::Idle) {
        let goal = |what: &str, most: f64| format!("idle: {what} ≤ {most}");
        let idle = ours(row, |sample| sample.rss_mib);
        verdicts.extend(idle.map(|idle| Verdict::most(goal("MiB", IDLE_MIB), idle, IDLE_MIB)));
        let each = ours(row, |sample| sample.kib_each);
        let limit = KIB_PER_CONNECTION;
        verdicts.extend(each.map(|each| Verdict::most(goal("KiB per idle connection", limit), each, limit)));
    }
    for row in results.rows(Scenario::Destinations) {
        let each = ours(row, |sample| sample.kib_each);
        let goal = format!("destinations: no growth from unused ones (≤ {NOISE_KIB} KiB each is noise)");
        verdicts.extend(each.map(|each| Verdict::most(goal, each, NOISE_KIB)));
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cell::Cell;

    fn cell(peer: Peer, sample: Sample) -> Cell {
        Cell {
            peer,
            samples: vec![sample],
        }
    }

    fn run(scenario: Scenario, cells: Vec<Cell>) -> Vec<(String, bool)> {
        let peers = cells.iter().map(|cell| cell.peer).collect();
        let mut results = Results::new(peers, 1, Duration::from_secs(1));
        let label = String::new();
        results.add(scenario, vec![Row { label, cells }]);
        let verdicts = verdicts(&results);
        verdicts.into_iter().map(|v| (v.goal, v.met)).collect()
    }

    #[test]
    fn a_goal_is_met_or_missed_by_its_ratio_and_unknown_without_the_peer() {
        let cpu = |cpu_us| Sample {
            cpu_us: Some(cpu_us),
            ..Sample::default()
        };
        let found = run(
            Scenario::Http1,
            vec![
                cell(Peer::Hauberk, cpu(39.0)),
                cell(Peer::Floor, cpu(30.0)),
                cell(Peer::Envoy, cpu(100.0)),
            ],
        );
        let expected = [
            ("http1: CPU ≤ 1.3 × floor", true),
            ("http1: CPU ≤ 0.35 × envoy", false),
        ];
        assert_eq!(found, expected.map(|(goal, met)| (goal.to_owned(), met)));
    }

    #[test]
    fn latency_is_judged_by_what_a_proxy_adds() {
        let p99 = |p99_us| Sample {
            p99_us: Some(p99_us),
            ..Sample::default()
        };
        let found = run(
            Scenario::Latency,
            vec![
                cell(Peer::Direct, p99(100.0)),
                cell(Peer::Hauberk, p99(300.0)),
                cell(Peer::Envoy, p99(350.0)),
                cell(Peer::Nginx, p99(280.0)),
            ],
        );
        assert_eq!(
            found.iter().map(|(_, met)| *met).collect::<Vec<_>>(),
            [true, false]
        );
        assert!(found[0].0.contains("250"), "{found:?}");
    }

    #[test]
    fn more_throughput_and_less_memory_are_better() {
        let bulk = |per_second| Sample {
            per_second: Some(per_second),
            ..Sample::default()
        };
        let found = run(
            Scenario::TcpMtlsBulk,
            vec![cell(Peer::Hauberk, bulk(900.0)), cell(Peer::Envoy, bulk(1000.0))],
        );
        assert!(!found[0].1, "{found:?}");
        let memory = Sample {
            rss_mib: Some(9.0),
            kib_each: Some(12.0),
            ..Sample::default()
        };
        let found = run(Scenario::Idle, vec![cell(Peer::Hauberk, memory)]);
        assert_eq!(
            found.iter().map(|(_, met)| *met).collect::<Vec<_>>(),
            [true, false]
        );
    }
}
