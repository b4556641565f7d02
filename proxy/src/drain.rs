//! Shutting down without losing a request: who is told to finish, and who is still at it.
//!
//! ```text
//! running ── SIGTERM ──▶ going     still accepting: endpoints need time to learn
//!         ── drain delay ──▶ closing   nothing more comes in; inbound connections finish; the application, which may be
//!                                      shutting down as well, goes on calling others
//!         ── shortly before the drain timeout ──▶ leaving   its connections finish too; new ones are still taken
//!         ── idle and alone in the pod, or the drain timeout ──▶ over
//! ```
//!
//! To finish: HTTP/1.1 answers carry `Connection: close`, HTTP/2 gets GOAWAY, streams go on. What is left at the drain
//! timeout is cut. [`shut_down`] walks through the phases; workers and connections follow.

pub mod neighbours;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Time before the drain timeout in which the application's own connections are asked to end: this part of the timeout,
/// and no more than that.
const LAST_PART: u32 = 4;
const LAST_MOST: Duration = Duration::from_secs(5);
/// Pause between two looks at what is left.
const LOOK: Duration = Duration::from_millis(50);

/// How far the shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Not ready any more, but still accepting.
    Going,
    /// Inbound connections finish what they have begun, and no new ones are taken.
    Closing,
    /// So do outbound connections; new ones are still taken.
    Leaving,
    /// Nothing goes on.
    Over,
}

/// What sets the pace of a shutdown.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long inbound connections are still accepted.
    pub delay: Duration,
    /// How long, after that, connections may go on.
    pub timeout: Duration,
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

    fn phase(&self) -> Phase {
        *self.phase.borrow()
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

    /// Waits until inbound connections must finish.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    /// Waits until outbound connections must finish. One that begins later is not asked to: who dials after having been
    /// told to go has something left to say, and would only be sent away again and again.
    pub async fn leaving(&self) {
        if self.phase() >= Phase::Leaving {
            std::future::pending().await
        }
        self.reached(Phase::Leaving).await;
    }

    /// Waits until nothing goes on.
    pub async fn over(&self) {
        self.reached(Phase::Over).await;
    }

    async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.clone();
        // An error means the controller is gone, which is the end as well.
        let _ = phases.wait_for(|p| *p >= phase).await;
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

/// Shuts down at this pace. `alone` says whether nothing but the proxy is left in the pod; while it is not, the
/// application may still have to call somebody, for Kubernetes tells all containers of a pod to end at once.
pub async fn shut_down(controller: &Controller, pace: Pace, mut alone: impl FnMut() -> bool) {
    let Pace { delay, timeout } = pace;
    tracing::info!(?delay, "shutting down: still accepting, not ready any more");
    controller.enter(Phase::Going);
    sleep(delay).await;
    tracing::info!(open = controller.open(), ?timeout, "closing: connections finish");
    controller.enter(Phase::Closing);
    let end = Instant::now() + timeout;
    let last = end - (timeout / LAST_PART).min(LAST_MOST);
    let idle = async {
        // Connections first: there are few sockets to look through when none is left.
        while controller.open() > 0 || !alone() {
            sleep(LOOK).await;
            if Instant::now() >= last && controller.phase() < Phase::Leaving {
                controller.enter(Phase::Leaving);
            }
        }
    };
    tokio::select! {
        biased;
        () = idle => {}
        () = sleep_until(end) => match controller.open() {
            0 => tracing::info!("the drain timeout passed, and others in the pod go on"),
            left => tracing::warn!(left, "the drain timeout passed: connections are cut"),
        },
    }
    controller.enter(Phase::Over);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const PACE: Pace = Pace {
        delay: Duration::from_secs(5),
        timeout: Duration::from_secs(20),
    };

    /// Shuts down while `during` runs; the seconds it took, rounded down.
    async fn takes(pace: Pace, alone: impl FnMut() -> bool, during: impl AsyncFnOnce(&Drain)) -> u64 {
        let (controller, drain) = channel();
        let started = Instant::now();
        let (took, ()) = tokio::join!(
            async {
                shut_down(&controller, pace, alone).await;
                started.elapsed().as_secs()
            },
            during(&drain)
        );
        assert_eq!(drain.phase(), Phase::Over);
        took
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_proxy_that_is_alone_ends_after_the_delay() {
        assert_eq!(takes(PACE, || true, async |_| {}).await, 5);
        let finished = Pace {
            delay: Duration::ZERO,
            ..PACE
        };
        assert_eq!(takes(finished, || true, async |_| {}).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_waited_for_and_cut_at_the_timeout() {
        let took = takes(
            PACE,
            || true,
            async |drain| {
                let open = drain.open(1);
                sleep(Duration::from_secs(12)).await;
                drop(open);
            },
        );
        assert_eq!(took.await, 12);
        let took = takes(
            PACE,
            || true,
            async |drain| {
                let _open = drain.open(1);
                drain.over().await;
            },
        );
        assert_eq!(took.await, 25);
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_that_lives_is_served_until_it_ends_or_the_timeout() {
        let lives = Cell::new(true);
        let took = takes(
            PACE,
            || !lives.get(),
            async |drain| {
                drain.closing().await;
                sleep(Duration::from_secs(3)).await;
                assert_eq!(drain.phase(), Phase::Closing, "its connections are let be");
                lives.set(false);
            },
        );
        assert_eq!(took.await, 8);
        let took = takes(
            PACE,
            || false,
            async |drain| {
                let started = Instant::now();
                drain.leaving().await;
                assert_eq!(started.elapsed().as_secs(), 20, "the last five seconds");
                let late = tokio::time::timeout(Duration::from_secs(60), drain.leaving());
                assert!(late.await.is_err(), "who comes later is not sent away");
            },
        );
        assert_eq!(took.await, 25);
    }

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
