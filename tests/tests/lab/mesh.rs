//! The mesh as its users meet it: real proxies and a real operator between real connections.
//!
//! Every claim of the README and every line of the field's lessons that one machine can show has a test here.

mod config;
mod group;
mod guide;
mod identity;
mod protocols;
mod raw;
mod resilience;
mod routing;
mod rules;
mod servers;
mod wire;

use std::time::Duration;

use libtest_mimic::Trial;

/// Within this time everything that a test awaits must have happened; nothing on purpose takes longer.
const SOON: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = protocols::trials();
    trials.extend(routing::trials());
    trials.extend(resilience::trials());
    trials.extend(identity::trials());
    trials.extend(config::trials());
    trials.extend(wire::trials());
    trials.extend(guide::trials());
    trials
}
