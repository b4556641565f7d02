//! The two limits of a relay on one timer.
//!
//! Polled by [`super::relay`] after it carried what there was to carry.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep};

use super::RelayOptions;

/// The timer is set once for each span of quiet, not once for each byte.
pub(super) struct Clock {
    started: Instant,
    pub(super) last_active: Instant,
    options: RelayOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeUp {
    Idle,
    Whole,
}

impl Clock {
    pub(super) fn start(options: RelayOptions) -> Self {
        let now = Instant::now();
        Self {
            started: now,
            last_active: now,
            options,
        }
    }

    /// What comes first, if nothing happens until then.
    pub(super) fn deadline(&self) -> Option<(Instant, TimeUp)> {
        let after = |from: Instant, limit: Option<std::time::Duration>, up| {
            // A limit beyond what the clock can express is none.
            limit
                .and_then(|limit| from.checked_add(limit))
                .map(|deadline| (deadline, up))
        };
        let idle = after(self.last_active, self.options.idle_timeout, TimeUp::Idle);
        let whole = after(self.started, self.options.max_duration, TimeUp::Whole);
        [idle, whole]
            .into_iter()
            .flatten()
            .min_by_key(|(deadline, _)| *deadline)
    }

    pub(super) fn poll(&self, context: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<TimeUp> {
        let Some((deadline, up)) = self.deadline() else {
            return Poll::Pending;
        };
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(up);
            }
            // Bytes came since it was set.
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
