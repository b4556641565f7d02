//! The cases, and how often each is done for one count. Only `main` and `count` use them.

mod configuration;
mod decisions;
mod records;
mod requests;

/// Something that is done `iterations` times and counted.
#[derive(Debug)]
pub(crate) struct Case {
    /// As in the table and in the baseline.
    pub(crate) name: &'static str,
    /// How often it is done in the smaller of the two counts.
    pub(crate) iterations: u32,
    /// Does it so often, with all that it takes to get there.
    pub(crate) with: fn(u32),
    /// The same without the part that the case is about, to be subtracted.
    pub(crate) without: Option<fn(u32)>,
}

const fn case(name: &'static str, iterations: u32, with: fn(u32)) -> Case {
    Case {
        name,
        iterations,
        with,
        without: None,
    }
}

/// All, in the order in which a request meets them.
pub(crate) fn all() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(requests::CASES);
    all.extend(decisions::CASES);
    all.extend(records::CASES);
    all.extend(configuration::CASES);
    all
}
