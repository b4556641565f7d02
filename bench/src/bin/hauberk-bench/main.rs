//! `hauberk-bench`: what a request costs in Hauberk and in its peers, measured side by side in the lab.
//!
//! `make bench` runs it. A scenario says what is sent and through how many proxies; a peer says which proxy; a round
//! measures every peer once. Nothing here decides whether a figure is good enough to go on: that is `goals`, which only
//! says so.

mod cell;
mod certificates;
mod cpu;
mod h2load;
mod peer;
mod place;
mod scenario;
mod statistics;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::lab;

use peer::Peer;
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
    /// Peers to measure, such as hauberk,floor.
    #[arg(long, value_delimiter = ',', default_value = "hauberk,floor")]
    peers: Vec<Peer>,
    /// How often each peer is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long one measurement takes, after its warm-up.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long each proxy is warmed up before a measurement.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Record where the proxies spend their time into `DIR/SCENARIO-PEER-ROUND.data`, with perf.
    #[arg(long, value_name = "DIR")]
    perf: Option<PathBuf>,
}

/// What every measurement needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    rounds: usize,
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
    cpu::stay_on(cpu::LOAD)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run(arguments));
    runtime.shutdown_background();
    outcome
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        mut scenarios,
        list: _,
        peers,
        rounds,
        seconds,
        warm_up,
        perf,
    } = arguments;
    if scenarios.is_empty() {
        scenarios = Scenario::all().collect();
    }
    let options = Options {
        rounds,
        measure: Duration::try_from_secs_f64(seconds)?,
        warm_up: Duration::try_from_secs_f64(warm_up)?,
        perf,
    };
    let place = place::Place::open(&peers).await?;
    for scenario in scenarios {
        let cells = scenario.run(&place, &peers, &options).await?;
        table::print(scenario, &cells);
    }
    Ok(())
}
