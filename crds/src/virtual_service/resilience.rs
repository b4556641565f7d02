//! Retries, faults on purpose, mirrors and CORS: what an HTTP rule does besides routing.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::Destination;
use crate::{duration::Duration, string_match::StringMatch};

/// When and how often to try again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How many more times to try; 0 turns retries off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Time for each try, at least 1ms; absent means the rule's timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Duration>,
    /// What to retry on: conditions and status codes, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub retry_on: Option<String>,
    /// Whether other localities may be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_remote_localities: Option<bool>,
    /// Whether endpoints that were tried already are avoided; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ignore_previous_hosts: Option<bool>,
    /// The base of the exponential pause between tries; 25ms when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
}

/// One entry of `retryOn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryCondition {
    /// Any 5xx, or no response at all.
    FiveXx,
    /// 502, 503 or 504.
    GatewayError,
    /// The connection broke before a response.
    Reset,
    /// The connection broke before the request was sent.
    ResetBeforeRequest,
    /// No connection could be made.
    ConnectFailure,
    /// A rate limiter gave the answer, and says so in `x-envoy-ratelimited`.
    EnvoyRatelimited,
    /// 409.
    Retriable4xx,
    /// The stream was refused before it was processed.
    RefusedStream,
    /// The status codes that are listed beside it.
    RetriableStatusCodes,
    /// The answer has one of the headers that the request names in `x-envoy-retriable-header-names`.
    RetriableHeaders,
    /// HTTP/3 failed after it connected.
    Http3PostConnectFailure,
    /// gRPC status `cancelled`.
    GrpcCancelled,
    /// gRPC status `deadline-exceeded`.
    GrpcDeadlineExceeded,
    /// gRPC status `internal`.
    GrpcInternal,
    /// gRPC status `resource-exhausted`.
    GrpcResourceExhausted,
    /// gRPC status `unavailable`.
    GrpcUnavailable,
    /// A status code.
    Status(u16),
}

/// An entry of `retryOn` that has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a retry condition; use one of {list} or a status code from 100 to 599", list = RetryCondition::NAMES.join(", "))]
pub struct UnknownRetryCondition(pub String);

impl RetryCondition {
    /// Every name that is accepted.
    pub const NAMES: [&str; 16] = [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];

    /// Reads a whole `retryOn`, separated by commas.
    pub fn list(text: &str) -> impl Iterator<Item = Result<Self, UnknownRetryCondition>> + '_ {
        text.split(',').map(|entry| entry.trim().parse())
    }
}

impl FromStr for RetryCondition {
    type Err = UnknownRetryCondition;

    fn from_str(text: &str) -> Result<Self, UnknownRetryCondition> {
        Ok(match text {
            "5xx" => Self::FiveXx,
            "gateway-error" => Self::GatewayError,
            "reset" => Self::Reset,
            "reset-before-request" => Self::ResetBeforeRequest,
            "connect-failure" => Self::ConnectFailure,
            "envoy-ratelimited" => Self::EnvoyRatelimited,
            "retriable-4xx" => Self::Retriable4xx,
            "refused-stream" => Self::RefusedStream,
            "retriable-status-codes" => Self::RetriableStatusCodes,
            "retriable-headers" => Self::RetriableHeaders,
            "http3-post-connect-failure" => Self::Http3PostConnectFailure,
            "cancelled" => Self::GrpcCancelled,
            "deadline-exceeded" => Self::GrpcDeadlineExceeded,
            "internal" => Self::GrpcInternal,
            "resource-exhausted" => Self::GrpcResourceExhausted,
            "unavailable" => Self::GrpcUnavailable,
            other => match other.parse() {
                Ok(code @ 100..=599) if other.len() == 3 => Self::Status(code),
                Ok(_) | Err(_) => return Err(UnknownRetryCondition(other.chars().take(40).collect())),
            },
        })
    }
}

/// A share in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Percent {
    /// From 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub value: f64,
}

/// The statuses of gRPC, each at the place of its code.
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The code of a gRPC status, given by name in upper case or by number.
#[must_use]
pub fn grpc_code(status: &str) -> Option<u8> {
    let by_name = GRPC_STATUSES.iter().position(|name| *name == status);
    let code = by_name.or_else(|| status.parse().ok().filter(|code| *code < GRPC_STATUSES.len()))?;
    u8::try_from(code).ok()
}

/// Delay or fail requests on purpose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Hold requests back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// Fail requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
}

/// How long to hold back which share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultDelay {
    /// How long, at least 1ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_delay: Option<Duration>,
    /// The mean of an exponential distribution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponential_delay: Option<Duration>,
    /// Which share; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
    /// Deprecated: use percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
}

/// How to fail which share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultAbort {
    /// With this HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u32>,
    /// With this gRPC status, by name such as UNAVAILABLE or by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<String>,
    /// With this HTTP/2 error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2_error: Option<String>,
    /// Which share; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
}

/// A copy of requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Where the copy goes.
    pub destination: Destination,
    /// The share of requests to copy; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
}

/// Cross-origin resource sharing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CorsPolicy {
    /// Origins that may ask, such as `https://shop.example`; exact `*` is every origin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_origins: Vec<StringMatch>,
    /// Deprecated: use allowOrigins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_origin: Vec<String>,
    /// Methods they may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// Headers they may send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Headers they may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer may be kept, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Whether credentials may be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// What happens to preflights from other origins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

/// What happens to preflights from origins that are not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// As FORWARD.
    #[default]
    Unspecified,
    /// They go to the destination.
    Forward,
    /// They are answered without CORS headers.
    Ignore,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_a_condition() {
        for name in RetryCondition::NAMES {
            assert!(name.parse::<RetryCondition>().is_ok(), "{name}");
        }
    }

    #[test]
    fn grpc_statuses_go_by_name_and_by_number() {
        for (text, code) in [
            ("OK", Some(0)),
            ("UNAVAILABLE", Some(14)),
            ("14", Some(14)),
            ("16", Some(16)),
            ("17", None),
            ("unavailable", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(grpc_code(text), code, "{text:?}");
        }
    }

    #[test]
    fn lists_may_mix_names_and_codes_with_spaces() {
        let list: Result<Vec<_>, _> = RetryCondition::list("connect-failure, 503,unavailable").collect();
        let expected = [
            RetryCondition::ConnectFailure,
            RetryCondition::Status(503),
            RetryCondition::GrpcUnavailable,
        ];
        assert_eq!(list, Ok(expected.to_vec()));
    }

    #[test]
    fn what_is_neither_name_nor_code_is_refused() {
        for text in ["", "5XX", "99", "600", "0503", "+503", "timeout"] {
            assert!(text.parse::<RetryCondition>().is_err(), "{text:?}");
        }
    }
}
