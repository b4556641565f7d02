//! What `/health` and `/health/ready` say: the process, and each thing it depends on with its state and latency.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Admin;
use crate::access_log::rfc3339;
use crate::drain::Phase;
use crate::metrics::process;

/// The proxy's health.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    status: Status,
    version: &'static str,
    uptime_seconds: f64,
    /// What is wrong, or missing.
    reasons: Vec<String>,
    process: process::Usage,
    disk: Option<Disk>,
    dependencies: Dependencies,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// Everything works.
    Ok,
    /// Traffic flows, but something it depends on does not answer.
    Degraded,
    /// Not ready yet.
    Starting,
    /// Shutting down.
    Draining,
}

#[derive(Debug, Serialize)]
struct Disk {
    total_bytes: u64,
    free_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Dependencies {
    operator: Operator,
    certificate: Certificate,
}

#[derive(Debug, Serialize)]
struct Operator {
    state: &'static str,
    address: String,
    latency_ms: Option<f64>,
    last_received: Option<String>,
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    state: &'static str,
    expires: Option<String>,
    expires_in_seconds: Option<u64>,
    /// How long the operator took to sign.
    latency_ms: Option<f64>,
    last_error: Option<String>,
}

impl Admin {
    /// Why the proxy is not ready; empty when it is.
    pub(super) fn not_ready(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.drain.phase() != Phase::Running {
            missing.push("the proxy is shutting down".to_owned());
        }
        if !self.config.is_ready() {
            let link = self.config.link();
            let why = link.last_error.filter(|_| !link.connected);
            let why = why.map_or_else(String::new, |e| format!(" ({e})"));
            missing.push(format!("the first configuration has not been applied{why}"));
        }
        if !self.identity.is_ready() {
            let status = self.identity.status();
            let why = status.last_error.map_or_else(String::new, |e| format!(" ({e})"));
            missing.push(match status.expires {
                Some(expires) => format!("the certificate expired at {}{why}", rfc3339(expires)),
                None => format!("no certificate is held{why}"),
            });
        }
        missing
    }

    pub(super) fn health(&self) -> Health {
        let dependencies = Dependencies {
            operator: self.operator_health(),
            certificate: self.certificate_health(),
        };
        let mut reasons = self.not_ready();
        let status = if self.drain.phase() != Phase::Running {
            Status::Draining
        } else if !reasons.is_empty() {
            Status::Starting
        } else {
            let failed = [
                ("operator", &dependencies.operator.last_error),
                ("certificate", &dependencies.certificate.last_error),
            ];
            for (name, error) in failed {
                reasons.extend(error.as_ref().map(|e| format!("{name}: {e}")));
            }
            if reasons.is_empty() {
                Status::Ok
            } else {
                Status::Degraded
            }
        };
        Health {
            status,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            reasons,
            process: process::Usage::read(),
            disk: disk(),
            dependencies,
        }
    }

    fn operator_health(&self) -> Operator {
        let link = self.config.link();
        Operator {
            state: if link.connected {
                "connected"
            } else {
                "disconnected"
            },
            address: self.operator.to_string(),
            latency_ms: link.latency.map(ms),
            last_received: link.last_received.map(rfc3339),
            last_error: link.last_error.filter(|_| !link.connected),
        }
    }

    fn certificate_health(&self) -> Certificate {
        let status = self.identity.status();
        let left = status
            .expires
            .and_then(|e| e.duration_since(SystemTime::now()).ok());
        Certificate {
            state: match (status.expires, left) {
                (None, _) => "missing",
                (Some(_), None) => "expired",
                (Some(_), Some(_)) => "valid",
            },
            expires: status.expires.map(rfc3339),
            expires_in_seconds: left.map(|l| l.as_secs()),
            latency_ms: status.latency.map(ms),
            last_error: status.last_error,
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The file system of the container; the proxy writes nothing there, but a full one hurts its neighbours.
fn disk() -> Option<Disk> {
    let stat = nix::sys::statvfs::statvfs("/").ok()?;
    Some(Disk {
        total_bytes: stat.blocks() * stat.fragment_size(),
        free_bytes: stat.blocks_available() * stat.fragment_size(),
    })
}
