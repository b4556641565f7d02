//! Faults that a rule injects on purpose, and the shares of requests that they are for.

use std::time::Duration;

use http::StatusCode;

use super::{millis, status, to_millis};
use crate::invalid::{Invalid, Under, required};
use crate::proto;

/// What goes wrong on purpose, before an endpoint is chosen; the delay comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Holds requests back.
    pub delay: Option<FaultDelay>,
    /// Answers requests with an error.
    pub abort: Option<FaultAbort>,
}

/// Holds requests back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultDelay {
    /// For how long.
    pub delay: Duration,
    /// Which share of them.
    pub share: Fraction,
}

/// Answers requests with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultAbort {
    /// What a gRPC request is answered with.
    pub grpc: u8,
    /// What any other request is answered with.
    pub status: StatusCode,
    /// Which share of them.
    pub share: Fraction,
}

/// A share of the requests, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction(u32);

impl Fraction {
    /// All requests.
    pub const ALL: Self = Self(Self::WHOLE);

    /// No request.
    pub const NONE: Self = Self(0);

    /// What a share is counted in.
    pub const WHOLE: u32 = 1_000_000;

    /// From percent; what is more than nothing stays so, however little.
    ///
    /// # Errors
    /// When it is not from 0 to 100.
    pub fn of_percent(percent: f64) -> Result<Self, Invalid> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Invalid::new(
                "",
                format!("{percent} is not a percentage: use 0 to 100"),
            ));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is from 0 to a million"
        )]
        let millionths = (percent * 10_000.0).round() as u32;
        Ok(Self(if percent > 0.0 { millionths.max(1) } else { 0 }))
    }

    /// In percent.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self.0 == 0
    }

    /// Whether `roll`, taken evenly from `0..Fraction::WHOLE`, falls into it.
    #[must_use]
    pub fn contains(self, roll: u32) -> bool {
        roll < self.0
    }

    pub(in crate::route) fn from_wire(field: &str, millionths: u32) -> Result<Self, Invalid> {
        if millionths > Self::WHOLE {
            let problem = format!("{millionths} millionths are more than all");
            return Err(Invalid::new(field, problem));
        }
        Ok(Self(millionths))
    }

    pub(in crate::route) fn to_wire(self) -> u32 {
        self.0
    }
}

/// The codes that gRPC has: 0 to 16.
const MAX_GRPC: u32 = 16;

impl TryFrom<proto::Fault> for Fault {
    type Error = Invalid;

    fn try_from(proto::Fault { delay, abort }: proto::Fault) -> Result<Self, Invalid> {
        Ok(Self {
            delay: delay.map(FaultDelay::try_from).transpose().under("delay")?,
            abort: abort.map(FaultAbort::try_from).transpose().under("abort")?,
        })
    }
}

impl TryFrom<proto::FaultDelay> for FaultDelay {
    type Error = Invalid;

    fn try_from(proto::FaultDelay { delay, millionths }: proto::FaultDelay) -> Result<Self, Invalid> {
        Ok(Self {
            delay: millis("delay", required("delay", delay)?)?,
            share: Fraction::from_wire("millionths", millionths)?,
        })
    }
}

impl TryFrom<proto::FaultAbort> for FaultAbort {
    type Error = Invalid;

    fn try_from(pb: proto::FaultAbort) -> Result<Self, Invalid> {
        let proto::FaultAbort {
            grpc_status,
            http_status,
            millionths,
        } = pb;
        let grpc = u8::try_from(grpc_status).ok().filter(|_| grpc_status <= MAX_GRPC);
        Ok(Self {
            grpc: grpc.ok_or_else(|| {
                let problem = format!("{grpc_status} is not a status of gRPC: use 0 to {MAX_GRPC}");
                Invalid::new("grpc_status", problem)
            })?,
            status: status("http_status", http_status)?,
            share: Fraction::from_wire("millionths", millionths)?,
        })
    }
}

impl From<Fault> for proto::Fault {
    fn from(Fault { delay, abort }: Fault) -> Self {
        Self {
            delay: delay.map(|FaultDelay { delay, share }| proto::FaultDelay {
                delay: Some(to_millis(delay)),
                millionths: share.to_wire(),
            }),
            abort: abort.map(|FaultAbort { grpc, status, share }| proto::FaultAbort {
                grpc_status: grpc.into(),
                http_status: status.as_u16().into(),
                millionths: share.to_wire(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_become_millionths_and_little_does_not_become_nothing() {
        for (percent, millionths) in [
            (0.0, 0),
            (100.0, 1_000_000),
            (12.5, 125_000),
            (0.1, 1000),
            (0.000_01, 1),
        ] {
            assert_eq!(Fraction::of_percent(percent).unwrap().0, millionths, "{percent}");
        }
        for percent in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert!(Fraction::of_percent(percent).is_err(), "{percent}");
        }
    }

    #[test]
    fn a_share_holds_as_many_rolls_as_it_has_millionths() {
        let tenth = Fraction::of_percent(10.0).unwrap();
        assert!(tenth.contains(99_999) && !tenth.contains(100_000));
        assert!(Fraction::ALL.contains(Fraction::WHOLE - 1));
        assert!(!Fraction::of_percent(0.0).unwrap().contains(0));
    }
}
