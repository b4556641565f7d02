//! How a destination is protected from itself: ejection of outliers, a breaker for each endpoint, and the
//! budget for retries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// When an endpoint is ejected for errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Refused: upstream reads it no more. Use consecutive5xxErrors or consecutiveGatewayErrors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_errors: Option<u32>,
    /// Whether errors to connect are counted apart from responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_external_local_origin_errors: Option<bool>,
    /// Errors to connect in a row, where they are counted apart; 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503 and 504 in a row; 0 (the default) turns it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row; 5 when absent, 0 turns it off.
    #[serde(
        default,
        rename = "consecutive5xxErrors",
        skip_serializing_if = "Option::is_none"
    )]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time without errors after which one ejection is forgotten; 10s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// The time of an ejection, times the number of ejections so far; 30s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<Duration>,
    /// The most endpoints that are ejected at once, in percent; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<u32>,
    /// Below this share of healthy endpoints nothing is ejected; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub min_health_percent: Option<u32>,
    /// Status codes that count as errors instead of 5xx, from 100 to 599.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// A breaker for each endpoint: closed (traffic flows), open (none does), half-open (a few probes do).
/// Our extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Failures in a row that open the breaker.
    #[serde(default = "default_failure_threshold")]
    #[schemars(range(min = 1))]
    pub failure_threshold: u32,
    /// Time an open breaker waits before it lets probes through.
    #[serde(default = "default_recovery_time")]
    pub recovery_timeout: Duration,
    /// Probes a half-open breaker lets through; their success closes it.
    #[serde(default = "default_half_open_requests")]
    #[schemars(range(min = 1))]
    pub half_open_requests: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_threshold: default_failure_threshold(),
            recovery_timeout: default_recovery_time(),
            half_open_requests: default_half_open_requests(),
        }
    }
}

/// The most retries, as a share of the requests under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// The share in percent; 20 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
    /// Retries that are always allowed; 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_retry_concurrency: Option<u32>,
    /// How far back requests count that are not under way any more; none when absent or 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_interval: Option<Duration>,
}

fn default_failure_threshold() -> u32 {
    5
}

fn default_recovery_time() -> Duration {
    Duration::from_secs(30)
}

fn default_half_open_requests() -> u32 {
    1
}
