//! Faults that a rule injects on purpose: requests are held back, or answered with an error, before an endpoint is chosen.
//! `outbound::http` calls [`inject`] for the few rules that have one. The time a request is held back counts into the
//! timeout of its rule, as the time of a slow endpoint would.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use api::{Fault, FaultAbort, Fraction};
use http::{HeaderMap, HeaderValue};
use rand::{Rng, RngExt};
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::Error;
use crate::message;
use crate::record;
use crate::worker::Worker;

/// What is injected into one request; `Display` says it to the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    delay: Option<Duration>,
    abort: Option<FaultAbort>,
}

impl Injected {
    /// Lets chance decide, about each fault by itself; `None` when neither is to happen.
    #[must_use]
    pub fn decide(fault: &Fault, rng: &mut impl Rng) -> Option<Self> {
        let mut falls_into = |share: Fraction| share.contains(rng.random_range(0..Fraction::WHOLE));
        let injected = Self {
            delay: fault
                .delay
                .as_ref()
                .filter(|delay| falls_into(delay.share))
                .map(|delay| delay.delay),
            abort: fault
                .abort
                .as_ref()
                .filter(|abort| falls_into(abort.share))
                .cloned(),
        };
        (injected.delay.is_some() || injected.abort.is_some()).then_some(injected)
    }

    /// Tells the application of a response that it came late on purpose, unless it is told of something worse.
    pub fn tell(&self, headers: &mut HeaderMap) {
        if self.delay.is_some() && !headers.contains_key(message::REASON) {
            headers.insert(message::REASON, HeaderValue::from_static("fault_delay"));
        }
    }
}

impl Display for Injected {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { delay, abort } = self;
        if let Some(delay) = delay {
            write!(f, "delay {} ms", delay.as_millis())?;
        }
        let comma = if delay.is_some() { ", " } else { "" };
        if let Some(FaultAbort { grpc, status, .. }) = abort {
            write!(f, "{comma}abort {} (gRPC {grpc})", status.as_u16())?;
        }
        Ok(())
    }
}

/// Injects what chance decides on, and takes note of it in the record.
///
/// # Errors
/// [`Error::FaultAbort`] where the request is to be answered with an error, and [`Error::Timeout`] when it would be held
/// back beyond the timeout of its rule.
pub async fn inject(
    worker: &Worker,
    fault: &Fault,
    deadline: Option<Instant>,
    record: &mut record::Request,
) -> Result<(), Error> {
    let Some(injected) = Injected::decide(fault, &mut *worker.rng.borrow_mut()) else {
        return Ok(());
    };
    let metrics = &worker.recorder.metrics().faults;
    let Injected { delay, abort } = injected.clone();
    record.fault = Some(Box::new(injected));
    if let Some(delay) = delay {
        metrics.delay.inc();
        match deadline {
            None => sleep(delay).await,
            Some(deadline) => timeout_at(deadline, sleep(delay))
                .await
                .map_err(|_| Error::Timeout)?,
        }
    }
    if let Some(FaultAbort { grpc, status, .. }) = abort {
        metrics.abort.inc();
        return Err(Error::FaultAbort { status, grpc });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::FaultDelay;
    use http::StatusCode;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;

    fn fault(delay: f64, abort: f64) -> Fault {
        let share = |percent| Fraction::of_percent(percent).unwrap();
        Fault {
            delay: Some(FaultDelay {
                delay: Duration::from_millis(1500),
                share: share(delay),
            }),
            abort: Some(FaultAbort {
                grpc: 14,
                status: StatusCode::SERVICE_UNAVAILABLE,
                share: share(abort),
            }),
        }
    }

    #[test]
    fn all_and_none_are_what_they_say() {
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..1000 {
            assert_eq!(Injected::decide(&fault(0.0, 0.0), &mut rng), None);
            let both = Injected::decide(&fault(100.0, 100.0), &mut rng).unwrap();
            assert_eq!(both.to_string(), "delay 1500 ms, abort 503 (gRPC 14)");
            let delayed = Injected::decide(&fault(100.0, 0.0), &mut rng).unwrap();
            assert_eq!(delayed.to_string(), "delay 1500 ms");
        }
    }

    #[test]
    fn a_share_of_the_requests_gets_its_share_of_the_faults() {
        let mut rng = SmallRng::seed_from_u64(7);
        let (mut delayed, mut aborted, mut both) = (0_i32, 0_i32, 0_i32);
        for _ in 0..20_000 {
            let Some(injected) = Injected::decide(&fault(30.0, 10.0), &mut rng) else {
                continue;
            };
            delayed += i32::from(injected.delay.is_some());
            aborted += i32::from(injected.abort.is_some());
            both += i32::from(injected.delay.is_some() && injected.abort.is_some());
        }
        // Five standard deviations.
        assert!((delayed - 6000).abs() < 325, "{delayed}");
        assert!((aborted - 2000).abs() < 213, "{aborted}");
        assert!((both - 600).abs() < 121, "each is decided by itself: {both}");
    }
}
