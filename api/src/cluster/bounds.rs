//! What a cluster bounds: what may be under way at once, how many retries, and how long connections live.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{ms_or_zero, off_or};
use crate::invalid::{Invalid, optional_ms, to_ms};
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
    /// Streams on one HTTP/2 connection before another is opened; `None` for what the proxy does by itself.
    pub max_concurrent_streams: Option<NonZeroU32>,
}

/// How many retries may be under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Share of the requests that count, 0 to 100.
    pub percent: f64,
    /// Always allowed.
    pub min_concurrency: u32,
    /// Requests that began within this time count too; `None` for only those under way.
    pub interval: Option<Duration>,
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

/// PINGs on HTTP/2 connections, whether or not requests are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// Between two of them.
    pub interval: Duration,
    /// Without an answer for so long, the connection is dead.
    pub timeout: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            percent: limits::RETRY_BUDGET_PERCENT,
            min_concurrency: limits::RETRY_BUDGET_MIN,
            interval: None,
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
            max_concurrent_streams,
        } = pb;
        Self {
            max_connections: NonZeroU32::new(max_connections),
            max_pending_requests: NonZeroU32::new(max_pending_requests),
            max_requests: NonZeroU32::new(max_requests),
            max_retries: NonZeroU32::new(max_retries),
            max_requests_per_connection: NonZeroU32::new(max_requests_per_connection),
            max_concurrent_streams: NonZeroU32::new(max_concurrent_streams),
        }
    }
}

impl TryFrom<proto::RetryBudget> for RetryBudget {
    type Error = Invalid;

    fn try_from(
        proto::RetryBudget {
            percent,
            min_concurrency,
            interval_ms,
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
            interval: optional_ms(interval_ms),
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

impl TryFrom<proto::Http2Keepalive> for Http2Keepalive {
    type Error = Invalid;

    fn try_from(
        proto::Http2Keepalive {
            interval_ms,
            timeout_ms,
        }: proto::Http2Keepalive,
    ) -> Result<Self, Invalid> {
        let needed =
            |field: &str, ms| optional_ms(ms).ok_or_else(|| Invalid::new(field, "must be at least 1"));
        Ok(Self {
            interval: needed("interval_ms", interval_ms)?,
            timeout: needed("timeout_ms", timeout_ms)?,
        })
    }
}

impl From<Http2Keepalive> for proto::Http2Keepalive {
    fn from(Http2Keepalive { interval, timeout }: Http2Keepalive) -> Self {
        Self {
            interval_ms: to_ms(interval),
            timeout_ms: to_ms(timeout),
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
            max_concurrent_streams,
        } = limits;
        Self {
            max_connections: off_or(max_connections),
            max_pending_requests: off_or(max_pending_requests),
            max_requests: off_or(max_requests),
            max_retries: off_or(max_retries),
            max_requests_per_connection: off_or(max_requests_per_connection),
            max_concurrent_streams: off_or(max_concurrent_streams),
        }
    }
}

impl From<RetryBudget> for proto::RetryBudget {
    fn from(
        RetryBudget {
            percent,
            min_concurrency,
            interval,
        }: RetryBudget,
    ) -> Self {
        Self {
            percent,
            min_concurrency,
            interval_ms: ms_or_zero(interval),
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
