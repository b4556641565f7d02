//! Who uses a destination. Each connection to it holds a guard while open; the store gives up what nobody has held for
//! a while. It costs two atomic operations a connection and nothing a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Use of one destination.
#[derive(Debug)]
pub struct Usage {
    open: AtomicU32,
    since: Instant,
    /// Milliseconds from `since` to the last time it was held or let go.
    last: AtomicU64,
}

/// One open connection. Dropping it says that the connection is closed.
#[derive(Debug)]
#[must_use = "the destination counts as unused once this is dropped"]
pub struct InUse(Arc<Usage>);

impl Usage {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicU32::new(0),
            since: now,
            last: AtomicU64::new(0),
        })
    }

    /// Marks the destination as used until the guard is dropped.
    pub fn hold(self: &Arc<Self>) -> InUse {
        self.open.fetch_add(1, Ordering::AcqRel);
        InUse(Arc::clone(self))
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    /// How long nobody has held it; `None` while somebody does.
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        let last = Duration::from_millis(self.last.load(Ordering::Acquire));
        (self.open() == 0).then(|| now.saturating_duration_since(self.since).saturating_sub(last))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let last = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.fetch_max(last, Ordering::AcqRel);
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_time_starts_when_the_last_connection_closes() {
        let usage = Usage::new(Instant::now());
        let (a, b) = (usage.hold(), usage.hold());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(usage.idle(Instant::now()), None);
        drop(a);
        assert_eq!((usage.open(), usage.idle(Instant::now())), (1, None));
        drop(b);
        assert_eq!(usage.idle(Instant::now()), Some(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(usage.idle(Instant::now()), Some(Duration::from_secs(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_held_is_idle_since_it_was_asked_for() {
        let usage = Usage::new(Instant::now());
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(usage.idle(Instant::now()), Some(Duration::from_secs(7)));
    }
}
