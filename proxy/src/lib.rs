//! Hauberk's data plane: one proxy beside every pod.
//!
//! The modules are listed in the order a request meets them; `ARCHITECTURE.md` walks one request through them.

pub mod settings;

pub mod interception;

pub mod listener;
pub mod worker;

pub mod detect;
pub mod io;

mod cork;
pub mod inbound;
pub mod outbound;
mod seldom;
pub mod serve;

pub mod route;

pub mod cors;
pub mod fault;

pub mod balancer;
pub mod breaker;
pub mod limits;
pub mod live;
pub mod originate;
pub mod outlier;
pub mod retry;
pub mod upstream;

pub mod mirror;
pub mod tcp;
pub mod tries;
pub mod tunnel;

pub mod access_log;
pub mod message;
pub mod metrics;
pub mod record;

pub mod config;
pub mod identity;

pub mod admin;
pub mod drain;
pub mod error;
pub mod explain;
pub mod log;
pub mod probes;
pub mod wait;

/// What the proxy's process allocates with; one choice for the program and for the benches that stand for it.
pub use mimalloc::MiMalloc as Allocator;

#[cfg(test)]
pub(crate) mod testing;
