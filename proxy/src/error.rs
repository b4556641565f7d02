//! The proxy's one error: what kept a request or a connection from its answer, whose fault it is, whether it may be
//! tried again, and how it is told to the application.

use std::io;
use std::sync::Arc;

use http::StatusCode;

const NONE_READY: &str = "no pod of it is ready, or its subset selects none";

/// What kept a request or a connection from its answer. `Display` tells an operator what to look at.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No rule of the route matches.
    #[error("no rule of route {route} matches the request")]
    NoRoute {
        /// Name of the route.
        route: Arc<str>,
    },
    /// The operator refuses the destination, or could not be asked.
    #[error("destination refused: {reason}")]
    Refused {
        /// Why.
        reason: Arc<str>,
    },
    /// The operator did not say in time what stands behind the address.
    #[error("the operator did not answer in time what stands behind {address}")]
    DiscoveryTimeout {
        /// The dialled address.
        address: std::net::SocketAddr,
    },
    /// The cluster has no endpoint that is ready.
    #[error("cluster {cluster} has no endpoint: {}", absent.as_deref().unwrap_or(NONE_READY))]
    NoEndpoint {
        /// Name of the cluster.
        cluster: Arc<str>,
        /// Why the operator has no such cluster or no such endpoints, where that is the reason.
        absent: Option<Arc<str>>,
    },
    /// The breakers of all endpoints are open, or all are ejected.
    #[error("circuit breakers of all endpoints of cluster {cluster} are open")]
    BreakerOpen {
        /// Name of the cluster.
        cluster: Arc<str>,
    },
    /// A bound of the DestinationRule is reached.
    #[error("cluster {cluster} is at its limit {limit}")]
    Overflow {
        /// Name of the cluster.
        cluster: Arc<str>,
        /// Name of the bound, as in the DestinationRule.
        limit: &'static str,
    },
    /// The endpoint has no identity, but the DestinationRule asks for mutual TLS.
    #[error("endpoint {endpoint} is outside the mesh, but mutual TLS is required")]
    NotMeshed {
        /// The endpoint.
        endpoint: std::net::SocketAddr,
    },
    /// No connection came about.
    #[error("connecting to {endpoint} failed: {source}")]
    Connect {
        /// The endpoint.
        endpoint: std::net::SocketAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No connection came about in time.
    #[error("connecting to {endpoint} took too long")]
    ConnectTimeout {
        /// The endpoint.
        endpoint: std::net::SocketAddr,
    },
    /// The TLS handshake failed.
    #[error("TLS with {endpoint} failed: {source}")]
    Tls {
        /// The endpoint.
        endpoint: std::net::SocketAddr,
        /// What the handshake said.
        source: Arc<io::Error>,
    },
    /// The server does not have the name that the request asked it for: that says nothing about the server.
    #[error("TLS with {endpoint} failed: {source}")]
    TlsName {
        /// The endpoint.
        endpoint: std::net::SocketAddr,
        /// Which names it has.
        source: Arc<io::Error>,
    },
    /// No handshake can be begun with what a DestinationRule gives for it, whatever the endpoint.
    #[error("TLS cannot be set up: {source}")]
    TlsSetup {
        /// What is wrong with a file or a name.
        source: Arc<io::Error>,
    },
    /// This proxy holds no certificate (yet).
    #[error("this proxy holds no certificate yet")]
    NoCertificate,
    /// The request was handed back unsent.
    #[error("the connection to {endpoint} closed before the request was sent")]
    NotSent {
        /// The endpoint.
        endpoint: std::net::SocketAddr,
    },
    /// The endpoint said that it did not process the request.
    #[error("{endpoint} refused the stream without processing it")]
    RefusedStream {
        /// The endpoint.
        endpoint: std::net::SocketAddr,
    },
    /// The connection ended after the request was sent, before response headers.
    #[error("{endpoint} closed the connection before it answered: {source}")]
    Reset {
        /// The endpoint.
        endpoint: std::net::SocketAddr,
        /// What the connection said.
        source: Arc<hyper::Error>,
    },
    /// The per-try timeout passed.
    #[error("{endpoint} did not answer within the per-try timeout")]
    TryTimeout {
        /// The endpoint.
        endpoint: std::net::SocketAddr,
    },
    /// The timeout of the route passed.
    #[error("the request did not finish within the timeout of its route")]
    Timeout,
    /// The rule answers a share of its requests with an error on purpose.
    #[error("its rule injects this fault on purpose: status {}", status.as_u16())]
    FaultAbort {
        /// Status of the answer.
        status: StatusCode,
        /// Status of the answer to a gRPC request.
        grpc: u8,
    },
    /// The request cannot be taken as it is.
    #[error("bad request: {problem}")]
    BadRequest {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The application's own request ended early.
    #[error("the application ended the request: {source}")]
    Downstream {
        /// What the connection said.
        source: Arc<hyper::Error>,
    },
    /// Plaintext where mutual TLS is required.
    #[error("plaintext refused: this workload takes mutual TLS only (PeerAuthentication STRICT)")]
    PlaintextRefused,
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller's.
    Downstream,
    /// The endpoint's or the network's on the way to it.
    Upstream,
    /// Configuration, policy or this proxy.
    Mesh,
}

impl Error {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::BadRequest { .. } | Self::Downstream { .. } | Self::PlaintextRefused => Fault::Downstream,
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Tls { .. }
            | Self::TlsName { .. }
            | Self::NotSent { .. }
            | Self::RefusedStream { .. }
            | Self::Reset { .. }
            | Self::TryTimeout { .. }
            | Self::Timeout => Fault::Upstream,
            Self::NoRoute { .. }
            | Self::Refused { .. }
            | Self::DiscoveryTimeout { .. }
            | Self::NoEndpoint { .. }
            | Self::BreakerOpen { .. }
            | Self::Overflow { .. }
            | Self::NotMeshed { .. }
            | Self::TlsSetup { .. }
            | Self::FaultAbort { .. }
            | Self::NoCertificate => Fault::Mesh,
        }
    }

    /// Whether the request provably did not reach the application of the endpoint.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Tls { .. }
            | Self::TlsName { .. }
            | Self::NoCertificate
            | Self::NotMeshed { .. }
            | Self::NotSent { .. }
            | Self::RefusedStream { .. } => true,
            Self::NoRoute { .. }
            | Self::Refused { .. }
            | Self::DiscoveryTimeout { .. }
            | Self::NoEndpoint { .. }
            | Self::BreakerOpen { .. }
            | Self::Overflow { .. }
            // Another endpoint would make no difference.
            | Self::TlsSetup { .. }
            | Self::Reset { .. }
            | Self::TryTimeout { .. }
            | Self::Timeout
            | Self::FaultAbort { .. }
            | Self::BadRequest { .. }
            | Self::Downstream { .. }
            | Self::PlaintextRefused => false,
        }
    }

    /// Status of the answer to an HTTP request.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute { .. } => StatusCode::NOT_FOUND,
            Self::BadRequest { .. } | Self::Downstream { .. } => StatusCode::BAD_REQUEST,
            Self::PlaintextRefused | Self::Refused { .. } => StatusCode::FORBIDDEN,
            Self::Timeout | Self::TryTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Reset { .. } => StatusCode::BAD_GATEWAY,
            Self::FaultAbort { status, .. } => *status,
            Self::DiscoveryTimeout { .. }
            | Self::NoEndpoint { .. }
            | Self::BreakerOpen { .. }
            | Self::Overflow { .. }
            | Self::NotMeshed { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Tls { .. }
            | Self::TlsName { .. }
            | Self::TlsSetup { .. }
            | Self::NoCertificate
            | Self::NotSent { .. }
            | Self::RefusedStream { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Code of the answer to a gRPC request: the gRPC specification's mapping of HTTP statuses, but for timeouts.
    #[must_use]
    pub fn grpc_code(&self) -> u8 {
        const INTERNAL: u8 = 13;
        const PERMISSION_DENIED: u8 = 7;
        const DEADLINE_EXCEEDED: u8 = 4;
        const UNIMPLEMENTED: u8 = 12;
        const UNAVAILABLE: u8 = 14;
        if let Self::FaultAbort { grpc, .. } = self {
            return *grpc;
        }
        match self.status() {
            StatusCode::BAD_REQUEST => INTERNAL,
            StatusCode::FORBIDDEN => PERMISSION_DENIED,
            StatusCode::NOT_FOUND => UNIMPLEMENTED,
            StatusCode::GATEWAY_TIMEOUT => DEADLINE_EXCEEDED,
            _ => UNAVAILABLE,
        }
    }

    /// Short word for metrics, the access log and the reason header; the set is closed.
    #[must_use]
    pub fn flag(&self) -> &'static str {
        match self {
            Self::NoRoute { .. } => "no_route",
            Self::Refused { .. } => "refused",
            Self::DiscoveryTimeout { .. } => "discovery_timeout",
            Self::NoEndpoint { .. } => "no_endpoint",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::Overflow { .. } => "overflow",
            Self::NotMeshed { .. } => "not_meshed",
            Self::Connect { .. } => "connect_failure",
            Self::ConnectTimeout { .. } => "connect_timeout",
            Self::Tls { .. } | Self::TlsName { .. } | Self::TlsSetup { .. } => "tls_failure",
            Self::NoCertificate => "no_certificate",
            Self::NotSent { .. } => "not_sent",
            Self::RefusedStream { .. } => "refused_stream",
            Self::Reset { .. } => "reset",
            Self::TryTimeout { .. } => "try_timeout",
            Self::Timeout => "timeout",
            Self::FaultAbort { .. } => "fault_abort",
            Self::BadRequest { .. } => "bad_request",
            Self::Downstream { .. } => "downstream",
            Self::PlaintextRefused => "plaintext_refused",
        }
    }
}
