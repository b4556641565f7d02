//! One try: a connection to the endpoint that was picked, the request on it, the head of its answer; all of it within the
//! try's own timeout and the request's deadline.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use api::{MeshProtocol, TlsMode};
use http::Response;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::supply::Supply;
use super::{App, Sending};
use crate::balancer::{self, Outcome};
use crate::config::snapshot::{Cluster, Endpoint};
use crate::error::Error;
use crate::message;
use crate::originate::Offer;
use crate::retry;
use crate::upstream::Wire;
use crate::upstream::announce::Announcement;
use crate::upstream::pool::Lease;
use crate::upstream::send::Failed;
use crate::upstream::way::Way;
use crate::worker::Worker;

/// What came of a try.
pub(super) type Tried = Result<(Response<Incoming>, Lease), Failed>;

/// Makes one try; `number` counts from 1.
pub(super) async fn attempt(
    worker: &Worker,
    sending: &Sending<'_>,
    endpoint: &Arc<Endpoint>,
    supply: &mut Supply,
    number: u32,
) -> Tried {
    let wire = wire(worker, sending, endpoint, supply).map_err(Failed::unsent)?;
    let limit = Limit::of(sending);
    let queued = Cell::new(false);
    let lease = limit
        .keep(worker.upstream.lease(sending.cluster, endpoint, wire, &queued))
        .await;
    let mut lease = lease
        .unwrap_or_else(|| Err(limit.passed(endpoint)))
        .map_err(|error| Failed {
            queued: queued.get(),
            ..Failed::unsent(error)
        })?;
    let wire = lease.wire();
    let request = supply.take(sending, wire, number, &worker.hosts);
    let answer = limit.keep(lease.send(request, endpoint.spec.address)).await;
    match answer.unwrap_or_else(|| Err(Failed::sent(limit.passed(endpoint)))) {
        // Its proxy lives, its application does not: as good as a refused connection, which it would be without proxies.
        Ok(response) if wire.mesh().is_some() && message::is_unreached(response.headers()) => {
            Err(Failed::unsent(Error::Connect {
                endpoint: endpoint.spec.address,
                source: Arc::new(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "the proxy there cannot connect to its application",
                )),
            }))
        }
        Ok(response) => Ok((response, lease)),
        Err(mut failed) => {
            supply.put_back(failed.request.take());
            Err(failed)
        }
    }
}

/// What a try says about its endpoint. One that could not be connected to in time is out of reach, however short the
/// time was; a try whose time passed in the queue has not even asked it. With it the status that an answer counts as.
pub(super) fn outcome(tried: &Tried) -> (Outcome, Option<u16>) {
    let failure = match tried {
        Ok((response, _)) => {
            let (status, grpc) = (response.status(), retry::grpc_status(response.headers()));
            return (
                Outcome::of_answer(status, grpc),
                Some(balancer::code_of(status, grpc)),
            );
        }
        Err(Failed { queued: true, .. }) => Outcome::Neutral,
        Err(Failed {
            error: Error::Timeout | Error::TryTimeout { .. },
            sent: false,
            ..
        }) => Outcome::ConnectFailure,
        Err(failed) => Outcome::of_error(&failed.error),
    };
    (failure, None)
}

/// Until when a try must have its answer. Without a bound no timer is set and no clock read.
#[derive(Debug, Clone, Copy)]
enum Limit {
    None,
    /// The request's.
    Deadline(Instant),
    /// The try's own, which comes first.
    Try(Instant),
}

impl Limit {
    fn of(sending: &Sending<'_>) -> Self {
        let own = sending.retry.per_try_timeout.map(|time| Instant::now() + time);
        match (own, sending.deadline) {
            (None, None) => Self::None,
            (Some(own), Some(deadline)) if deadline <= own => Self::Deadline(deadline),
            (Some(own), _) => Self::Try(own),
            (None, Some(deadline)) => Self::Deadline(deadline),
        }
    }

    /// `None` when the time passed first.
    async fn keep<T>(self, future: impl Future<Output = T>) -> Option<T> {
        match self {
            Self::None => Some(future.await),
            Self::Deadline(at) | Self::Try(at) => timeout_at(at, future).await.ok(),
        }
    }

