//! The outbound path from the application's first byte to the endpoint's last, over in-memory streams and the loopback.

mod allocations;
mod announced;
mod answers;
mod cors;
mod endings;
mod faults;
mod heads;
mod mirrors;
mod opaque;
mod outliers;
mod pool;
mod queue;
mod retries;
mod shared;
mod sticky;
mod tunnels;
mod wires;
