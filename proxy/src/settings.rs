//! The proxy's settings. This is the only file that reads the environment: flags win over the environment, the
//! environment over the settings file, the file over defaults. A bad value is an error that names it, and no start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a running proxy.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://host:port` of the operator.
    pub operator: String,
    /// PEM file with the roots that the operator is verified against.
    pub operator_roots: PathBuf,
    /// File with the token that proves this workload; read anew for each use.
    pub token_file: PathBuf,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Service account of the pod.
    pub service_account: String,
    /// Addresses of the pod.
    pub pod_ips: Vec<IpAddr>,
    /// Worker threads.
    pub workers: usize,
    /// Filter of the log, as in `proxy=info`.
    pub log: String,
    /// The log as JSON.
    pub log_json: bool,
    /// The access log.
    pub access_log: AccessLog,
    /// Port of the outbound listener.
    pub outbound_port: u16,
    /// Port of the inbound listener.
    pub inbound_port: u16,
    /// Address of the admin server.
    pub admin: SocketAddr,
    /// Mark put on the proxy's own connections, where its traffic cannot be told by user.
    pub socket_mark: Option<u32>,
    /// Connections that may be open at once, inbound and outbound each.
    pub max_connections: u32,
    /// How long the operator may take to say what stands behind an address.
    pub discovery_timeout: Duration,
    /// What happens to a connection when it does not say so in time.
    pub on_discovery_timeout: OnDiscoveryTimeout,
    /// A destination without a connection for this long is given up.
    pub destination_idle: Duration,
    /// How long a connection's first bytes may take before it counts as opaque.
    pub detect_timeout: Duration,
    /// After SIGTERM, how long connections are still accepted.
    pub drain_delay: Duration,
    /// After SIGTERM, how long open connections may go on.
    pub drain_timeout: Duration,
}

/// The access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// One line of words a request.
    Text,
    /// One JSON object a request.
    Json,
}

/// What happens to a connection when the operator does not say in time what stands behind its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDiscoveryTimeout {
    /// It is refused: it may have needed mutual TLS.
    Refuse,
    /// It is passed on as it is, without mutual TLS.
    Passthrough,
}
