//! From what was measured to what is read: tables, the same on the terminal and in the page, and JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::measure::{Cost, Measured};

/// The tables of a page stand between these lines.
const BEGIN: &str = "<!-- begin: tables of `make bench-control-plane` -->";
const END: &str = "<!-- end -->";

/// Every table. The first measurement is the one that the run is about.
pub(crate) fn tables(all: &[Measured]) -> String {
    let mut text = String::new();
    let Some(main) = all.first() else { return text };
    text += &changes(main);
    text += &whole(main);
    if all.len() > 1 {
        let same = |m: &&Measured| m.size.services == main.size.services;
        let mut by_proxies: Vec<_> = all.iter().filter(same).collect();
        by_proxies.sort_by_key(|m| m.size.proxies);
        text += &growth("Proxies", &by_proxies, |m| m.size.proxies);
        let same = |m: &&Measured| m.size.proxies == main.size.proxies;
        let mut by_services: Vec<_> = all.iter().filter(same).collect();
        by_services.sort_by_key(|m| m.size.services);
        text += &growth("Services", &by_services, |m| m.size.services);
    }
    text
}

fn changes(m: &Measured) -> String {
    let size = &m.size;
    let mut text = format!(
        "**{} proxies, {} services, {} endpoints, {} services used by each proxy**\n\n",
        size.proxies,
        size.services,
        size.endpoints(),
        size.uses
    );
    text += "| Change → last ACK | changes | p50 ms | p99 ms | max ms | operator's CPU, ms a change | bytes received, a change |\n";
    text += "|---|---|---|---|---|---|---|\n";
    let churn = |what: &str| format!("{what}, {:.0} changes a second", m.churn.per_second);
    for (what, cost) in [
        ("one endpoint, one by one".to_owned(), &m.endpoint),
        ("one route, one by one".to_owned(), &m.route),
        ("an endpoint that every proxy uses".to_owned(), &m.hot_endpoint),
        ("a route that every proxy uses".to_owned(), &m.hot_route),
        (churn("endpoints"), &m.churn.endpoint),
        (churn("routes among them"), &m.churn.route),
    ] {
        let Cost {
            changes,
            p50_ms,
            p99_ms,
            max_ms,
            cpu_ms,
            received_bytes,
        } = cost;
        let _ = writeln!(
            text,
            "| {what} | {changes} | {p50_ms:.0} | {p99_ms:.0} | {max_ms:.0} | {cpu_ms:.2} | {received_bytes:.0} |"
        );
    }
    text + "\n"
}

fn whole(m: &Measured) -> String {
    let (cold, churn, restart) = (&m.cold, &m.churn, &m.restart);
    let mut text =
        "| | wall, s | operator's CPU, s | received, MiB | resident, MiB |\n|---|---|---|---|---|\n"
            .to_owned();
    let mut row = |what: &str, wall: f64, cpu: f64, received: Option<f64>, resident: Option<f64>| {
        let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
        let _ = writeln!(
            text,
            "| {what} | {wall:.2} | {cpu:.2} | {} | {} |",
            shown(received),
            shown(resident)
        );
    };
    row(
        "cold start: the folder is loaded",
        cold.load_seconds,
        cold.load_cpu_seconds,
        None,
        None,
    );
    row(
        "cold start: every proxy has a certificate and all it uses",
        cold.ready_seconds,
        cold.cpu_seconds,
        Some(cold.received_mib),
        Some(cold.memory.resident_mib),
    );
    row(
        "restart: the folder is loaded",
        restart.load_seconds,
        0.0,
        None,
        None,
    );
    row(
        "restart: from then until every proxy is back",
        restart.back_seconds,
        restart.cpu_seconds,
        Some(restart.received_mib),
        Some(restart.memory.resident_mib),
    );
    let _ = writeln!(
        text,
        "\nUnder churn the operator takes {:.1} % of a CPU and is {:.0} MiB large ({:.0} MiB at most since its start); idle \
         it takes {:.2} %. The simulator takes {:.1} % of the other CPU. After the restart {} resources were sent.\n",
        churn.operator_percent,
        churn.memory.resident_mib,
        churn.memory.peak_mib,
        m.idle_percent,
        churn.simulator_percent,
        restart.resources,
    );
    text
}

fn growth(what: &str, all: &[&Measured], number: impl Fn(&Measured) -> usize) -> String {
    let mut text = format!(
        "| {what} | endpoint p99 ms | CPU ms a change | bytes a change | route p99 ms | under churn p99 ms | CPU ms a change | \
         cold start, s | its CPU, s | restart CPU, s | resident MiB | idle CPU % |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    );
    for m in all {
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.2} |",
            number(m),
            m.endpoint.p99_ms,
            m.endpoint.cpu_ms,
            m.endpoint.received_bytes,
            m.route.p99_ms,
            m.churn.endpoint.p99_ms,
            m.churn.endpoint.cpu_ms,
            m.cold.ready_seconds,
            m.cold.cpu_seconds,
            m.restart.cpu_seconds,
            m.churn.memory.resident_mib,
            m.idle_percent,
        );
    }
    text + "\n"
}

/// Writes the figures.
pub(crate) fn write_json(path: &Path, all: &[Measured]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let text = serde_json::to_string_pretty(all)?;
    std::fs::write(path, text + "\n").with_context(|| format!("--json: cannot write {}", path.display()))
}

/// Puts the tables into a page.
pub(crate) fn write_page(path: &Path, tables: &str) -> anyhow::Result<()> {
    let page =
        std::fs::read_to_string(path).with_context(|| format!("--docs: cannot read {}", path.display()))?;
    let page = replaced(&page, tables).with_context(|| {
        format!(
            "--docs: {} has no lines {BEGIN:?} and {END:?} to put the tables between",
            path.display()
        )
    })?;
    std::fs::write(path, page).with_context(|| format!("--docs: cannot write {}", path.display()))
}

fn replaced(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    let tables = tables.trim_end();
    Some(format!("{before}{BEGIN}\n\n{tables}\n\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = format!("# Page\n\n{BEGIN}\nold\n{END}\n\nmore\n");
        let once = replaced(&page, "| new |\n").unwrap();
        assert_eq!(once, format!("# Page\n\n{BEGIN}\n\n| new |\n\n{END}\n\nmore\n"));
        assert_eq!(replaced(&once, "| new |\n").unwrap(), once);
        assert_eq!(replaced("# Page\n", "x"), None);
    }
}
