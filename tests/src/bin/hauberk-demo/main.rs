//! `hauberk-demo`: a small shop in the lab and six stories about its traffic, each claim held against a measurement.
//! `make demo` runs it. It ends with success only if every claim held.

mod shop;
mod story;
mod tell;

use std::process::ExitCode;

use clap::Parser;
use tests::lab::{self, Lab};

use tell::Teller;

/// A small shop in the lab, and six stories about its traffic.
#[derive(Debug, Parser)]
#[command(name = "hauberk-demo", version)]
struct Arguments {
    /// Leave the shop running afterwards, and say what to edit and watch.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let Arguments { keep } = Arguments::parse();
    lab::enter();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("hauberk-demo: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(keep));
    runtime.shutdown_background();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nhauberk-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(keep: bool) -> anyhow::Result<bool> {
    let mut teller = Teller::new();
    teller.step("starting the shop: operator, proxies, applications");
    let lab = shop::builder().start().await?;
    shop::open(&lab, &mut teller).await?;
    shop::describe(&lab, &mut teller);
    let told = tell_all(&lab, &mut teller).await;
    if told.is_err() || !teller.all_held() {
        lab.dump_logs();
    }
    told?;
    teller.summary();
    if keep {
        shop::keep(&lab, &mut teller).await?;
    }
    Ok(teller.all_held())
}

async fn tell_all(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    story::split::tell(lab, teller).await?;
    story::edit::tell(lab, teller).await?;
    story::breaker::tell(lab, teller).await?;
    story::identity::tell(lab, teller).await?;
    story::protocols::tell(lab, teller).await?;
    story::operator::tell(lab, teller).await
}
