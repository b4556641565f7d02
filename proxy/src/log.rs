//! The proxy's own log, on standard error. The program starts it, and so does whatever counts what the program costs: the
//! places that write to the log are cheap only once it is known what is wanted of them.

use anyhow::Context as _;

use crate::settings::{LogFormat, Settings};

/// Starts the log that `settings` ask for.
///
/// # Errors
/// When its filter cannot be read.
pub fn start(settings: &Settings) -> anyhow::Result<()> {
    // The parser of filters panics on some of these.
    anyhow::ensure!(
        settings.log.is_ascii(),
        "--log {:?}: only ASCII can be in a filter",
        settings.log
    );
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log).with_context(|| {
        format!(
            "--log {:?} (write for example `info,proxy::outbound=debug`)",
            settings.log
        )
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
