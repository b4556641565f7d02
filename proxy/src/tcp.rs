//! Carries bytes between two connections whose protocol is not to be understood.
//!
//! Called by the inbound and outbound sides for opaque traffic, and for what an HTTP connection became after an
//! upgrade. Each direction goes through two states, and then the relay is over:
//!
//! ```text
//! Copying ──end of stream──▶ Closing ──closed──▶ Done          both Done: the relay ends
//!    └────────peer does not take any more────────▶ Done
//! ```
//!
//! One direction may end long before the other, so half-closed connections work. Nothing is read while something
//! waits to be written, so a slow side slows down the other. A direction at rest holds no buffer: bytes are read into
//! the thread's scratch buffer and written on at once, and only what the other side does not take is kept.

mod clock;
mod direction;
mod pace;
mod pipe;

use std::{
    io,
    sync::atomic::AtomicU64,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use self::{
    clock::{Clock, TimeUp},
    direction::{Direction, Failure, State},
};
use crate::io::Io;

/// When to end a relay that does not end by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayOptions {
    /// After so long without a byte in either direction.
    pub idle_timeout: Option<Duration>,
    /// After so long, whatever happens.
    pub max_duration: Option<Duration>,
}

/// Bytes carried, kept current while relays run. May be shared by many of them.
#[derive(Debug, Default)]
pub struct RelayCounters {
    /// From downstream to upstream.
    pub bytes_up: AtomicU64,
    /// From upstream to downstream.
    pub bytes_down: AtomicU64,
}

/// What a relay that has ended did.
#[derive(Debug)]
pub struct Relayed {
    /// From downstream to upstream.
    pub bytes_up: u64,
    /// From upstream to downstream.
    pub bytes_down: u64,
    /// Why it ended.
    pub ended: Ended,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum Ended {
    /// Both sides sent their last byte, and it was delivered.
    Closed,
    /// [`RelayOptions::idle_timeout`].
    IdleTimeout,
    /// [`RelayOptions::max_duration`].
    MaxDuration,
    /// Reading from or writing to downstream failed.
    DownstreamError(io::Error),
    /// Reading from or writing to upstream failed.
    UpstreamError(io::Error),
}

/// Carries bytes both ways until both sides have closed, one fails, or time is up. Both connections are closed when
/// it returns: in order if all that was sent was delivered, else by a reset, so that nobody takes a part for the whole.
pub async fn relay(down: Io, up: Io, options: RelayOptions, counters: &RelayCounters) -> Relayed {
    let mut relay = Relay {
        down,
        up,
        upward: Direction::default(),
        downward: Direction::default(),
        failed: None,
    };
    let mut clock = Clock::start(options);
    // Polled, and so registered, only if there is a deadline.
    let timer = sleep_until(
        clock
            .deadline()
            .map_or_else(Instant::now, |(deadline, _)| deadline),
    );
    tokio::pin!(timer);

    let ended = std::future::poll_fn(|context| {
        let before = relay.carried();
        if let Poll::Ready(ended) = relay.poll(context, counters) {
            return Poll::Ready(ended);
        }
        if relay.carried() != before {
            clock.last_active = Instant::now();
        }
        clock.poll(context, timer.as_mut()).map(|up| relay.cut(up))
    })
    .await;
    let (bytes_up, bytes_down) = (relay.upward.carried, relay.downward.carried);
    Relayed {
        bytes_up,
        bytes_down,
        ended,
    }
}

struct Relay {
    down: Io,
    up: Io,
    /// From `down` to `up`.
    upward: Direction,
    /// From `up` to `down`.
    downward: Direction,
    /// A side that takes nothing any more may still have something to say, so its failure is kept until then.
    failed: Option<Ended>,
}

impl Relay {
    fn carried(&self) -> u64 {
        self.upward.carried.wrapping_add(self.downward.carried)
    }

    fn poll(&mut self, context: &mut Context<'_>, counters: &RelayCounters) -> Poll<Ended> {
        let failed = &mut self.failed;
        match self
            .upward
            .poll(context, &mut self.down, &mut self.up, &counters.bytes_up)
        {
            Poll::Ready(Err(Failure::Read(error))) => {
                return Poll::Ready(self.broken(Ended::DownstreamError(error)));
            }
            Poll::Ready(Err(Failure::Write(error))) => {
                self.upward.state = State::Done;
                failed.get_or_insert(Ended::UpstreamError(error));
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match self
            .downward
            .poll(context, &mut self.up, &mut self.down, &counters.bytes_down)
        {
            Poll::Ready(Err(Failure::Read(error))) => {
                return Poll::Ready(self.broken(Ended::UpstreamError(error)));
            }
            Poll::Ready(Err(Failure::Write(error))) => {
                self.downward.state = State::Done;
                failed.get_or_insert(Ended::DownstreamError(error));
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if self.upward.state == State::Done && self.downward.state == State::Done {
            return Poll::Ready(failed.take().unwrap_or(Ended::Closed));
        }
        Poll::Pending
    }

    /// A side broke off. The other must not take what it got for all there was.
    fn broken(&mut self, ended: Ended) -> Ended {
        self.down.abort();
        self.up.abort();
        self.failed.take().unwrap_or(ended)
    }

    /// Time is up. Silence after everything was delivered is a good moment for an orderly end; any other is not.
    fn cut(&mut self, up: TimeUp) -> Ended {
        match up {
            TimeUp::Idle if self.upward.is_stuck() || self.downward.is_stuck() => {
                self.broken(Ended::IdleTimeout)
            }
            TimeUp::Idle => Ended::IdleTimeout,
            TimeUp::Whole => self.broken(Ended::MaxDuration),
        }
    }
}

#[cfg(test)]
mod tests;
