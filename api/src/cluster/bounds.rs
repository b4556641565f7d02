//! What a cluster bounds: what may be under way at once, how many retries, and how long connections live.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{ms_or_zero, off_or};
use crate::invalid::{Invalid, optional_ms};
use crate::{limits, proto};

/// Upper bounds; `None` for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Connections to the cluster.
    pub max_connections: Option<NonZeroU32>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<NonZeroU32>,
    /// Requests under way.
    pub max_requests: Option<NonZeroU32>,
    /// Retries under way.
    pub max_retries: Option<NonZeroU32>,
    /// Requests on one connection before it is closed.
    pub max_requests_per_connection: Option<NonZeroU32>,
}

/// How many retries may be under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Share of the requests under way, 0 to 100.
    pub percent: f64,
    /// Always allowed.
    pub min_concurrency: u32,
}

/// Lifetimes of connections; `None` for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A pooled HTTP connection without a request.
    pub http_idle: Option<Duration>,
    /// A TCP stream without a byte.
    pub tcp_idle: Option<Duration>,
    /// Any connection.
    pub max_connection: Option<Duration>,
}

/// TCP keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Probes without an answer before the connection counts as dead; `None` for the system's setting.
    pub probes: Option<NonZeroU32>,
    /// Idle time before the first probe; `None` for the system's setting.
    pub time: Option<Duration>,
    /// Between probes; `None` for the system's setting.
    pub interval: Option<Duration>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: limits::RETRY_BUDGET_PERCENT,
            min_concurrency: limits::RETRY_BUDGET_MIN,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            http_idle: Some(limits::IDLE_TIMEOUT),
            tcp_idle: Some(limits::IDLE_TIMEOUT),
            max_connection: None,
        }
    }
}

impl From<proto::Limits> for Limits {
    fn from(pb: proto::Limits) -> Self {
        let proto::Limits {
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            max_requests_per_connection,
        } = pb;
        Self {
            max_connections: NonZeroU32::new(max_connections),
            max_pending_requests: NonZeroU32::new(max_pending_requests),
            max_requests: NonZeroU32::new(max_requests),
            max_retries: NonZeroU32::new(max_retries),
            max_requests_per_connection: NonZeroU32::new(max_requests_per_connection),
        }
    }
}

impl TryFrom<proto::RetryBudget> for RetryBudget {
    type Error = Invalid;

    fn try_from(
        proto::RetryBudget {
            percent,
            min_concurrency,
        }: proto::RetryBudget,
    ) -> Result<Self, Invalid> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Invalid::new(
                "percent",
                format!("{percent} is not a percentage: use 0 to 100"),
            ));
        }
        Ok(Self {
            percent,
            min_concurrency,
        })
    }
}

impl From<proto::Timeouts> for Timeouts {
    fn from(
        proto::Timeouts {
            http_idle_ms,
            tcp_idle_ms,
            max_connection_ms,
        }: proto::Timeouts,
    ) -> Self {
        Self {
            http_idle: optional_ms(http_idle_ms),
            tcp_idle: optional_ms(tcp_idle_ms),
            max_connection: optional_ms(max_connection_ms),
        }
    }
}

impl From<proto::Keepalive> for Keepalive {
    fn from(
        proto::Keepalive {
            probes,
            time_ms,
            interval_ms,
        }: proto::Keepalive,
    ) -> Self {
        Self {
            probes: NonZeroU32::new(probes),
            time: optional_ms(time_ms),
            interval: optional_ms(interval_ms),
        }
    }
}

impl From<Limits> for proto::Limits {
    fn from(limits: Limits) -> Self {
        let Limits {
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            max_requests_per_connection,
        } = limits;
        Self {
            max_connections: off_or(max_connections),
            max_pending_requests: off_or(max_pending_requests),
            max_requests: off_or(max_requests),
            max_retries: off_or(max_retries),
            max_requests_per_connection: off_or(max_requests_per_connection),
        }
    }
}

impl From<RetryBudget> for proto::RetryBudget {
    fn from(
        RetryBudget {
            percent,
            min_concurrency,
        }: RetryBudget,
    ) -> Self {
        Self {
            percent,
            min_concurrency,
        }
    }
}

impl From<Timeouts> for proto::Timeouts {
    fn from(
        Timeouts {
            http_idle,
            tcp_idle,
            max_connection,
        }: Timeouts,
    ) -> Self {
        Self {
            http_idle_ms: ms_or_zero(http_idle),
            tcp_idle_ms: ms_or_zero(tcp_idle),
            max_connection_ms: ms_or_zero(max_connection),
        }
    }
}

impl From<Keepalive> for proto::Keepalive {
    fn from(
        Keepalive {
            probes,
            time,
            interval,
        }: Keepalive,
    ) -> Self {
        Self {
            probes: off_or(probes),
            time_ms: ms_or_zero(time),
            interval_ms: ms_or_zero(interval),
        }
    }
}
