//! Injection from outside: pods of many shapes, what the proxy makes of what it is given, and the guide.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod golden;
mod guide;
mod program;
mod random;
mod restricted;
