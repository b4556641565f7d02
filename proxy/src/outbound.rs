//! What a pod's application sends: look up what stands behind the dialled address, find out what is spoken, and route it.
//! Called by the worker for every connection its outbound listener takes.

pub mod choice;
pub mod http;
pub mod opaque;
pub mod sniff;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use api::Protocol;

use crate::config::snapshot::{Destination, Route, Workload};
use crate::config::usage::InUse;
use crate::error::Error;
use crate::io::Io;
use crate::listener::Accepted;
use crate::settings::OnDiscoveryTimeout;
use crate::worker::Worker;
use sniff::Spoken;

/// One connection of the application.
#[derive(Debug)]
pub struct Connection {
    /// The worker that serves it.
    pub worker: Rc<Worker>,
    /// The application's side.
    pub peer: SocketAddr,
    /// Where it was meant to go.
    pub dialled: SocketAddr,
    /// Keeps the destination subscribed.
    _held: Option<InUse>,
}

/// Where requests and bytes go: a service by its rules, or one pod.
#[derive(Debug, Clone)]
pub enum Target {
    /// By the rules of a route.
    Route(Arc<Route>),
    /// To one pod.
    Workload(Arc<Workload>),
}

impl Target {
    fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Route(route) => route.spec.protocol,
            Self::Workload(workload) => workload.protocol,
        }
    }

    /// Name under which it is remembered that the server speaks first.
    fn name(&self) -> Arc<str> {
        match self {
            Self::Route(route) => Arc::clone(&route.name),
            // Pods that no service leads to share the settings of one cluster.
            Self::Workload(workload) => match workload.cluster.endpoints.first() {
                Some(endpoint) => endpoint.spec.address.to_string().into(),
                None => Arc::clone(&workload.cluster.name),
            },
        }
    }
}

/// Serves one redirected connection.
pub async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted {
        stream,
        peer,
        dialled,
    } = accepted;
    serve_io(worker, Io::from(stream), peer, dialled).await;
}

/// Serves one connection, wherever its bytes come from.
pub async fn serve_io(worker: Rc<Worker>, io: Io, peer: SocketAddr, dialled: SocketAddr) {
    let found = Box::pin(lookup(&worker, dialled)).await;
    let (destination, held) = match found {
        Ok(found) => found,
        Err(Error::DiscoveryTimeout { .. })
            if worker.settings.on_discovery_timeout == OnDiscoveryTimeout::Passthrough =>
        {
            tracing::warn!(%dialled, "the operator did not answer in time: passed on without mutual TLS");
            (Destination::Passthrough, None)
        }
        Err(error) => {
            let connection = Rc::new(Connection {
                worker,
                peer,
                dialled,
                _held: None,
            });
            return Box::pin(sniff::refuse(&connection, io, error)).await;
        }
    };
    let connection = Rc::new(Connection {
        worker,
        peer,
        dialled,
        _held: held,
    });
    match destination {
        Destination::Passthrough => Box::pin(opaque::passthrough(&connection, io)).await,
        Destination::Refuse(reason) => {
            Box::pin(sniff::refuse(&connection, io, Error::Refused { reason })).await
        }
        Destination::Service(route) => serve_target(connection, io, Target::Route(route)).await,
        Destination::Workload(workload) => serve_target(connection, io, Target::Workload(workload)).await,
    }
}

/// What stands behind the address: from the snapshot, or by asking the operator.
async fn lookup(worker: &Worker, dialled: SocketAddr) -> Result<(Destination, Option<InUse>), Error> {
    let mut snapshot = worker.config.load();
    if snapshot.destination(dialled).is_none() {
        snapshot = worker.config.discover(dialled).await?;
    }
    let entry = snapshot
        .destination(dialled)
        .ok_or(Error::DiscoveryTimeout { address: dialled })?;
    Ok((entry.destination.clone(), Some(entry.usage.hold())))
}

/// Each way is boxed, so that a connection pays for the one it takes and not for the largest of all.
async fn serve_target(connection: Rc<Connection>, io: Io, target: Target) {
    let spoken = Box::pin(sniff::spoken(&connection, io, &target)).await;
    match spoken {
        Ok(Spoken::Http1(io)) => Box::pin(http::serve_http1(connection, io)).await,
        Ok(Spoken::Http2(io)) => Box::pin(http::serve_http2(connection, io)).await,
        Ok(Spoken::Opaque { io, sni, upstream }) => {
            Box::pin(opaque::serve(&connection, io, &target, sni, upstream)).await
        }
        Ok(Spoken::Nothing) => {}
        Err(error) => {
            tracing::debug!(dialled = %connection.dialled, %error, "connection ended before it spoke")
        }
    }
}

/// Why requests are taken no more on a connection that took them before.
fn gone(destination: Option<&Destination>) -> Error {
    let reason = match destination {
        Some(Destination::Refuse(reason)) => Arc::clone(reason),
        _ => "the service behind this address is gone".into(),
    };
    Error::Refused { reason }
}

#[cfg(test)]
mod tests;
