//! Tables, as text for a terminal and as Markdown for the documents.

use crate::cell::{Cell, Row, Sample};
use crate::peer::Peer;
use crate::scenario::Scenario;
use crate::statistics::Spread;

/// A title and rows of equal length, the first of which is the head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) rows: Vec<Vec<String>>,
}

type Get = fn(&Sample) -> Option<f64>;
const CPU: Get = |sample| sample.cpu_us;

/// The table of a scenario: a line for each case and peer.
pub(crate) fn of(scenario: Scenario, rows: &[Row]) -> Table {
    let title = format!("{}: {}", scenario.name(), scenario.what());
    let labelled = rows.iter().any(|row| !row.label.is_empty());
    let memory = matches!(scenario, Scenario::Idle | Scenario::Destinations);
    let unit = scenario.unit();
    let mut head: Vec<String> = Vec::new();
    if labelled {
        head.push("case".to_owned());
    }
    head.push("proxy".to_owned());
    if memory {
        head.extend(["RSS MiB".to_owned(), format!("KiB per {unit}")]);
    } else {
        head.extend([
            format!("CPU µs per {unit}"),
            "to the floor".into(),
            "ours to it".into(),
        ]);
        head.extend([
            format!("{unit}s/s"),
            "p50 µs".into(),
            "p99 µs".into(),
            "p99.9 µs".into(),
        ]);
        head.extend(["RSS MiB".into(), "failed".into()]);
    }
    let mut table = vec![head];
    for row in rows {
        for cell in &row.cells {
            let mut line = Vec::new();
            if labelled {
                line.push(row.label.clone());
            }
            line.push(cell.peer.name().to_owned());
            line.extend(if memory {
                memory_of(cell)
            } else {
                figures(row, cell)
            });
            table.push(line);
        }
    }
    Table { title, rows: table }
}

fn memory_of(cell: &Cell) -> Vec<String> {
    vec![
        with_spread(cell.spread(|sample| sample.rss_mib), 1),
        with_spread(cell.spread(|sample| sample.kib_each), 2),
    ]
}

fn figures(row: &Row, cell: &Cell) -> Vec<String> {
    let median = |of: Get, digits: usize| {
        cell.spread(of).map_or_else(
            || "n/a".to_owned(),
            |spread| format!("{:.digits$}", spread.median),
        )
    };
    let sum = |of: fn(&Sample) -> u64| cell.samples.iter().map(of).sum::<u64>();
    let failed = if cell.samples.is_empty() {
        "n/a".to_owned()
    } else {
        sum(|sample| sample.failed).to_string()
    };
    vec![
        with_spread(cell.spread(CPU), 1),
        with_spread(row.ratio(cell.peer, Peer::Floor, CPU), 2),
        with_spread(row.ratio(Peer::Hauberk, cell.peer, CPU), 2),
        median(|sample| sample.per_second, 0),
        median(|sample| sample.p50_us, 0),
        median(|sample| sample.p99_us, 0),
        median(|sample| sample.p999_us, 0),
        median(|sample| sample.rss_mib, 1),
        failed,
    ]
}

/// `median (least–most)`.
pub(crate) fn with_spread(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(
        || "n/a".to_owned(),
        |Spread { median, least, most }| {
            if least == most {
                format!("{median:.digits$}")
            } else {
                format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
            }
        },
    )
}

impl Table {
    /// With aligned columns, names to the left and figures to the right.
    pub(crate) fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = format!("{}\n", self.title);
        for row in &self.rows {
            text.push(' ');
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if is_name(&self.rows, column) {
                    text += &format!(" {cell:<width$} ");
                } else {
                    text += &format!(" {cell:>width$} ");
                }
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }

    /// As GitHub shows it, the title as a line above.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n", self.title);
        for (number, row) in self.rows.iter().enumerate() {
            text += &format!("| {} |\n", row.join(" | "));
            if number == 0 {
                let rules: Vec<&str> = (0..row.len())
                    .map(|column| {
                        if is_name(&self.rows, column) {
                            "---"
                        } else {
                            "---:"
                        }
                    })
                    .collect();
                text += &format!("| {} |\n", rules.join(" | "));
            }
        }
        text
    }
}

/// A column of names begins with a letter in some line below its head, other than n/a.
fn is_name(rows: &[Vec<String>], column: usize) -> bool {
    rows.iter()
        .skip(1)
        .filter_map(|row| row.get(column))
        .any(|cell| cell != "n/a" && cell.chars().next().is_some_and(char::is_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_us: f64) -> Sample {
        Sample {
            cpu_us: Some(cpu_us),
            ..Sample::default()
        }
    }

    fn rows() -> Vec<Row> {
        let cell = |peer, cpu: &[f64]| Cell {
            peer,
            samples: cpu.iter().map(|cpu| sample(*cpu)).collect(),
        };
        vec![Row {
            label: String::new(),
            cells: vec![
                cell(Peer::Hauberk, &[30.0, 36.0]),
                cell(Peer::Floor, &[20.0, 30.0]),
                cell(Peer::Nginx, &[]),
            ],
        }]
    }

    #[test]
    fn a_peer_that_cannot_do_it_has_no_figures_and_no_zeros() {
        let table = of(Scenario::Http1, &rows());
        assert!(table.rows[3][1..].iter().all(|cell| cell == "n/a"), "{table:?}");
        assert_eq!(table.rows[1][1], "33.0 (30.0–36.0)");
        assert_eq!(table.rows[1][2], "1.35 (1.20–1.50)");
        assert_eq!(table.rows[2][3], table.rows[1][2]);
    }

    #[test]
    fn all_rows_of_a_table_have_as_many_cells_as_its_head() {
        for scenario in Scenario::all() {
            let table = of(scenario, &rows());
            assert!(table.rows.iter().all(|row| row.len() == table.rows[0].len()));
        }
    }

    #[test]
    fn text_is_aligned_and_markdown_has_its_rule() {
        let table = Table {
            title: "t".to_owned(),
            rows: vec![
                vec!["proxy".into(), "µs".into()],
                vec!["ours".into(), "1.0".into()],
                vec!["x".into(), "10.0".into()],
            ],
        };
        assert_eq!(table.text(), "t\n  proxy    µs\n  ours    1.0\n  x      10.0\n");
        assert_eq!(
            table.markdown(),
            "**t**\n\n| proxy | µs |\n| --- | ---: |\n| ours | 1.0 |\n| x | 10.0 |\n"
        );
    }
}
