//! Whether an attempt that failed is followed by another. The outbound path asks [`decide`] after each attempt, then takes
//! a [`budget`] permit, waits [`backoff`], and picks an endpoint anew. Nothing is sent or counted here.
//!
//! Three kinds of failure, from safe to risky:
//!
//! 1. **Not sent.** A pooled connection closed before the request was on it ([`Error::NotSent`]). Pooling is ours, so the
//!    first such replay happens whatever the policy says, even with `attempts: 0`. Connections that did not come about and
//!    refused streams were not processed either; they are replayed by the conditions `connect-failure` and
//!    `refused-stream`, both on by default.
//! 2. **A race that idempotent methods may repeat** (RFC 9110, 9.2.2): the request was sent on a *pooled* connection that
//!    closed before the first byte of an answer. Replayed for GET, HEAD, OPTIONS, TRACE, PUT and DELETE.
//! 3. **Everything else was, or may have been, processed.** It is tried again only where the conditions or statuses that
//!    the user wrote in `retryOn` cover it: then also for POST, because the user said so.
//!
//! Replies that this proxy decided itself (no route, limits, open breakers, the route's timeout) are final.

use std::fmt;

use api::RetryCondition;
use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::error::Error;

pub mod backoff;
pub mod budget;

/// What came of an attempt.
#[derive(Debug, Clone, Copy)]
pub enum Verdict<'a> {
    /// The endpoint answered.
    Answer {
        /// Status of the answer.
        status: StatusCode,
        /// Its gRPC status, where the headers carry one already; see [`grpc_status`].
        grpc: Option<u8>,
        /// A rate limiter gave it; see [`is_limited`].
        limited: bool,
        /// It has a header that the request named; see [`take_retriable_headers`].
        named: bool,
    },
    /// There is no answer.
    Failed {
        /// Why.
        error: &'a Error,
        /// The connection had served before.
        pooled: bool,
    },
}

/// What about a request decides whether it may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKind {
    /// Its method may be repeated without harm; see [`is_idempotent`].
    pub idempotent: bool,
    /// All of its body is still at hand (or has not been touched).
    pub replayable: bool,
}

/// Whether to try again, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again.
    Again(Why),
    /// The answer or the error is final.
    Final(WhyNot),
}

/// Why to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A connection of the pool closed before the request was on it.
    NotSent,
    /// A connection of the pool closed before the answer, and the method is idempotent.
    IdempotentRace,
    /// A condition of the policy.
    Condition(RetryCondition),
    /// A status of the policy.
    Status(StatusCode),
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNot {
    /// Nothing in the policy covers it (or it is a success).
    NotCovered,
    /// It would be tried again, but as many tries as the policy allows are used.
    AttemptsUsed(u32, Why),
    /// It would be tried again, but part of its body is gone.
    BodyGone(Why),
}

/// Whether a method may be repeated without harm (RFC 9110, 9.2.2).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// The `grpc-status` of headers or trailers. What is there but is no number from 0 to 255 counts as 2, `UNKNOWN`, as the
/// gRPC specification asks of clients.
#[must_use]
pub fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    const UNKNOWN: u8 = 2;
    let value = headers.get(crate::message::GRPC_STATUS)?;
    Some(
        value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(UNKNOWN),
    )
}

/// Decides about an attempt. `retries` is how many tries this request has had after its first.
#[must_use]
pub fn decide(policy: &api::Retry, retries: u32, verdict: Verdict<'_>, request: RequestKind) -> Decision {
    let why = match verdict {
        Verdict::Answer {
            status,
            grpc,
            limited,
            named,
        } => answer(policy, (status, grpc), limited, named),
        Verdict::Failed { error, pooled } => failure(policy, error, pooled, request.idempotent),
    };
    let Some(why) = why else {
        return Decision::Final(WhyNot::NotCovered);
    };
    let allowed = match why {
        Why::NotSent => policy.attempts.max(1),
        Why::IdempotentRace | Why::Condition(_) | Why::Status(_) => policy.attempts,
    };
    if retries >= allowed {
        Decision::Final(WhyNot::AttemptsUsed(retries, why))
    } else if !request.replayable {
        Decision::Final(WhyNot::BodyGone(why))
    } else {
        Decision::Again(why)
    }
}

/// Whether an answer is one that failed.
#[must_use]
pub fn is_error(status: StatusCode, grpc: Option<u8>) -> bool {
    status.as_u16() >= 400 || !matches!(grpc, None | Some(0))
}

/// Whether an answer says that a rate limiter gave it, as Envoy's and those that stand behind it do.
#[must_use]
pub fn is_limited(headers: &HeaderMap) -> bool {
    headers.contains_key("x-envoy-ratelimited")
}

/// Takes from a request the header by which it names headers of the answer that ask for another try (of the condition
/// `retriable-headers`). It is for the first proxy: endpoints do not get it.
pub fn take_retriable_headers(headers: &mut HeaderMap) -> Option<Box<[HeaderName]>> {
    const NAMES: HeaderName = HeaderName::from_static("x-envoy-retriable-header-names");
    /// What is looked for in each answer stays bounded.
    const MOST: usize = 32;
    let http::header::Entry::Occupied(entry) = headers.entry(NAMES) else {
        return None;
    };
    let (_, values) = entry.remove_entry_mult();
    let texts: Vec<_> = values.collect();
    let names = texts
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    Some(names.take(MOST).collect())
}

