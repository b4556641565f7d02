//! Hauberk's operator: watches a source of Kubernetes objects, keeps them as typed state, compiles what each proxy asks
//! for, and pushes the difference. The modules are listed in the order a change runs through them.

pub mod settings;

pub mod kubernetes;

pub mod source;
pub mod state;

pub mod compile;

pub mod push;
pub mod session;

pub mod status;

pub mod authority;

mod accept;
pub mod admission;

#[cfg(test)]
mod scripted;

pub mod admin;
pub mod metrics;
pub mod run;
