//! The lab and everything that stands on it: integration tests, the demo and benchmarks.
//!
//! [`lab`] runs pods as network namespaces on one machine, with real proxies, a real operator and real kernel
//! redirects. [`app`], [`grpc`] and [`websocket`] are what the test application (`hauberk-testapp`) and its callers
//! share; [`client`] makes single calls, [`load`] makes many and records each outcome. Nothing here is shipped.

pub mod app;
pub mod client;
pub mod grpc;
pub mod lab;
pub mod load;
pub mod websocket;
