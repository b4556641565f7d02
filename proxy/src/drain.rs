//! Shutting down without losing a request: who is told to finish, and who is still at it.
//!
//! ```text
//! running ── SIGTERM ──▶ going (still accepting: endpoints need time to learn) ── drain delay ──▶ closing
//! closing: HTTP/1.1 answers carry `Connection: close`, HTTP/2 gets GOAWAY, streams go on until the drain timeout
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

/// How far the shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Not ready any more, but still accepting.
    Going,
    /// Connections finish what they have begun.
    Closing,
}

/// Held by whoever starts the shutdown.
#[derive(Debug)]
pub struct Controller {
    phase: watch::Sender<Phase>,
    open: Arc<AtomicU32>,
}

/// Held by everyone who must hear of it.
#[derive(Debug, Clone)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
    open: Arc<AtomicU32>,
}

/// One connection under way.
#[derive(Debug)]
pub struct Open(Arc<AtomicU32>);

/// A controller and what it controls.
#[must_use]
pub fn channel() -> (Controller, Drain) {
    let (sender, receiver) = watch::channel(Phase::Running);
    let open = Arc::new(AtomicU32::new(0));
    (
        Controller {
            phase: sender,
            open: Arc::clone(&open),
        },
        Drain {
            phase: receiver,
            open,
        },
    )
}

impl Controller {
    /// Moves on to a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Connections under way.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drain {
    /// How far the shutdown is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until connections must finish.
    pub async fn closing(&self) {
        let mut phase = self.phase.clone();
        // An error means the controller is gone, which is the end as well.
        let _ = phase.wait_for(|p| *p == Phase::Closing).await;
    }

    /// Connections under way.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts one connection that is there already, such as a tunnel that outlives the request it began with.
    #[must_use]
    pub fn hold(&self) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.open))
    }

    /// Counts one connection; `None` when `limit` are open already.
    #[must_use]
    pub fn open(&self, limit: u32) -> Option<Open> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= limit {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Open(Arc::clone(&self.open)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_hears_of_closing_and_is_counted_until_dropped() {
        let (controller, drain) = channel();
        let open = drain.open(1).unwrap();
        assert!(drain.open(1).is_none());
        assert_eq!(controller.open(), 1);
        controller.enter(Phase::Closing);
        drain.closing().await;
        drop(open);
        assert_eq!(controller.open(), 0);
    }
}