    fn passed(self, endpoint: &Endpoint) -> Error {
        match self {
            Self::Try(_) => Error::TryTimeout {
                endpoint: endpoint.spec.address,
            },
            Self::None | Self::Deadline(_) => Error::Timeout,
        }
    }
}

/// Whether an endpoint is reached by mutual TLS.
///
/// # Errors
/// When it must be, but the endpoint has no identity.
pub fn is_mesh(worker: &Worker, cluster: &Cluster, endpoint: &Endpoint) -> Result<bool, Error> {
    let address = endpoint.spec.address;
    // What leads back into this pod goes over its loopback, where no inbound side takes it; the proxies' own admin port
    // is never redirected either.
    if worker.settings.pod_ips.contains(&address.ip()) || address.port() == api::names::ADMIN_PORT {
        return Ok(false);
    }
    match (&cluster.spec.tls, &endpoint.spec.identity) {
        (TlsMode::Disable | TlsMode::Originate(_), _) | (TlsMode::Auto, None) => Ok(false),
        (TlsMode::Auto | TlsMode::Mutual, Some(_)) => Ok(true),
        (TlsMode::Mutual, None) => Err(Error::NotMeshed {
            endpoint: endpoint.spec.address,
        }),
    }
}

/// How a request is carried to an endpoint.
fn wire(worker: &Worker, sending: &Sending<'_>, endpoint: &Endpoint, supply: &Supply) -> Result<Wire, Error> {
    let cluster = sending.cluster;
    // Upgrades and `100 Continue` are HTTP/1.1's own; HTTP/2 frames would hide them.
    let own = sending.tunnel.is_some() || supply.expects_continue;
    if cluster.spec.proxy_protocol.is_some() || matches!(cluster.spec.tls, TlsMode::Originate(_)) {
        return outside(worker, sending, supply, own);
    }
    let mesh = is_mesh(worker, cluster, endpoint)?;
    let plain = own || !cluster.spec.upgrade_to_http2;
    Ok(match (sending.app, mesh) {
        (App::Http1, false) if cluster.spec.upgrade_outside_mesh && !own => Wire::Http2,
        (App::Http1, false) => Wire::Http1,
        (App::Http2, false) => Wire::Http2,
        (App::Http1, true) if plain => Wire::Mesh(MeshProtocol::Http1),
        (App::Http1, true) => Wire::Mesh(MeshProtocol::Http1OverHttp2),
        (App::Http2, true) => Wire::Mesh(MeshProtocol::Http2),
    })
}

/// How a request is carried to a server outside the mesh: it is asked for by the host that the request names.
fn outside(worker: &Worker, sending: &Sending<'_>, supply: &Supply, own: bool) -> Result<Wire, Error> {
    let cluster = sending.cluster;
    let tls = match &cluster.spec.tls {
        TlsMode::Originate(tls) => {
            let named = sending.authority.clone().or_else(|| supply.authority());
            let host = named
                .as_ref()
                .map_or(host_of(cluster), |authority| authority.host());
            Some(worker.upstream.secured(tls, host, named.is_some())?)
        }
        TlsMode::Auto | TlsMode::Disable | TlsMode::Mutual => None,
    };
    let offer = match sending.app {
        App::Http1 if !cluster.spec.upgrade_outside_mesh || own => Offer::Http1,
        App::Http1 if tls.is_some() => Offer::Either,
        // Without TLS nothing can be agreed upon.
        App::Http1 | App::Http2 => Offer::Http2,
    };
    let announcement = announcement(cluster, *sending.client, sending.dialled);
    Ok(worker.upstream.outside(Way { announcement, tls }, offer))
}

/// The header that tells an endpoint who calls, where the policy asks for one.
pub fn announcement(cluster: &Cluster, client: SocketAddr, dialled: SocketAddr) -> Option<Announcement> {
    Some(Announcement {
        version: cluster.spec.proxy_protocol?,
        client,
        dialled,
    })
}

/// The host of a cluster, by which a server is asked for where no request names one.
pub fn host_of(cluster: &Cluster) -> &str {
    let endpoints = cluster.spec.endpoints.as_str();
    endpoints.rsplit_once(':').map_or(endpoints, |(host, _)| host)
}
