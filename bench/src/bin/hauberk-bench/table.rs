//! What is printed.

use crate::cell::{Cell, Sample};
use crate::peer::Peer;
use crate::scenario::Scenario;
use crate::statistics::{Spread, ratio};

/// Prints a scenario: a line a peer.
pub(crate) fn print(scenario: Scenario, cells: &[Cell]) {
    println!("\n{}: {}", scenario.name(), scenario.what());
    println!(
        "  {:<9} {:>22} {:>16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12}",
        "", "CPU us/request", "to the floor", "req/s", "p50 us", "p99 us", "p99.9 us", "RSS MiB", "failed"
    );
    let floor = cells
        .iter()
        .find(|cell| cell.peer == Peer::Floor)
        .map(|cell| cell.values(|sample| sample.cpu_us));
    for cell in cells {
        let column = |of: fn(&Sample) -> Option<f64>| Spread::of(cell.values(of).into_iter().flatten());
        let cpu = column(|sample| sample.cpu_us);
        let to_floor = floor
            .as_ref()
            .and_then(|floor| ratio(&cell.values(|sample| sample.cpu_us), floor));
        println!(
            "  {:<9} {:>22} {:>16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12}",
            cell.peer.name(),
            with_spread(cpu, 1),
            with_spread(to_floor, 2),
            median(column(|sample| sample.per_second), 0),
            median(column(|sample| sample.p50_us), 0),
            median(column(|sample| sample.p99_us), 0),
            median(column(|sample| sample.p999_us), 0),
            median(column(|sample| sample.rss_mib), 1),
            failures(cell),
        );
    }
}

fn with_spread(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(
        || "n/a".to_owned(),
        |Spread { median, least, most }| format!("{median:.digits$} ({least:.digits$}..{most:.digits$})"),
    )
}

fn median(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(
        || "n/a".to_owned(),
        |spread| format!("{:.digits$}", spread.median),
    )
}

fn failures(cell: &Cell) -> String {
    let sum = |of: fn(&Sample) -> u64| cell.samples.iter().map(of).sum::<u64>();
    format!(
        "{} of {}",
        sum(|sample| sample.failed),
        sum(|sample| sample.failed + sample.requests)
    )
}
