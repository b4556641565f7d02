//! Records what crosses the lab's bridge, to prove what is on the wire: plain text, or TLS.
//!
//! A raw socket in the hub sees each frame once, where its sender put it on the bridge. Loopback traffic inside a pod
//! (application to its own proxy) never crosses the bridge and is not seen. Under heavy load the kernel may drop
//! frames; a stream with a hole is reported as such, never guessed at.

mod packet;
mod stream;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

pub use packet::Segment;
pub use stream::{Content, Stream};

use super::hub::{BRIDGE, hub};
use super::poll::eventually;

/// No more than this many payload bytes are kept.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// Larger than any frame that the kernel's segmentation offload puts together.
const FRAME: usize = 128 * 1024;
const BUFFER: usize = 32 * 1024 * 1024;
/// How often the recording thread looks whether it should stop.
const LOOK: Duration = Duration::from_millis(50);
const ALL_PROTOCOLS: u16 = 0x0003;

/// A running capture. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    segments: Vec<Segment>,
    bytes: usize,
    full: bool,
}

impl Capture {
    /// Starts recording. Must be called in the hub, where a test's own code runs, not from inside a pod.
    pub fn start() -> anyhow::Result<Capture> {
        hub()?;
        let protocol = Protocol::from(i32::from(ALL_PROTOCOLS.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
            .context("the kernel refuses a raw packet socket in the lab")?;
        // The kernel caps the size at its own limit: a smaller buffer drops more, which is reported.
        let _capped = socket.set_recv_buffer_size(BUFFER);
        socket
            .set_read_timeout(Some(LOOK))
            .context("cannot set a socket's timeout")?;
        let bridge = nix::net::if_::if_nametoindex(BRIDGE).context("the lab's bridge is missing")?;
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || record(&socket, bridge, &shared)
            })
            .context("cannot start the capture thread")?;
        Ok(Capture {
            shared,
            thread: Some(thread),
        })
    }

    /// All TCP segments with a payload so far, in the order in which they were sent.
    pub fn segments(&self) -> Vec<Segment> {
        self.taken().segments.clone()
    }

    /// Whether `marker` was seen in clear in any TCP stream, also where it is spread over segments.
    pub fn saw(&self, marker: &[u8]) -> bool {
        self.streams().iter().any(|stream| stream.contains(marker))
    }

    /// Waits until `marker` is seen.
    pub async fn wait_for(&self, marker: &[u8], deadline: Duration) -> anyhow::Result<()> {
        let what = format!("{:?} crosses the bridge", String::from_utf8_lossy(marker));
        eventually(deadline, &what, async || {
            let seen = self.taken().segments.len();
            anyhow::ensure!(self.saw(marker), "not among {seen} segments");
            Ok(())
        })
        .await
    }

    /// Every TCP stream (one direction of a connection) that carried a payload.
    pub fn streams(&self) -> Vec<Stream> {
        stream::assemble(&self.taken().segments)
    }

    /// The streams from or to `port`.
    pub fn streams_of(&self, port: u16) -> Vec<Stream> {
        let mut streams = self.streams();
        streams.retain(|stream| stream.from.port() == port || stream.to.port() == port);
        streams
    }

    /// The streams to `to`.
    pub fn streams_to(&self, to: SocketAddr) -> Vec<Stream> {
        let mut streams = self.streams();
        streams.retain(|stream| stream.to == to);
        streams
    }

    /// Whether it stopped early because it held as much as it may.
    pub fn full(&self) -> bool {
        self.taken().full
    }

    /// Forgets what was recorded so far. Streams that go on are then seen from their middle.
    pub fn clear(&self) {
        *self.taken() = Taken::default();
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panic_was_printed = thread.join();
        }
    }
}

fn record(socket: &Socket, bridge: u32, shared: &Shared) {
    let mut frame = vec![0; FRAME];
    while !shared.stop.load(Ordering::Relaxed) {
        // Errors are the timeout, or an interface that went away with its pod: neither ends a capture.
        let Ok((length, Some(from))) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) else {
            continue;
        };
        // A raw socket shows a frame where it enters the hub and again where it leaves it. Taken is what a pod sends
        // (entering through its port) and what the hub itself sends (leaving through the bridge).
        let outgoing = from.pkttype() == nix::libc::PACKET_OUTGOING;
        let by_hub = u32::try_from(from.ifindex()).is_ok_and(|index| index == bridge);
        if outgoing != by_hub {
            continue;
        }
        let Some(segment) = packet::parse(&frame[..length.min(FRAME)]) else {
            continue;
        };
        let mut taken = shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.bytes + segment.payload.len() > MAX_BYTES {
            taken.full = true;
            return;
        }
        taken.bytes += segment.payload.len();
        taken.segments.push(segment);
    }
}
