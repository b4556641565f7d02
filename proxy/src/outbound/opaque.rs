//! Connections that carry no visible requests: an endpoint is picked when the connection begins, and bytes are relayed.

use std::rc::Rc;
use std::sync::Arc;

use api::{MeshProtocol, Protocol, TlsMode};
use tokio::time::Instant;

use super::{Connection, Target};
use crate::balancer::{self, Key, Outcome, Pick, Wanted};
use crate::config::snapshot::{Cluster, Endpoint};
use crate::error::Error;
use crate::io::Io;
use crate::limits::{self, Bound, Permit};
use crate::originate::Offer;
use crate::record::Direction;
use crate::route;
use crate::tcp::{self, RelayCounters, RelayOptions};
use crate::tries;
use crate::upstream::connect::Over;
use crate::upstream::way::Way;

/// Endpoints tried before a connection is given up: connecting sends nothing of the application's.
const TRIES: usize = 3;

/// A connection to an endpoint, with what counts it.
#[derive(Debug)]
pub struct Opened {
    /// The endpoint's side.
    pub io: Io,
    cluster: Arc<Cluster>,
    pick: Pick,
    _permit: Permit,
}

/// Opens a connection to an endpoint of the target.
///
/// # Errors
/// When no rule takes the connection, or no endpoint of its cluster can be reached.
pub async fn open(connection: &Connection, target: &Target, sni: Option<&str>) -> Result<Box<Opened>, Error> {
    let worker = &connection.worker;
    let cluster = match target {
        Target::Workload(workload) => Arc::clone(&workload.cluster),
        Target::Route(route) => {
            Arc::clone(route::select_tcp(route, sni, &mut *worker.rng.borrow_mut())?.cluster)
        }
    };
    let hash = Key::of_connection(&cluster, connection.peer.ip());
    let mut tried = Vec::new();
    loop {
        let wanted = Wanted {
            cluster: &cluster,
            tried: &tried,
            hash,
            elsewhere: &[],
        };
        let mut pick = balancer::pick(&wanted, &mut *worker.rng.borrow_mut(), Instant::now())?;
        let endpoint = Arc::clone(&pick.endpoint);
        worker.picked(&cluster, &pick);
        let permit = limits::acquire(&cluster, Bound::Connections)?;
        let connected = match over(connection, &cluster, &endpoint) {
            Ok(over) => worker.upstream.connect_through(&cluster, &endpoint, over).await,
            Err(error) => Err(error),
        };
        match connected {
            Ok(io) => {
                cluster.live.metrics.connections_opened.inc();
                worker.settled(&cluster, &endpoint, pick.settle(Outcome::Success, Instant::now()));
                return Ok(Box::new(Opened {
                    io,
                    cluster,
                    pick,
                    _permit: permit,
                }));
            }
            Err(error) => {
                cluster.live.metrics.connect_failures.inc();
                let settled = pick.settle(Outcome::of_error(&error), Instant::now());
                worker.settled(&cluster, &endpoint, settled);
                tried.push(endpoint.live.id);
                if tried.len() >= TRIES || tried.len() >= cluster.endpoints.len() || !error.is_unsent() {
                    return Err(error);
                }
            }
        }
    }
}

/// What there is between TCP and the bytes.
fn over(connection: &Connection, cluster: &Cluster, endpoint: &Endpoint) -> Result<Over, Error> {
    let worker = &connection.worker;
    let tls = match &cluster.spec.tls {
        TlsMode::Originate(tls) => {
            let host = tries::host_of(cluster);
            Some(worker.upstream.secured(tls, host, false)?)
        }
        TlsMode::Auto | TlsMode::Disable | TlsMode::Mutual => None,
    };
    let announcement = tries::announcement(cluster, connection.peer, connection.dialled);
    if tls.is_some() || announcement.is_some() {
        let way = Rc::new(Way { announcement, tls });
        // A tunnel is asked for in HTTP/1.1.
        let offer = cluster
            .spec
            .tunnel
            .as_ref()
            .map_or(Offer::Bytes, |_| Offer::Http1);
        return Ok(Over::Outside(way, offer));
    }
    let mesh = tries::is_mesh(worker, cluster, endpoint)?;
    Ok(if mesh {
        Over::Mesh(MeshProtocol::Tcp)
    } else {
        Over::Plain
    })
}

/// Serves one connection to a target, to its end.
pub async fn serve(
    connection: &Rc<Connection>,
    io: Io,
    target: &Target,
    sni: Option<String>,
    opened: Option<Box<Opened>>,
) {
    let protocol = if sni.is_some() {
        Protocol::Tls
    } else {
        Protocol::Tcp
    };
    let recorder = &connection.worker.recorder;
    let mut record = recorder.start(Direction::Outbound, protocol, connection.peer, connection.dialled);
    if let Target::Route(route) = target {
        record.routed(route);
    }
    let opened = match opened {
        Some(opened) => Ok(opened),
        // Boxed, for connecting takes more room than relaying and is over long before.
        None => Box::pin(open(connection, target, sni.as_deref())).await,
    };
    if let Some(name) = &sni {
        record.named(name);
    }
    match opened {
        Ok(opened) => {
            let Opened {
                io: upstream,
                cluster,
                pick,
                _permit,
            } = *opened;
            record.cluster = Some(Arc::clone(&cluster));
            record.endpoint = Some(Arc::clone(&pick.endpoint));
            let timeouts = cluster.spec.timeouts;
            let options = RelayOptions {
                idle_timeout: timeouts.tcp_idle,
                max_duration: timeouts.max_connection,
            };
            record.relayed(tcp::relay(io, upstream, options, &RelayCounters::default()).await);
            cluster.live.metrics.connections_closed.inc();
            drop(pick);
        }
        // Nothing can be said in an unknown protocol: the connection breaks off.
        Err(error) => {
            io.abort();
            record.fail(error);
        }
    }
}

/// Passes a connection on to where it was meant to go.
pub async fn passthrough(connection: &Rc<Connection>, io: Io) {
    let recorder = &connection.worker.recorder;
    let record = recorder.start(
        Direction::Outbound,
        Protocol::Tcp,
        connection.peer,
        connection.dialled,
    );
    let dialling = Box::pin(connection.worker.upstream.dial(connection.dialled, None));
    let dialled = tokio::time::timeout(api::limits::CONNECT_TIMEOUT, dialling)
        .await
        .unwrap_or(Err(Error::ConnectTimeout {
            endpoint: connection.dialled,
        }));
    match dialled {
        Ok(upstream) => {
            let counters = RelayCounters::default();
            record.relayed(tcp::relay(io, Io::from(upstream), RelayOptions::default(), &counters).await);
        }
        Err(error) => {
            io.abort();
            record.fail(error);
        }
    }
}
