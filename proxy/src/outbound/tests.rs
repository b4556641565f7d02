//! The outbound path from the application's first byte to the endpoint's last, over in-memory streams and the loopback.

mod allocations;
mod answers;
mod endings;
mod heads;
mod opaque;
mod pool;
mod retries;
mod shared;
mod tunnels;
