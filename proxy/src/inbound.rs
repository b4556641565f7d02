//! What arrives for a pod: mutual TLS of a mesh peer is ended here and its identity told to the application; plaintext is
//! taken or refused as PeerAuthentication says; then bytes or requests go to the application at the address that was
//! dialled. Called by the worker for every connection its inbound listener takes.

pub mod http;
pub mod local;
pub mod opaque;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use api::{MeshProtocol, Protocol, SpiffeId, TlsPolicy};
use tokio::time::timeout;

use crate::detect::{self, Detected};
use crate::error::Error;
use crate::io::Io;
use crate::listener::Accepted;
use crate::metrics::InboundMetrics;
use crate::outbound::sniff;
use crate::record::Direction;
use crate::tries::App;
use crate::worker::Worker;

/// A client that has something to say says it within this time, as a rule; then the application is tried.
const SILENCE: Duration = Duration::from_millis(50);

/// One connection for the pod.
#[derive(Debug)]
pub struct Connection {
    /// The worker that serves it.
    pub worker: Rc<Worker>,
    /// The peer's side.
    pub peer: SocketAddr,
    /// The pod's address and port that it was opened to.
    pub dialled: SocketAddr,
    /// The peer's verified identity; `None` in the clear.
    pub identity: Option<Arc<SpiffeId>>,
    /// The same, as the application is told.
    pub told: Option<HeaderValue>,
    /// Those of the port.
    pub metrics: Arc<InboundMetrics>,
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

/// Serves one connection, wherever its bytes come from. Each way it may take is boxed, so that a connection pays for the
/// one it takes and not for the largest of all.
pub async fn serve_io(worker: Rc<Worker>, mut io: Io, peer: SocketAddr, dialled: SocketAddr) {
    let snapshot = worker.config.load();
    let Some(inbound) = snapshot.inbound.clone() else {
        // Without a policy nobody knows whether plaintext may be taken.
        tracing::debug!(%peer, %dialled, "refused: the operator has not said yet what may come in");
        return;
    };
    let policy = inbound.policy_of(dialled.port());
    let protocol = inbound.port(dialled.port()).and_then(|port| port.protocol);
    let patience = worker.settings.detect_timeout;
    let metrics = Arc::clone(snapshot.inbound_ports.get(dialled.port()));
    let mut connection = Connection {
        worker,
        peer,
        dialled,
        identity: None,
        told: None,
        metrics,
    };
    let is_http = protocol.is_some_and(Protocol::is_http);
    let silence = match policy {
        TlsPolicy::Strict => patience,
        // An application that speaks HTTP never speaks first: a client may take its time, as between two requests.
        TlsPolicy::Permissive | TlsPolicy::Disable if is_http => http::HEAD_TIMEOUT,
        TlsPolicy::Permissive | TlsPolicy::Disable => SILENCE,
    };
    match timeout(silence, sniff::verdict(&mut io)).await {
        Ok(Ok(Some(Detected::Tls))) => match timeout(patience, sniff::client_hello(&mut io)).await {
            Ok(Ok(Some(hello))) if !hello.mesh.is_empty() => mesh(connection, io).await,
            Ok(Ok(_)) if policy != TlsPolicy::Strict => Box::pin(opaque::serve(&connection, io, None)).await,
            Ok(Ok(_)) => Box::pin(refuse(&connection, io, Detected::Tls)).await,
            Ok(Err(_)) | Err(_) => {}
        },
        Ok(Ok(Some(verdict))) if policy == TlsPolicy::Strict => {
            Box::pin(refuse(&connection, io, verdict)).await
        }
        Ok(Ok(Some(verdict))) => plaintext(connection, io, verdict, protocol).await,
        Ok(Ok(None) | Err(_)) => drop(connection.detected().closed.inc()),
        Err(_) if policy == TlsPolicy::Strict => Box::pin(refuse(&connection, io, Detected::Opaque)).await,
        Err(_) if is_http => drop(connection.detected().closed.inc()),
        Err(_) => Box::pin(silent(&mut connection, io, protocol)).await,
    }
}

/// A mesh peer: its identity is verified before anything else is read from it.
async fn mesh(mut connection: Connection, io: Io) {
    connection.detected().mesh.inc();
    let accepted = Box::pin(connection.worker.identity.accept(io, connection.peer)).await;
    let (tls, identity, protocol) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::warn!(peer = %connection.peer, dialled = %connection.dialled, %error, "mesh peer refused");
            connection.metrics.refused_connections.inc();
            return connection.count_error(&error);
        }
    };
    connection.told = HeaderValue::from_str(identity.as_str()).ok();
    connection.identity = Some(identity);
    let io = Io::from(tls);
    match protocol {
        MeshProtocol::Tcp => Box::pin(opaque::serve(&connection, io, None)).await,
        MeshProtocol::Http1 => Box::pin(http::serve_http1(Rc::new(connection), io)).await,
        MeshProtocol::Http2 => Box::pin(http::serve_http2(Rc::new(connection), io, App::Http2)).await,
        MeshProtocol::Http1OverHttp2 => {
            Box::pin(http::serve_http2(Rc::new(connection), io, App::Http1)).await
        }
    }
}

