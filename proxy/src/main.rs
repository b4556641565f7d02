//! `hauberk-proxy`: reads its settings, wires the parts, and ends when it is told to.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use proxy::access_log::AccessLog;
use proxy::admin::Admin;
use proxy::config::{self, Current, operator};
use proxy::drain::{self, Pace, neighbours};
use proxy::metrics::Metrics;
use proxy::settings::{Cli, Command, Settings, WaitArgs};
use proxy::worker::{self, Shared};
use proxy::{identity, interception, log, wait};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: proxy::Allocator = proxy::Allocator;

/// How often memory is given back to the system.
const GIVE_BACK: Duration = Duration::from_secs(10);
/// Large enough for the allocator to go to the memory that all threads share.
const LARGE_PIECE: usize = 1 << 20;

fn main() -> ExitCode {
    let done = Cli::read().and_then(|cli| match cli.command {
        Command::Init(args) => interception::run(&args)
            .map(|report| println!("{report}"))
            .map_err(Into::into),
        Command::Run(settings) => run(*settings),
        Command::Wait(args) => wait(&args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hauberk-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The main thread is the background thread: the stream to the operator, certificates, admin and signals.
fn run(settings: Settings) -> anyhow::Result<()> {
    log::start(&settings)?;
    runtime()?.block_on(serve(Arc::new(settings)))
}

fn wait(args: &WaitArgs) -> anyhow::Result<()> {
    runtime()?.block_on(wait::until_ready(args.admin, args.timeout))?;
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .context("starting a runtime")
}

async fn serve(settings: Arc<Settings>) -> anyhow::Result<()> {
    let current = Current::default();
    let metrics = Arc::new(Metrics::new(current.clone()));
    let (handle, client) = config::new(&settings, current, Arc::clone(&metrics));
    let (identity, renewal) = identity::new(&settings, handle.trust(), Arc::clone(&metrics))?;
    let channel = operator::channel(&settings, handle.trust())?;
    let (controller, drain) = drain::channel();
    let access_log = AccessLog::start(settings.access_log, metrics.access_log_dropped.clone())?;
    let admin = Admin::new(
        handle.clone(),
        identity.clone(),
        Arc::clone(&metrics),
        &settings,
        drain.clone(),
    );
    let admin_listener = Admin::bind(settings.admin).await?;
    tokio::task::spawn_local(client.run(channel.clone()));
    tokio::task::spawn_local(renewal.run(channel));
    tokio::task::spawn_local(admin.serve(admin_listener));
    tokio::task::spawn_local(handle.origins().watch());
    tokio::task::spawn_local(give_memory_back());
    let shared = Shared {
        settings: Arc::clone(&settings),
        config: handle.clone(),
        identity,
        drain,
        metrics,
        access_log: access_log.clone(),
    };
    let workers = (0..settings.workers)
        .map(|number| worker::start(number, shared.clone()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        workers = workers.len(),
        outbound = settings.outbound_port,
        inbound = settings.inbound_port,
        admin = %settings.admin,
        "serving"
    );
    let pace = told_to_end(&settings, &handle).await?;
    drain::shut_down(&controller, pace, || !neighbours::hold_sockets()).await;
    while !workers.iter().all(JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tracing::info!("ended");
    access_log.flush();
    Ok(())
}

/// Lets the system have again what a peak of connections took. mimalloc looks for such memory only when it hands out or
/// takes back large pieces, which a proxy at rest does not do by itself. Nothing is written to this one, so that it is no
/// memory itself.
async fn give_memory_back() {
    let mut tick = tokio::time::interval(GIVE_BACK);
    loop {
        tick.tick().await;
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE_PIECE)));
    }
}

/// Waits until the proxy is to end: told to, or with nothing left to serve. The delay is for callers that do not know
/// yet; where the application has ended there are none.
async fn told_to_end(settings: &Settings, config: &config::Handle) -> anyhow::Result<Pace> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let (delay, timeout) = (settings.drain_delay, settings.drain_timeout);
    let delay = tokio::select! {
        _ = terminate.recv() => delay,
        _ = interrupt.recv() => delay,
        () = config.finished() => {
            tracing::info!("every other container of the pod has ended: nothing is left to serve");
            Duration::ZERO
        }
    };
    Ok(Pace { delay, timeout })
}
