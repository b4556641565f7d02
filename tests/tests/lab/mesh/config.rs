//! Configuration under way: pushes that close nothing, objects that harm no other, an operator that goes and comes.

mod lifecycle;
mod objects;
mod operator;
mod push;

use libtest_mimic::Trial;

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = push::trials();
    trials.extend(objects::trials());
    trials.extend(operator::trials());
    trials.extend(lifecycle::trials());
    trials
}