/// A peer outside the mesh that has spoken.
async fn plaintext(connection: Connection, io: Io, verdict: Detected, protocol: Option<Protocol>) {
    let opaque = matches!(protocol, Some(Protocol::Tcp | Protocol::Tls));
    let counts = connection.detected();
    match verdict {
        Detected::Http1 => &counts.http1,
        Detected::Http2 => &counts.http2,
        Detected::Tls => &counts.tls,
        Detected::Opaque | Detected::NeedMore => &counts.opaque,
    }
    .inc();
    match verdict {
        Detected::Http1 if !opaque => Box::pin(http::serve_http1(Rc::new(connection), io)).await,
        Detected::Http2 if !opaque => Box::pin(http::serve_http2(Rc::new(connection), io, App::Http2)).await,
        Detected::Http1 | Detected::Http2 | Detected::Tls | Detected::Opaque | Detected::NeedMore => {
            Box::pin(opaque::serve(&connection, io, None)).await;
        }
    }
}

/// A peer outside the mesh that keeps silent: perhaps the application is the one to speak first.
async fn silent(connection: &mut Connection, mut io: Io, protocol: Option<Protocol>) {
    let application = match local::dial(connection).await {
        Ok(application) => application,
        Err(error) => return connection.count_error(&error),
    };
    let mut application = Io::from(application);
    let verdict = tokio::select! {
        verdict = timeout(connection.worker.settings.detect_timeout, sniff::verdict(&mut io)) => verdict,
        _ = application.fill(detect::MOST_BYTES) => return opaque::serve(connection, io, Some(application)).await,
    };
    match verdict {
        Err(_) => opaque::serve(connection, io, Some(application)).await,
        Ok(Ok(Some(Detected::Tls))) => {
            // It may be a mesh peer that was slow to begin.
            drop(application);
            match sniff::client_hello(&mut io).await {
                Ok(Some(hello)) if !hello.mesh.is_empty() => mesh(connection.again(), io).await,
                Ok(_) => opaque::serve(connection, io, None).await,
                Err(_) => {}
            }
        }
        Ok(Ok(Some(verdict))) => plaintext(connection.again(), io, verdict, protocol).await,
        Ok(Ok(None) | Err(_)) => {}
    }
}

/// Plaintext under STRICT: an HTTP client is told why.
async fn refuse(connection: &Connection, io: Io, verdict: Detected) {
    let error = Error::PlaintextRefused;
    tracing::info!(peer = %connection.peer, dialled = %connection.dialled, "{error}");
    connection.metrics.refused_connections.inc();
    connection.count_error(&error);
    sniff::answer_all(io, verdict, error, connection.worker.drain.closing()).await;
}

impl Connection {
    fn detected(&self) -> &crate::metrics::Detect {
        &self.worker.recorder.metrics().detect
    }

    /// Counts a connection that is taken. Those in the clear are the ones that STRICT would refuse.
    fn taken(&self) {
        let counter = match &self.identity {
            Some(_) => &self.metrics.mutual_connections,
            None => &self.metrics.plaintext_connections,
        };
        counter.inc();
    }

    fn count_error(&self, error: &Error) {
        self.worker
            .recorder
            .metrics()
            .error(Direction::Inbound, error.flag());
    }

    fn again(&self) -> Self {
        Self {
            worker: Rc::clone(&self.worker),
            peer: self.peer,
            dialled: self.dialled,
            identity: self.identity.clone(),
            told: self.told.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
