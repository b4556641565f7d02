//! Wires the parts of the operator, and runs them until it is told to stop. Decides nothing of its own.

mod kubernetes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin::{Admin, SourceReport};
use crate::authority::{Authority, ServerIdentity, Store};
use crate::metrics::{Metrics, SourceMetrics};
use crate::push::{Compiler, Hub, HubHandle};
use crate::session::{Ages, Server};
use crate::settings::{Run, SourceSettings};
use crate::source::{self, directory};
use crate::state::World;
use kubernetes::Cluster;

/// Time for connections to close when the operator stops.
const DRAIN: Duration = Duration::from_secs(5);

/// The parts that run for as long as the operator does: one that ends takes the operator along.
type Parts = JoinSet<anyhow::Result<()>>;

/// What the operator stands in.
enum Around {
    Folder(PathBuf),
    Cluster(Box<Cluster>),
}

/// What every part may need.
#[derive(Clone)]
struct Shared {
    authority: Arc<Authority>,
    identity: Arc<ServerIdentity>,
    hub: HubHandle,
    source: watch::Receiver<SourceReport>,
    metrics: Metrics,
    stopped: watch::Receiver<bool>,
}

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start as it is told to, or when a part of it cannot go on.
pub async fn run(settings: Run) -> anyhow::Result<()> {
    let started = Instant::now();
    let metrics = Metrics::new();
    let (store, around) = match settings.source {
        SourceSettings::Directory {
            config_dir,
            state_dir,
        } => (Store::directory(&state_dir), Around::Folder(config_dir)),
        SourceSettings::Kubernetes(settings) => {
            let cluster = Cluster::connect(*settings).await?;
            (cluster.store(), Around::Cluster(Box::new(cluster)))
        }
    };
    let world = Arc::new(World::new(&settings.authority.trust_domain));
    let authority = Authority::open(settings.authority, store, metrics.authority.clone()).await?;
    let identity = ServerIdentity::new(&authority)?;
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
    let shared = Shared {
        authority,
        identity,
        hub,
        source,
        metrics,
        stopped,
    };

    let mut parts = Parts::new();
    parts.spawn(async {
        running.run().await;
        anyhow::bail!("the hub has stopped")
    });
    parts.spawn(watch_authority(shared.clone()));
    let view = Admin {
        hub: shared.hub.clone(),
        authority: shared.authority.clone(),
        metrics: shared.metrics.clone(),
        source: shared.source.clone(),
        started,
    };
    let listener = bind("admin", settings.admin).await?;
    parts.spawn(async move { Ok(view.serve(listener, std::future::pending()).await?) });

    // Those that have something to finish when the operator stops.
    let mut serving = Parts::new();
    let listener = bind("listen", settings.listen).await?;
    serving.spawn(serve(shared.clone(), listener));
    let leave = match around {
        Around::Cluster(cluster) => cluster.run(&shared, report, &mut parts, &mut serving).await?,
        Around::Folder(config_dir) => {
            let (hub, metrics) = (shared.hub.clone(), shared.metrics.source.clone());
            parts.spawn(follow_directory(config_dir, report, hub, metrics));
            Duration::ZERO
        }
    };

    let failed = tokio::select! {
        () = told_to_stop() => None,
        Some(ended) = parts.join_next() => Some(ended.context("a part of the operator crashed").flatten()),
        Some(ended) = serving.join_next() => Some(ended.context("a server crashed").flatten()),
    };
    if let Some(result) = failed {
        return result.and_then(|()| anyhow::bail!("a part of the operator has stopped"));
    }
    tracing::info!("stopping");
    // Whoever dials has time to learn that this replica goes; until then nobody is refused.
    tokio::time::sleep(leave).await;
    stop.send_replace(true);
    shared.hub.end_all().await;
    let all = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, all).await.is_err() {
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

/// Ends when the operator is told to stop.
async fn told(mut stopped: watch::Receiver<bool>) {
    // An error means that the one who would tell is gone, which is the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn watch_authority(shared: Shared) -> anyhow::Result<()> {
    let Shared {
        authority,
        identity,
        hub,
        ..
    } = shared;
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
async fn serve(shared: Shared, listener: TcpListener) -> anyhow::Result<()> {
    let Shared {
        authority,
        identity,
        hub,
        mut source,
        metrics,
        stopped,
    } = shared;
    let loaded = async {
        if source.wait_for(|report| report.loaded).await.is_err() {
            // The source's own end says why, and takes the operator along.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = loaded => {}
        () = told(stopped.clone()) => return Ok(()),
    }
    let server = Server {
        authority,
        hub,
        metrics: metrics.session,
        ages: Ages::default(),
    };
    server.serve(listener, identity, told(stopped)).await
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
