//! Runs asynchronous tests under libtest-mimic, one after another, each in a runtime of its own.
//!
//! A test binary calls [`lab::enter`](super::enter()) first, gathers trials, and hands them to [`run`].

use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use super::logs;

/// No test may take longer than this.
const LIMIT: Duration = Duration::from_secs(180);

/// A test that is an async closure. It fails with the error it returns, with its panic, or after three minutes.
pub fn trial<F>(name: &str, test: F) -> Trial
where
    F: AsyncFnOnce() -> anyhow::Result<()> + Send + 'static,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        logs::keep(String::new());
        let outcome = runtime.block_on(async { tokio::time::timeout(LIMIT, test()).await });
        runtime.shutdown_background();
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(&format!("{error:#}"))),
            Err(_elapsed) => Err(failed(&format!("not finished within {LIMIT:?}"))),
        }
    })
}

/// The failure, with the logs of the lab that the test has just dropped.
fn failed(reason: &str) -> Failed {
    Failed::from(format!("{reason}\n{}", logs::kept()))
}

/// Runs the tests that the command line asks for, by default one after another, and exits.
pub fn run(trials: Vec<Trial>) -> ! {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(1));
    libtest_mimic::run(&arguments, trials).exit()
}
