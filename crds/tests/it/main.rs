//! The crate seen from outside: examples, generated definitions, every field of every shape, random input.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod definitions;
mod examples;
mod fields;
mod limits;
mod parsing;
mod random;
