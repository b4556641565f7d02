//! `hauberk-instructions`: what the hot paths cost in instructions, which is the same on every run of one build. For each
//! case it runs itself under valgrind twice, with some iterations and with twice as many: the difference has no part in
//! what comes before and after. `make instructions` compares with `bench/instructions.json`; `docs/decisions/0020` says why.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser;

mod baseline;
mod cases;
mod count;
mod http1;
mod http2;
mod pod;

use baseline::{Baseline, Built};

/// As in the proxy, whose allocations are counted with the rest.
#[global_allocator]
static ALLOCATOR: proxy::Allocator = proxy::Allocator;

/// Count the instructions of the hot paths.
#[derive(Debug, Parser)]
struct Cli {
    /// Only cases whose name contains one of these.
    names: Vec<String>,
    /// Fail when a case costs more than the baseline allows.
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Make what is counted now the baseline.
    #[arg(long)]
    update: bool,
    /// The stored baseline.
    #[arg(long, default_value = "bench/instructions.json")]
    baseline: PathBuf,
    /// Keep the profiles in this folder, for `callgrind_annotate FOLDER/CASE.callgrind`.
    #[arg(long, value_name = "FOLDER")]
    profiles: Option<PathBuf>,
    /// Run one case this often, uncounted; what runs under valgrind.
    #[arg(long, requires = "once", hide = true)]
    iterations: Option<u32>,
    /// Name of that case.
    #[arg(long, hide = true)]
    once: Option<String>,
    /// Without the part that is counted, if the case has one to subtract.
    #[arg(long, hide = true)]
    without: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hauberk-instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<bool> {
    let all = cases::all();
    if let (Some(name), Some(iterations)) = (&cli.once, cli.iterations) {
        let case = all.iter().find(|case| case.name == name);
        let case = case.with_context(|| format!("there is no case {name}"))?;
        let body = if cli.without {
            case.without
        } else {
            Some(case.with)
        };
        proxy::log::start(&pod::settings())?;
        body.with_context(|| format!("{name} subtracts nothing"))?(iterations);
        return Ok(true);
    }
    let chosen: Vec<_> = all
        .iter()
        .filter(|case| cli.names.is_empty() || cli.names.iter().any(|n| case.name.contains(n.as_str())))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no case is named like {:?}; without a name all are counted",
        cli.names
    );
    let counted = count::count(&chosen, cli.profiles.as_deref())?;
    let built = Built::now()?;
    let mut stored = Baseline::read(&cli.baseline)?;
    let known: Vec<&str> = all.iter().map(|case| case.name).collect();
    let report = stored.compare(&built, &counted, &known);
    print!("{report}");
    if cli.update {
        stored.accept(built, &counted, cli.names.is_empty())?;
        stored.write(&cli.baseline)?;
        println!("stored in {}", cli.baseline.display());
    }
    Ok(!cli.check || report.holds())
}
