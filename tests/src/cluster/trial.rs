//! Runs tests on one cluster, one after another, in the order in which they are given.
//!
//! A test binary calls [`enter`](super::enter()) first, gathers trials, and hands them to [`run`].

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use super::Cluster;

/// No trial may take longer than this.
const LIMIT: Duration = Duration::from_secs(600);

/// Outlives every trial, as what runs beside the cluster must.
static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static CLUSTER: OnceLock<Cluster> = OnceLock::new();

/// A test that is an async closure on the cluster. It fails with the error it returns, with its panic, or after ten
/// minutes.
pub fn trial<F>(name: &str, test: F) -> Trial
where
    F: AsyncFnOnce(&'static Cluster) -> anyhow::Result<()> + Send + 'static,
{
    Trial::test(name, move || {
        let started = RUNTIME.get().zip(CLUSTER.get());
        let (runtime, cluster) = started.context("cluster::run did not start the cluster")?;
        let outcome = runtime.block_on(async {
            let outcome = tokio::time::timeout(LIMIT, test(cluster)).await;
            let outcome =
                outcome.unwrap_or_else(|_elapsed| Err(anyhow::anyhow!("not finished within {LIMIT:?}")));
            if let Err(error) = &outcome {
                // At once: the summary comes when all have been played.
                eprintln!("{error:#}\n{}", cluster.diagnose().await);
            }
            outcome
        });
        outcome.map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// Starts the cluster, runs the tests that the command line asks for and exits. With `E2E_KEEP` set it first waits for
/// Ctrl-C, and says how to get at the cluster.
pub fn run(trials: Vec<Trial>) -> ! {
    let mut arguments = Arguments::from_args();
    // They share the cluster, and one may leave it to the next.
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Err(error) = start()
    {
        eprintln!("e2e: {error:#}");
        std::process::exit(1);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if std::env::var_os("E2E_KEEP").is_some() {
        keep();
    }
    conclusion.exit()
}

fn start() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let runtime = RUNTIME.get_or_init(|| runtime);
    let cluster = runtime
        .block_on(Cluster::start())
        .context("the cluster does not start")?;
    CLUSTER.get_or_init(|| cluster);
    Ok(())
}

fn keep() {
    let (Some(runtime), Some(cluster)) = (RUNTIME.get(), CLUSTER.get()) else {
        return;
    };
    let Some(node) = cluster.node.as_ref() else { return };
    if let Some(outside) = crate::lab::outside_pid() {
        eprintln!(
            "e2e: kept until Ctrl-C; in another shell: nsenter -t {outside} -n nsenter -t $(pgrep -P {outside}) -m env \
             KUBECONFIG={} {} get pods -A",
            node.kubeconfig().display(),
            node.kubectl().display()
        );
    }
    let _interrupted = runtime.block_on(tokio::signal::ctrl_c());
}
