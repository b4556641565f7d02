//! `hauberk-testapp load`: the load client for shells. Prints a JSON line for each window of 100 ms, then a summary.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tests::client::Call;
use tests::load::{Load, Plan};

/// How often new windows are printed.
const PRINT_EVERY: Duration = Duration::from_millis(100);

/// What to send, how often, and for how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// What to fetch, such as `http://10.96.0.10:8080/`.
    #[arg(long)]
    url: String,
    /// The host to ask for, where it is not the URL's.
    #[arg(long)]
    host: Option<String>,
    /// Send to this address instead of the URL's.
    #[arg(long)]
    connect: Option<SocketAddr>,
    /// A header field, `name: value`; may be given several times.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// Connections at once.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Calls a second, over all connections; as many as possible when absent.
    #[arg(long)]
    rate: Option<f64>,
    /// End after this many calls.
    #[arg(long)]
    requests: Option<u64>,
    /// End after this many seconds.
    #[arg(long)]
    duration: Option<f64>,
    /// Speak HTTP/2 without TLS.
    #[arg(long)]
    http2: bool,
    /// Open a connection for every call.
    #[arg(long)]
    fresh: bool,
    /// Print JSON lines rather than a table.
    #[arg(long)]
    json: bool,
    /// Fail when a call failed.
    #[arg(long)]
    strict: bool,
}

/// Makes the calls and prints what became of them.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let Options {
        url,
        host,
        connect,
        headers,
        connections,
        rate,
        requests,
        duration,
        http2,
        fresh,
        json,
        strict,
    } = options;
    let mut call = Call::get(&url);
    if let Some(host) = host {
        call = call.host(&host);
    }
    for header in headers {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("--header {header}: expected name: value"))?;
        call = call.header(name.trim(), value.trim());
    }
    if http2 {
        call = call.http2();
    }
    let mut plan = Plan::new(call).connections(connections);
    if let Some(rate) = rate {
        if !rate.is_finite() || rate <= 0.0 {
            bail!("--rate {rate}: expected a number above 0");
        }
        plan = plan.rate(rate);
    }
    if let Some(requests) = requests {
        plan = plan.requests(requests);
    }
    if let Some(seconds) = duration {
        plan = plan.duration(
            Duration::try_from_secs_f64(seconds)
                .with_context(|| format!("--duration {seconds}: expected seconds"))?,
        );
    }
    if fresh {
        plan = plan.fresh_connections();
    }
    let address = match connect {
        Some(address) => address,
        None => {
            let authority = plan.authority()?;
            let mut found = tokio::net::lookup_host(&authority)
                .await
                .with_context(|| authority.clone())?;
            found
                .next()
                .with_context(|| format!("{authority} has no address"))?
        }
    };
    let report = print_progress(Load::start(plan, address), json).await?;
    if json {
        println!("{}", report.summary());
    } else {
        println!("{:#}", report.summary());
    }
    if strict && report.errors() > 0 {
        bail!("{} of {} calls failed", report.errors(), report.total());
    }
    Ok(())
}

/// Prints each window once it is over.
async fn print_progress(load: Load, json: bool) -> anyhow::Result<tests::load::Report> {
    let mut printed = 0;
    loop {
        let over = load.ended();
        let report = load.so_far();
        // The last window still fills while the load runs.
        let complete = if over {
            report.windows.len()
        } else {
            report.windows.len().saturating_sub(1)
        };
        for window in report.windows.iter().take(complete).skip(printed) {
            if json {
                println!("{}", serde_json::to_string(window)?);
            } else {
                println!(
                    "{:>8.1?} {:?} {:?} {:?}",
                    window.at, window.statuses, window.versions, window.failures
                );
            }
        }
        printed = printed.max(complete);
        if over {
            return Ok(report);
        }
        tokio::time::sleep(PRINT_EVERY).await;
    }
}