/// What covers an answer. One that a rate limiter gave is covered by `envoy-ratelimited` alone: trying again is what it
/// asks not to do.
fn answer(
    policy: &api::Retry,
    (status, grpc): (StatusCode, Option<u8>),
    limited: bool,
    named: bool,
) -> Option<Why> {
    if limited {
        let wanted = policy.conditions.contains(&RetryCondition::RateLimited);
        return wanted.then_some(Why::Condition(RetryCondition::RateLimited));
    }
    if !is_error(status, grpc) && policy.statuses.is_empty() && !named {
        return None;
    }
    let covers = |condition: &RetryCondition| match condition {
        RetryCondition::ServerError => status.is_server_error(),
        RetryCondition::GatewayError => (502..=504).contains(&status.as_u16()),
        RetryCondition::Retriable4xx => status == StatusCode::CONFLICT,
        RetryCondition::GrpcCancelled => grpc == Some(1),
        RetryCondition::GrpcDeadlineExceeded => grpc == Some(4),
        RetryCondition::GrpcResourceExhausted => grpc == Some(8),
        RetryCondition::GrpcInternal => grpc == Some(13),
        RetryCondition::GrpcUnavailable => grpc == Some(14),
        RetryCondition::RetriableHeaders => named,
        RetryCondition::RateLimited
        | RetryCondition::ConnectFailure
        | RetryCondition::RefusedStream
        | RetryCondition::Reset
        | RetryCondition::ResetBeforeRequest => false,
    };
    let condition = policy.conditions.iter().copied().find(covers).map(Why::Condition);
    condition.or_else(|| policy.statuses.contains(&status).then_some(Why::Status(status)))
}

/// What covers a failure. `5xx`, `gateway-error` and `reset` cover every failure to get an answer, as they do in Envoy:
/// the application would have seen a 502, 503 or 504.
fn failure(policy: &api::Retry, error: &Error, pooled: bool, idempotent: bool) -> Option<Why> {
    use RetryCondition::{ConnectFailure, RefusedStream, ResetBeforeRequest};
    let narrow = match error {
        Error::Connect { .. } | Error::ConnectTimeout { .. } | Error::Tls { .. } | Error::TlsName { .. } => {
            Some(ConnectFailure)
        }
        Error::RefusedStream { .. } => Some(RefusedStream),
        Error::NotSent { .. } if pooled => return Some(Why::NotSent),
        Error::NotSent { .. } => Some(ResetBeforeRequest),
        Error::Reset { .. } if pooled && idempotent => return Some(Why::IdempotentRace),
        Error::Reset { .. } | Error::TryTimeout { .. } => None,
        // Decided here, or by the caller: another try would end the same.
        Error::NoRoute { .. }
        | Error::Refused { .. }
        | Error::DiscoveryTimeout { .. }
        | Error::NoEndpoint { .. }
        | Error::BreakerOpen { .. }
        | Error::Overflow { .. }
        | Error::NotMeshed { .. }
        | Error::NoCertificate
        | Error::TlsSetup { .. }
        | Error::Timeout
        | Error::FaultAbort { .. }
        | Error::BadRequest { .. }
        | Error::Downstream { .. }
        | Error::PlaintextRefused => return None,
    };
    let covers = |condition: &RetryCondition| match condition {
        RetryCondition::Reset | RetryCondition::ServerError | RetryCondition::GatewayError => true,
        other => narrow == Some(*other),
    };
    policy.conditions.iter().copied().find(covers).map(Why::Condition)
}

/// The word of the `retryOn` field.
fn word(condition: RetryCondition) -> &'static str {
    match condition {
        RetryCondition::ConnectFailure => "connect-failure",
        RetryCondition::RefusedStream => "refused-stream",
        RetryCondition::Reset => "reset",
        RetryCondition::ResetBeforeRequest => "reset-before-request",
        RetryCondition::ServerError => "5xx",
        RetryCondition::GatewayError => "gateway-error",
        RetryCondition::Retriable4xx => "retriable-4xx",
        RetryCondition::GrpcCancelled => "cancelled",
        RetryCondition::GrpcDeadlineExceeded => "deadline-exceeded",
        RetryCondition::GrpcInternal => "internal",
        RetryCondition::GrpcResourceExhausted => "resource-exhausted",
        RetryCondition::GrpcUnavailable => "unavailable",
        RetryCondition::RateLimited => "envoy-ratelimited",
        RetryCondition::RetriableHeaders => "retriable-headers",
    }
}

impl Why {
    /// Short word for metrics; the set is closed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not-sent",
            Self::IdempotentRace => "idempotent-race",
            Self::Condition(condition) => word(condition),
            Self::Status(_) => "retriable-status-codes",
        }
    }

    /// Whether to wait before the next try. A race with a pooled connection says nothing about the endpoint's load.
    #[must_use]
    pub fn backs_off(self) -> bool {
        match self {
            Self::NotSent | Self::IdempotentRace => false,
            Self::Condition(_) | Self::Status(_) => true,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent => f.write_str("a pooled connection closed before the request was sent"),
            Self::IdempotentRace => {
                f.write_str("a pooled connection closed before the answer to an idempotent request")
            }
            Self::Condition(condition) => write!(f, "retryOn has {}", word(*condition)),
            Self::Status(status) => write!(f, "retryOn has {}", status.as_u16()),
        }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCovered => f.write_str("nothing in retryOn covers it"),
            Self::AttemptsUsed(retries, why) => write!(f, "{why}, but {retries} retries are used up"),
            Self::BodyGone(why) => write!(f, "{why}, but part of the body has been sent and not kept"),
        }
    }
}

#[cfg(test)]
mod tests;
