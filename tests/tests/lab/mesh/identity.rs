//! Who is who: nothing in clear text, nobody under another's name, and policies that hold.

mod certificates;
mod peers;
mod policies;
mod probes;

use libtest_mimic::Trial;

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = peers::trials();
    trials.extend(policies::trials());
    trials.extend(probes::trials());
    trials.extend(certificates::trials());
    trials
}
