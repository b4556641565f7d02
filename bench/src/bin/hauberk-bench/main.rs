//! `hauberk-bench`: what a request costs in Hauberk and in its peers, measured side by side in the lab.
//!
//! `make bench` runs it. A scenario says what is sent and through how many proxies; a peer says which proxy; a round
//! measures every peer once. Nothing here decides whether a figure is good enough to go on: `goals` only says so.

mod cell;
mod certificates;

mod goals;
mod h2load;
mod pages;
mod peer;
mod place;
mod plot;
mod results;
mod scenario;
mod statistics;
mod table;
mod template;
mod work;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use ::tests::lab;
use anyhow::{Context, ensure};
use bench::processor;
use clap::Parser;

use peer::Peer;
use place::Place;
use results::Results;
use scenario::Scenario;

/// Measures Hauberk and its peers in the lab.
#[derive(Debug, Parser)]
#[command(name = "hauberk-bench", version)]
struct Arguments {
    /// Scenarios to run; all when none is named.
    scenarios: Vec<Scenario>,
    /// Print the scenarios and end.
    #[arg(long)]
    list: bool,
    /// Peers to measure, such as hauberk,floor; all that are here when none is named.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Where `scripts/bench-peers.sh` put the proxies of others.
    #[arg(long, env = "HAUBERK_BENCH_PEERS", value_name = "DIR")]
    brought: Option<PathBuf>,
    /// How often each peer is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long one measurement takes, after its warm-up.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How long each proxy is warmed up before a measurement.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// One short round of everything, to see that it works; fails on errors and never on figures.
    #[arg(long)]
    smoke: bool,
    /// Instead of the scenarios: change everything under load for so many minutes, and watch the memory.
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u64>,
    /// Record where the proxies spend their time into `DIR/SCENARIO-PEER-ROUND.data`, with perf.
    #[arg(long, value_name = "DIR")]
    perf: Option<PathBuf>,
    /// Where to write `results.json` and `plot.svg`.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    output: PathBuf,
    /// Put the figures into this document, and the plot beside it.
    #[arg(long, value_name = "FILE")]
    write_docs: Option<PathBuf>,
}

/// What every measurement needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    rounds: u16,
    measure: Duration,
    warm_up: Duration,
    perf: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        Scenario::all().for_each(|scenario| println!("{:<14} {}", scenario.name(), scenario.what()));
        return ExitCode::SUCCESS;
    }
    lab::enter();
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hauberk-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    // Before any thread: all that is started from here on is on this processor, until a proxy is moved.
    processor::stay_on(processor::REST)?;
    allow_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run(arguments));
    runtime.shutdown_background();
    outcome
}

/// Lets this process, and what it will start, open as many files as it may: a thousand connections are many for a shell.
fn allow_files() -> anyhow::Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits").context("cannot read its own limits")?;
    let most = most_files(&limits).context("/proc/self/limits names no limit of open files")?;
    let mut command = Command::new("prlimit");
    command.args([
        "--pid",
        &std::process::id().to_string(),
        &format!("--nofile={most}:{most}"),
    ]);
    let status = command
        .status()
        .context("the bench needs `prlimit`: apt-get install util-linux")?;
    ensure!(status.success(), "cannot raise the limit of open files to {most}");
    Ok(())
}

/// `Max open files  1024  524288  files`: the second is what the first may be raised to.
fn most_files(limits: &str) -> Option<&str> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        scenarios,
        list: _,
        peers,
        brought,
        rounds,
        seconds,
        warm_up,
        smoke,
        soak,
        perf,
        output,
        write_docs,
    } = arguments;
    let time = |seconds: f64, short: u64| {
        if smoke {
            Ok(Duration::from_millis(short))
        } else {
            Duration::try_from_secs_f64(seconds)
        }
    };
    let options = Options {
        rounds: if smoke { 1 } else { rounds },
        measure: time(seconds, 500)?,
        warm_up: time(warm_up, 200)?,
        perf,
    };
    let place = Place::open(brought.as_deref()).await?;
    if let Some(minutes) = soak {
        return scenario::soak(&place, Duration::from_secs(minutes * 60)).await;
    }
    let peers = chosen(&place, peers)?;
    let mut results = Results::new(peers.clone(), options.rounds, options.measure);
    let scenarios = if scenarios.is_empty() {
        Scenario::all().collect()
    } else {
        scenarios
    };
    for scenario in scenarios {
        let rows = scenario.run(&place, &peers, &options).await?;
        ensure!(
            measured(&rows) || !peers.contains(&Peer::Hauberk),
            "{} gave no sample of ours",
            scenario.name()
        );
        println!("\n{}", table::of(scenario, &rows).text());
        results.add(scenario, rows);
        // After each, so that a run that is broken off leaves what it has.
        results.write(&output)?;
    }
    println!("\n{}", goals::table(&results).text());
    if let Some(document) = write_docs {
        pages::write(&document, &results)?;
    }
    Ok(())
}

/// The peers that were asked for, or all that are here.
fn chosen(place: &Place, asked: Vec<Peer>) -> anyhow::Result<Vec<Peer>> {
    for peer in &asked {
        ensure!(
            place.has(*peer),
            "{} is not here: sh scripts/bench-peers.sh brings it, HAUBERK_BENCH_PEERS says where it is",
            peer.name()
        );
    }
    let all = [Peer::Hauberk, Peer::Floor].into_iter().chain(Peer::foreign());
    Ok(if asked.is_empty() {
        all.filter(|peer| place.has(*peer)).collect()
    } else {
        asked
    })
}

/// Whether every case has a sample of ours, except those that no setting of ours makes possible.
fn measured(rows: &[cell::Row]) -> bool {
    rows.iter().any(|row| row.cell(Peer::Hauberk).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_to_raise_to_is_the_hard_one() {
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024    524288    files\n";
        assert_eq!(most_files(limits), Some("524288"));
        assert_eq!(most_files(""), None);
    }

    #[test]
    fn the_command_line_is_sound() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
