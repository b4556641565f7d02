//! The places that tests run in, and what runs in them.
//!
//! [`lab`] runs pods as network namespaces on one machine, with real proxies, a real operator and real kernel
//! redirects. [`app`], [`caller`], [`grpc`] and [`websocket`] are what the test application (`hauberk-testapp`) and its callers
//! share; [`client`] makes single calls, [`load`] makes many and records each outcome. [`cluster`] is a real Kubernetes for
//! the tests that need one (`hauberk-e2e`). Nothing here is shipped.

pub mod app;
pub mod caller;
pub mod client;
pub mod cluster;
pub mod grpc;
pub mod lab;
pub mod load;
pub mod websocket;
