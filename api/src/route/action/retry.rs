//! When and how often a request is tried again.

use std::time::Duration;

use http::StatusCode;

use super::{millis, status, to_millis};
use crate::invalid::{Invalid, Under, to_ms};
use crate::{limits, proto};

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first; 0 for none.
    pub attempts: u32,
    /// Bound of each try; `None` for the request's.
    pub per_try_timeout: Option<Duration>,
    /// What a try may fail with to be followed by another.
    pub conditions: Vec<RetryCondition>,
    /// Response statuses that are tried again.
    pub statuses: Vec<StatusCode>,
    /// Base of the exponential back-off.
    pub backoff: Duration,
    /// Prefer endpoints not yet tried for this request.
    pub avoid_previous: bool,
    /// Prefer places (see [`Locality`](crate::Locality)) that nothing of this request was sent to yet.
    pub avoid_previous_places: bool,
}

impl Default for Retry {
    /// What holds for every request: again only when it provably was not processed.
    fn default() -> Self {
        Self {
            attempts: limits::RETRY_ATTEMPTS,
            per_try_timeout: None,
            conditions: vec![RetryCondition::ConnectFailure, RetryCondition::RefusedStream],
            statuses: Vec::new(),
            backoff: limits::RETRY_BACKOFF,
            avoid_previous: true,
            avoid_previous_places: false,
        }
    }
}

/// What a try may fail with to be followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryCondition {
    /// No connection came about.
    ConnectFailure,
    /// HTTP/2 REFUSED_STREAM, or a GOAWAY that says it was not processed.
    RefusedStream,
    /// The connection ended before response headers, or the per-try timeout passed.
    Reset,
    /// The connection ended before the request was sent.
    ResetBeforeRequest,
    /// Status 5xx, and all that `Reset` means.
    ServerError,
    /// Status 502, 503 or 504.
    GatewayError,
    /// Status 409.
    Retriable4xx,
    /// gRPC status 1.
    GrpcCancelled,
    /// gRPC status 4.
    GrpcDeadlineExceeded,
    /// gRPC status 13.
    GrpcInternal,
    /// gRPC status 8.
    GrpcResourceExhausted,
    /// gRPC status 14.
    GrpcUnavailable,
    /// The answer says that a rate limiter gave it.
    RateLimited,
    /// The answer has a header that the request named for this.
    RetriableHeaders,
}

impl TryFrom<proto::Retry> for Retry {
    type Error = Invalid;

    fn try_from(pb: proto::Retry) -> Result<Self, Invalid> {
        let proto::Retry {
            attempts,
            per_try_timeout,
            conditions,
            statuses,
            backoff_ms,
            avoid_previous,
            avoid_previous_places,
        } = pb;
        if attempts > limits::MAX_RETRY_ATTEMPTS {
            return Err(Invalid::new(
                "attempts",
                format!(
                    "{attempts} are more than the {} allowed",
                    limits::MAX_RETRY_ATTEMPTS
                ),
            ));
        }
        let conditions = conditions
            .into_iter()
            .enumerate()
            .map(|(i, c)| condition(c).under(&format!("conditions[{i}]")))
            .collect::<Result<_, _>>()?;
        let statuses = statuses
            .into_iter()
            .enumerate()
            .map(|(i, s)| status(&format!("statuses[{i}]"), s))
            .collect::<Result<_, _>>()?;
        let per_try_timeout = per_try_timeout
            .map(|t| millis("per_try_timeout", t))
            .transpose()?;
        let backoff = Duration::from_millis(backoff_ms);
        Ok(Self {
            attempts,
            per_try_timeout,
            conditions,
            statuses,
            backoff,
            avoid_previous,
            avoid_previous_places,
        })
    }
}

impl From<Retry> for proto::Retry {
    fn from(retry: Retry) -> Self {
        let Retry {
            attempts,
            per_try_timeout,
            conditions,
            statuses,
            backoff,
            avoid_previous,
            avoid_previous_places,
        } = retry;
        Self {
            attempts,
            per_try_timeout: per_try_timeout.map(to_millis),
            conditions: conditions
                .into_iter()
                .map(|c| proto::RetryCondition::from(c).into())
                .collect(),
            statuses: statuses.into_iter().map(|s| s.as_u16().into()).collect(),
            backoff_ms: to_ms(backoff),
            avoid_previous,
            avoid_previous_places,
        }
    }
}

fn condition(pb: i32) -> Result<RetryCondition, Invalid> {
    use proto::RetryCondition as Pb;
    Ok(match Pb::try_from(pb).unwrap_or(Pb::Unspecified) {
        Pb::ConnectFailure => RetryCondition::ConnectFailure,
        Pb::RefusedStream => RetryCondition::RefusedStream,
        Pb::Reset => RetryCondition::Reset,
        Pb::ResetBeforeRequest => RetryCondition::ResetBeforeRequest,
        Pb::ServerError => RetryCondition::ServerError,
        Pb::GatewayError => RetryCondition::GatewayError,
        Pb::Retriable4xx => RetryCondition::Retriable4xx,
        Pb::GrpcCancelled => RetryCondition::GrpcCancelled,
        Pb::GrpcDeadlineExceeded => RetryCondition::GrpcDeadlineExceeded,
        Pb::GrpcInternal => RetryCondition::GrpcInternal,
        Pb::GrpcResourceExhausted => RetryCondition::GrpcResourceExhausted,
        Pb::GrpcUnavailable => RetryCondition::GrpcUnavailable,
        Pb::RateLimited => RetryCondition::RateLimited,
        Pb::RetriableHeaders => RetryCondition::RetriableHeaders,
        Pb::Unspecified => {
            return Err(Invalid::new(
                "",
                format!("{pb} is not a condition this build knows"),
            ));
        }
    })
}

impl From<RetryCondition> for proto::RetryCondition {
    fn from(condition: RetryCondition) -> Self {
        match condition {
            RetryCondition::ConnectFailure => Self::ConnectFailure,
            RetryCondition::RefusedStream => Self::RefusedStream,
            RetryCondition::Reset => Self::Reset,
            RetryCondition::ResetBeforeRequest => Self::ResetBeforeRequest,
            RetryCondition::ServerError => Self::ServerError,
            RetryCondition::GatewayError => Self::GatewayError,
            RetryCondition::Retriable4xx => Self::Retriable4xx,
            RetryCondition::GrpcCancelled => Self::GrpcCancelled,
            RetryCondition::GrpcDeadlineExceeded => Self::GrpcDeadlineExceeded,
            RetryCondition::GrpcInternal => Self::GrpcInternal,
            RetryCondition::GrpcResourceExhausted => Self::GrpcResourceExhausted,
            RetryCondition::GrpcUnavailable => Self::GrpcUnavailable,
            RetryCondition::RateLimited => Self::RateLimited,
            RetryCondition::RetriableHeaders => Self::RetriableHeaders,
        }
    }
}
