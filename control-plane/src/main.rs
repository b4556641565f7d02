//! The operator's binary: reads settings, wires the parts, runs until told to stop. Decides nothing of its own.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control_plane::admin::{self, Admin, SourceReport};
use control_plane::authority::{self, Authority, AuthoritySettings, ServerIdentity, Step};
use control_plane::metrics::{Metrics, SourceMetrics};
use control_plane::push::{Compiler, Hub, HubHandle};
use control_plane::session::Server;
use control_plane::settings::{self, Command, Format, Run, SettingsError, SourceSettings};
use control_plane::source::{self, directory};
use control_plane::state::World;
use control_plane::status;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Time for connections to close when the operator stops.
const DRAIN: Duration = Duration::from_secs(5);
/// More would not make pushes faster, and the operator is to leave room for others.
const MAX_WORKERS: usize = 2;

fn main() -> ExitCode {
    let command = match settings::read() {
        Ok(command) => command,
        // Also for `--help`, which is no failure; clap knows the code for each.
        Err(SettingsError::Usage(usage)) => usage.exit(),
        Err(error) => {
            eprintln!("hauberk-control-plane: {error}");
            return ExitCode::from(2);
        }
    };
    match carry_out(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hauberk-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(settings) => {
            log(&settings);
            runtime()?.block_on(run(*settings))
        }
        Command::Token(token) => {
            let text = authority::mint(
                &token.state_dir,
                &token.namespace,
                &token.service_account,
                &token.pod,
                token.lifetime,
            )?;
            println!("{text}");
            Ok(())
        }
        Command::Status(settings) => {
            let status = runtime()?.block_on(admin::ask_status(settings.admin))?;
            match settings.output {
                Format::Text => print!("{}", status::render(&status)),
                Format::Json => println!("{}", serde_json::to_string_pretty(&status)?),
            }
            Ok(())
        }
        Command::RotateRoot(settings) => rotate_root(&settings),
    }
}

fn rotate_root(settings: &AuthoritySettings) -> anyhow::Result<()> {
    let now = std::time::SystemTime::now();
    let step = authority::rotate(
        &settings.state_dir,
        &settings.trust_domain,
        settings.lifetime,
        now,
    )?;
    match step {
        Step::Added { root } => println!(
            "root {root} is trusted from now on, and does not sign yet. Call again when every proxy has applied the new \
             trust bundle (command `status`: nothing is waiting)."
        ),
        Step::Signs { root } => println!(
            "root {root} signs from now on; the old one stays trusted. Call again in {} s, when no certificate of the \
             old one is left.",
            settings.lifetime.as_secs()
        ),
        Step::Dropped { root } => println!("root {root} is no longer trusted. The rotation is complete."),
    }
    Ok(())
}

fn log(settings: &Run) {
    let filter = tracing_subscriber::EnvFilter::new(&settings.log);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.log_format {
        Format::Text => builder.init(),
        Format::Json => builder.json().init(),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.min(MAX_WORKERS))
        .enable_all()
        .build()
}

async fn run(settings: Run) -> anyhow::Result<()> {
    let started = Instant::now();
    let metrics = Metrics::new();
    let SourceSettings::Directory {
        config_dir,
        state_dir,
    } = settings.source
    else {
        anyhow::bail!(
            "source: `kubernetes` needs an authority that keeps its roots in a Secret, which this build does not have: use `directory`"
        );
    };
    let authority = AuthoritySettings {
        state_dir,
        trust_domain: settings.trust_domain.clone(),
        lifetime: settings.certificate_lifetime,
    };
    let authority = Authority::open(authority, metrics.authority.clone())?;
    let identity = ServerIdentity::new(&authority)?;
    let world = Arc::new(World::new(&settings.trust_domain));
    let (hub, running) = Hub::new(
        Compiler::of_world(),
        world.clone(),
        authority.bundle(),
        metrics.push.clone(),
    );
    let (report, source) = watch::channel(SourceReport {
        world,
        ..SourceReport::default()
    });
    let (stop, stopped) = watch::channel(false);

    // Each of these runs for as long as the operator does: one that ends takes the operator along.
    let mut parts = JoinSet::new();
    parts.spawn(async {
        running.run().await;
        anyhow::bail!("the hub has stopped")
    });
    parts.spawn(watch_authority(authority.clone(), identity.clone(), hub.clone()));
    parts.spawn(follow_directory(
        config_dir,
        report,
        hub.clone(),
        metrics.source.clone(),
    ));

    let view = Admin {
        hub: hub.clone(),
        authority: authority.clone(),
        metrics: metrics.clone(),
        source: source.clone(),
        started,
    };
    let listener = bind("admin", settings.admin).await?;
    parts.spawn(async move { Ok(view.serve(listener, std::future::pending()).await?) });

    let server = Server {
        authority,
        hub: hub.clone(),
        metrics: metrics.session,
    };
    let listener = bind("listen", settings.listen).await?;
    let mut serving = tokio::spawn(serve(server, listener, identity, source, stopped));

    let failed = tokio::select! {
        () = told_to_stop() => None,
        Some(ended) = parts.join_next() => Some(ended.context("a part of the operator crashed").flatten()),
        ended = &mut serving => Some(ended.context("the server crashed").flatten()),
    };
    if let Some(result) = failed {
        return result.and_then(|()| anyhow::bail!("a part of the operator has stopped"));
    }
    tracing::info!("stopping");
    stop.send_replace(true);
    hub.end_all().await;
    if tokio::time::timeout(DRAIN, serving).await.is_err() {
        tracing::warn!("some connections did not close in time");
    }
    Ok(())
}

async fn bind(name: &str, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("{name}: cannot listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "{name}: listening");
    Ok(listener)
}

async fn watch_authority(
    authority: Arc<Authority>,
    identity: Arc<ServerIdentity>,
    hub: HubHandle,
) -> anyhow::Result<()> {
    let mut bundles = authority.bundles();
    let hand_on = async {
        while let Some(bundle) = bundles.next().await {
            if !hub.bundle_changed(bundle).await {
                return;
            }
        }
    };
    tokio::join!(authority.watch(), identity.renew(&authority), hand_on);
    Ok(())
}

async fn follow_directory(
    config_dir: PathBuf,
    report: watch::Sender<SourceReport>,
    hub: HubHandle,
    metrics: SourceMetrics,
) -> anyhow::Result<()> {
    let (first, batches) = directory::watch(&config_dir, directory::Options::default())
        .await
        .context("config-dir")?;
    source::follow(Some(first), batches, report, hub, metrics).await;
    anyhow::bail!("config-dir: watching {} has ended", config_dir.display())
}

/// Serves proxies once the source is loaded: before that, everything would look absent to them.
async fn serve(
    server: Server,
    listener: TcpListener,
    identity: Arc<ServerIdentity>,
    mut source: watch::Receiver<SourceReport>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let told = stopped.clone();
    let loaded = async {
        if source.wait_for(|report| report.loaded).await.is_err() {
            // The source's own end says why, and takes the operator along.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = loaded => {}
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    }
    let stop = async move {
        let mut told = told;
        let _ = told.wait_for(|stopped| *stopped).await;
    };
    server.serve(listener, identity, stop).await
}

async fn told_to_stop() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(error) => {
            tracing::error!(%error, "cannot wait for a signal");
            std::future::pending().await
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
}
