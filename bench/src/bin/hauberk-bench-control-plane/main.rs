//! What the operator costs at scale: one real operator process, and a mesh of proxies simulated in this one, which
//! speak the real stream over connections of their own. `make bench-control-plane` runs it;
//! `docs/performance-operator.md` shows the last full run.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures to be read"
)]

mod fleet;
mod folder;
mod measure;
mod mesh;
mod operator;
mod process;
mod proxy;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;

use measure::Plan;
use mesh::Size;

/// Measures the operator at scale.
#[derive(Debug, Parser)]
struct Args {
    /// The operator; by default the one beside this program.
    #[arg(long)]
    operator: Option<PathBuf>,
    /// Simulated proxies.
    #[arg(long, default_value_t = 1000)]
    proxies: usize,
    /// Services.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Endpoints of each Service.
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Services that each proxy uses.
    #[arg(long, default_value_t = 20)]
    uses: usize,
    /// Changes of each sort that are made one by one.
    #[arg(long, default_value_t = 100)]
    single: usize,
    /// Changes a second under churn.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Seconds of churn.
    #[arg(long, default_value_t = 30)]
    churn: u64,
    /// Only the given size, without the smaller and larger ones that show how costs grow.
    #[arg(long)]
    no_growth: bool,
    /// Small sizes and little time: fails on errors, says nothing about costs.
    #[arg(long)]
    smoke: bool,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench/control-plane.json")]
    json: PathBuf,
    /// A page whose tables are replaced by those of this run.
    #[arg(long)]
    docs: Option<PathBuf>,
}

impl Args {
    fn plan(&self) -> Plan {
        let (single, churn) = if self.smoke {
            (5, 3)
        } else {
            (self.single, self.churn)
        };
        Plan {
            single,
            rate: self.rate,
            churn: Duration::from_secs(churn),
            patience: Duration::from_secs(if self.smoke { 30 } else { 180 }),
        }
    }

    /// The size that the run is about, and the others.
    fn sizes(&self) -> (Size, Vec<Size>) {
        if self.smoke {
            let size = Size {
                proxies: 40,
                services: 30,
                endpoints_each: 3,
                uses: 5,
            };
            return (size, Vec::new());
        }
        let main = Size {
            proxies: self.proxies,
            services: self.services,
            endpoints_each: self.endpoints,
            uses: self.uses,
        };
        if self.no_growth {
            return (main, Vec::new());
        }
        let fewer = [main.proxies / 4, main.proxies / 2, main.proxies * 2];
        let by_proxies = fewer.map(|proxies| Size { proxies, ..main });
        let fewer = [
            main.services / 4,
            main.services / 2,
            main.services * 2,
            main.services * 4,
        ];
        let by_services = fewer.map(|services| Size { services, ..main });
        (main, by_proxies.into_iter().chain(by_services).collect())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, run(&args))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hauberk-bench-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let binary = match &args.operator {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("hauberk-control-plane"),
    };
    anyhow::ensure!(
        binary.is_file(),
        "--operator: there is no {}; build it with `cargo build --release -p control-plane`",
        binary.display()
    );
    let (main, others) = args.sizes();
    let plan = args.plan();
    for size in others.iter().chain([&main]) {
        size.check()?;
    }
    let mut all = Vec::new();
    for size in std::iter::once(main).chain(others) {
        eprintln!("{} proxies, {} services …", size.proxies, size.services);
        let measured = measure::measure(size, &plan, &binary)
            .await
            .with_context(|| format!("{} proxies, {} services", size.proxies, size.services))?;
        all.push(measured);
    }
    let tables = report::tables(&all);
    println!("{tables}");
    report::write_json(&args.json, &all)?;
    if let Some(page) = &args.docs {
        report::write_page(page, &tables)?;
    }
    Ok(())
}
