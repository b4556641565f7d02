//! When an endpoint of a cluster is left out: its circuit breaker, and ejection of outliers.

use std::num::NonZeroU32;
use std::time::Duration;

use super::off_or;
use crate::invalid::{Invalid, optional_ms, positive, to_ms};
use crate::proto;

/// The circuit breaker of each endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Consecutive failures that open it.
    pub failure_threshold: NonZeroU32,
    /// Time open before a probe is let through.
    pub recovery: Duration,
    /// Requests let through while half-open.
    pub half_open_requests: NonZeroU32,
}

/// Ejection of endpoints that fail more than they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Consecutive answers that are errors; `None` for off.
    pub consecutive_5xx: Option<NonZeroU32>,
    /// Consecutive answers 502, 503, 504, and connection failures; `None` for off.
    pub consecutive_gateway_errors: Option<NonZeroU32>,
    /// Statuses that are errors; `None` for 5xx.
    pub error_codes: Option<Statuses>,
    /// Count connection failures apart from answers.
    pub split_local_errors: bool,
    /// Consecutive connection failures, when counted apart; `None` for off.
    pub consecutive_local_failures: Option<NonZeroU32>,
    /// Between two looks at who may return.
    pub interval: Duration,
    /// Times the number of ejections gives the time out.
    pub base_ejection: Duration,
    /// Upper bound of the ejected share, in percent; at least one endpoint may always be ejected.
    pub max_ejection_percent: u32,
    /// With fewer healthy endpoints than this share, none is ejected.
    pub min_health_percent: u32,
}

/// A set of statuses, from 100 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statuses([u64; 8]);

impl Statuses {
    /// Whether a status is in the set.
    #[must_use]
    pub fn contains(&self, code: u16) -> bool {
        Self::place(code).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }

    /// Puts a status into the set; `false` for a number that is none.
    pub fn insert(&mut self, code: u16) -> bool {
        let Some((word, bit)) = Self::place(code) else {
            return false;
        };
        self.0[word] |= bit;
        true
    }

    /// What is in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (100..600).filter(|code| self.contains(*code))
    }

    fn place(code: u16) -> Option<(usize, u64)> {
        let n = usize::from(code.checked_sub(100)?);
        (n < 500).then(|| (n / 64, 1 << (n % 64)))
    }
}

impl TryFrom<proto::Breaker> for Breaker {
    type Error = Invalid;

    fn try_from(pb: proto::Breaker) -> Result<Self, Invalid> {
        let proto::Breaker {
            failure_threshold,
            recovery_ms,
            half_open_requests,
        } = pb;
        let recovery = optional_ms(recovery_ms).ok_or_else(|| {
            Invalid::new(
                "recovery_ms",
                "must be at least 1: an open breaker needs a time to wait",
            )
        })?;
        Ok(Self {
            failure_threshold: non_zero("failure_threshold", failure_threshold)?,
            recovery,
            half_open_requests: non_zero("half_open_requests", half_open_requests)?,
        })
    }
}

impl TryFrom<proto::Outlier> for Outlier {
    type Error = Invalid;

    fn try_from(pb: proto::Outlier) -> Result<Self, Invalid> {
        let proto::Outlier {
            consecutive_5xx,
            consecutive_gateway_errors,
            split_local_errors,
            consecutive_local_failures,
            interval_ms,
            base_ejection_ms,
            max_ejection_percent,
            min_health_percent,
            error_codes,
        } = pb;
        let needed =
            |field: &str, ms| optional_ms(ms).ok_or_else(|| Invalid::new(field, "must be at least 1"));
        Ok(Self {
            consecutive_5xx: NonZeroU32::new(consecutive_5xx),
            consecutive_gateway_errors: NonZeroU32::new(consecutive_gateway_errors),
            split_local_errors,
            consecutive_local_failures: NonZeroU32::new(consecutive_local_failures),
            interval: needed("interval_ms", interval_ms)?,
            base_ejection: needed("base_ejection_ms", base_ejection_ms)?,
            max_ejection_percent: percent("max_ejection_percent", max_ejection_percent)?,
            min_health_percent: percent("min_health_percent", min_health_percent)?,
            error_codes: statuses(&error_codes)?,
        })
    }
}

impl From<Breaker> for proto::Breaker {
    fn from(
        Breaker {
            failure_threshold,
            recovery,
            half_open_requests,
        }: Breaker,
    ) -> Self {
        Self {
            failure_threshold: failure_threshold.get(),
            recovery_ms: to_ms(recovery),
            half_open_requests: half_open_requests.get(),
        }
    }
}

impl From<Outlier> for proto::Outlier {
    fn from(outlier: Outlier) -> Self {
        let Outlier {
            consecutive_5xx,
            consecutive_gateway_errors,
            split_local_errors,
            consecutive_local_failures,
            interval,
            base_ejection,
            max_ejection_percent,
            min_health_percent,
            error_codes,
        } = outlier;
        Self {
            consecutive_5xx: off_or(consecutive_5xx),
            consecutive_gateway_errors: off_or(consecutive_gateway_errors),
            split_local_errors,
            consecutive_local_failures: off_or(consecutive_local_failures),
            interval_ms: to_ms(interval),
            base_ejection_ms: to_ms(base_ejection),
            max_ejection_percent,
            min_health_percent,
            error_codes: error_codes
                .iter()
                .flat_map(Statuses::iter)
                .map(u32::from)
                .collect(),
        }
    }
}

fn statuses(codes: &[u32]) -> Result<Option<Statuses>, Invalid> {
    let mut statuses = Statuses::default();
    for (i, code) in codes.iter().enumerate() {
        if !u16::try_from(*code).is_ok_and(|code| statuses.insert(code)) {
            return Err(Invalid::new(
                format!("error_codes[{i}]"),
                format!("{code} is not a status: use 100 to 599"),
            ));
        }
    }
    Ok((!codes.is_empty()).then_some(statuses))
}

fn non_zero(field: &str, value: u32) -> Result<NonZeroU32, Invalid> {
    positive(field, value)?;
    NonZeroU32::new(value).ok_or_else(|| Invalid::new(field, "must be at least 1"))
}

fn percent(field: &str, value: u32) -> Result<u32, Invalid> {
    if value <= 100 {
        Ok(value)
    } else {
        Err(Invalid::new(
            field,
            format!("{value} is not a percentage: use 0 to 100"),
        ))
    }
}
