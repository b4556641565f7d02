//! Configuration: the stream to the operator, the store that decides what is active, and the snapshot that requests use.

pub mod snapshot;
