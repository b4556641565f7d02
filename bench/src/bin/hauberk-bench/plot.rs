//! The plot: CPU per request as grouped bars, a group for each scenario and a bar for each proxy, as SVG.
//!
//! Two panels, since a body of 1 MiB costs some twenty times what a small request does; in each the scale is linear, so
//! that a bar twice as long means twice the cost.

use std::fmt::Write as _;

use crate::peer::Peer;
use crate::results::Results;
use crate::scenario::Scenario;

const WIDTH: f64 = 1080.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const PANEL: f64 = 300.0;
const HEAD: f64 = 96.0;
const GAP: f64 = 96.0;

/// A bar's value, and how far it moved from round to round.
struct Bar {
    peer: Peer,
    median: f64,
    least: f64,
    most: f64,
}

struct Group {
    label: String,
    bars: Vec<Bar>,
}

/// The plot of `results`.
pub(crate) fn of(results: &Results) -> String {
    let panels = [
        (
            "CPU time of one proxy per request, message there and back, or ping (µs)",
            groups(
                results,
                &[
                    (Scenario::Http1, "HTTP/1.1"),
                    (Scenario::Http2, "HTTP/2"),
                    (Scenario::Http1Mtls, "HTTP/1.1, mTLS"),
                    (Scenario::Http2Mtls, "HTTP/1.1 over HTTP/2, mTLS"),
                    (Scenario::GrpcStream, "gRPC"),
                    (Scenario::Tcp, "TCP"),
                    (Scenario::TcpMtls, "TCP, mTLS"),
                ],
            ),
        ),
        (
            "CPU time of one proxy per body of 1 MiB, or MiB of a TCP connection (µs)",
            groups(
                results,
                &[
                    (Scenario::BodyDown, "answer"),
                    (Scenario::BodyUp, "request"),
                    (Scenario::TcpBulk, "TCP"),
                    (Scenario::TcpMtlsBulk, "TCP, mTLS"),
                ],
            ),
        ),
    ];
    let shown: Vec<_> = panels
        .into_iter()
        .filter(|(_, groups)| !groups.is_empty())
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "two at most")]
    let height = HEAD + shown.len() as f64 * (PANEL + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\" fill=\"#24292f\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"34\" font-size=\"20\" font-weight=\"600\">What a request costs</text>\n"
    );
    legend(&mut svg, results);
    let mut top = HEAD;
    for (title, groups) in &shown {
        panel(&mut svg, title, groups, top);
        top += PANEL + GAP;
    }
    svg + "</svg>\n"
}

fn groups(results: &Results, scenarios: &[(Scenario, &str)]) -> Vec<Group> {
    let mut groups = Vec::new();
    for (scenario, label) in scenarios {
        for row in results.rows(*scenario) {
            let bars = row.cells.iter().filter_map(|cell| {
                let spread = cell.spread(|sample| sample.cpu_us)?;
                Some(Bar {
                    peer: cell.peer,
                    median: spread.median,
                    least: spread.least,
                    most: spread.most,
                })
            });
            let label = match row.label.as_str() {
                "" | "plaintext" => (*label).to_owned(),
                "mutual TLS" => format!("{label}, mTLS"),
                more => format!("{label}, {more}"),
            };
            let bars: Vec<Bar> = bars.collect();
            if !bars.is_empty() {
                groups.push(Group { label, bars });
            }
        }
    }
    groups
}

fn legend(svg: &mut String, results: &Results) {
    let mut x = LEFT;
    for peer in results.peers.iter().filter(|peer| **peer != Peer::Direct) {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"52\" width=\"14\" height=\"14\" rx=\"2\" fill=\"{}\"/>\
             <text x=\"{}\" y=\"64\">{}</text>",
            colour(*peer),
            x + 20.0,
            title(*peer)
        );
        x += 120.0;
    }
}

fn panel(svg: &mut String, title: &str, groups: &[Group], top: f64) {
    let highest = groups
        .iter()
        .flat_map(|group| group.bars.iter().map(|bar| bar.most))
        .fold(0.0, f64::max);
    let step = step(highest);
    let ceiling = (highest / step).ceil() * step;
    let bottom = top + PANEL;
    let y = |value: f64| bottom - value / ceiling * (PANEL - 24.0);
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"600\">{title}</text>",
        top - 2.0
    );
    let mut tick = 0.0;
    while tick <= ceiling + step / 2.0 {
        let at = y(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#d0d7de\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#57606a\">{tick}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.5
        );
        tick += step;
    }
    #[expect(clippy::cast_precision_loss, reason = "a dozen groups")]
    let wide = (WIDTH - LEFT - RIGHT) / groups.len() as f64;
    for (number, group) in groups.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a dozen groups")]
        let left = LEFT + wide * number as f64;
        bars(svg, group, left, wide, &y);
        label(svg, &group.label, left + wide / 2.0, bottom + 20.0, wide);
    }
}

fn bars(svg: &mut String, group: &Group, left: f64, wide: f64, y: &dyn Fn(f64) -> f64) {
    #[expect(clippy::cast_precision_loss, reason = "half a dozen proxies")]
    let bar_width = (wide * 0.84 / group.bars.len() as f64).min(30.0);
    #[expect(clippy::cast_precision_loss, reason = "half a dozen proxies")]
    let mut x = left + (wide - bar_width * group.bars.len() as f64) / 2.0;
    for bar in &group.bars {
        let (top, middle) = (y(bar.median), x + bar_width / 2.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"1.5\" fill=\"{}\"/>\
             <line x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#24292f\" stroke-opacity=\"0.55\"/>\
             <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"10\" fill=\"#57606a\">{:.0}</text>",
            x + 1.0,
            bar_width - 2.0,
            y(0.0) - top,
            colour(bar.peer),
            y(bar.least),
            y(bar.most),
            y(bar.most) - 4.0,
            bar.median
        );
        x += bar_width;
    }
}

/// A label below a group, on two or three lines where it is wide.
fn label(svg: &mut String, text: &str, middle: f64, top: f64, wide: f64) {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            #[expect(clippy::cast_precision_loss, reason = "a label")]
            Some(line) if (line.len() + word.len()) as f64 * 7.0 < wide - 8.0 => {
                *line += " ";
                *line += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    let mut y = top;
    for line in lines {
        let _ = writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>",
            escape(&line)
        );
        y += 16.0;
    }
}

/// The distance between two lines of the scale: 1, 2 or 5 times a power of ten, so that there are some four to ten.
fn step(highest: f64) -> f64 {
    let rough = (highest / 8.0).max(1e-3);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power)
}

fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Direct => "#8c959f",
        Peer::Hauberk => "#0b6bcb",
        Peer::Floor => "#a9b4c0",
        Peer::Envoy => "#b5489a",
        Peer::Nginx => "#2f8f4e",
        Peer::Haproxy => "#d9822b",
    }
}

fn title(peer: Peer) -> &'static str {
    match peer {
        Peer::Direct => "no proxy",
        Peer::Hauberk => "Hauberk",
        Peer::Floor => "bare hyper",
        Peer::Envoy => "Envoy",
        Peer::Nginx => "nginx",
        Peer::Haproxy => "HAProxy",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cell::{Cell, Row, Sample};

    fn results() -> Results {
        let peers = vec![Peer::Hauberk, Peer::Envoy];
        let mut results = Results::new(peers.clone(), 1, Duration::from_secs(1));
        for (scenario, cpu) in [(Scenario::Http1, 30.0), (Scenario::BodyDown, 1200.0)] {
            let cells = peers.iter().map(|peer| Cell {
                peer: *peer,
                samples: [cpu, cpu + 5.0]
                    .map(|cpu| Sample {
                        cpu_us: Some(cpu),
                        ..Sample::default()
                    })
                    .into(),
            });
            let label = "a < b & c".to_owned();
            results.add(
                scenario,
                vec![Row {
                    label,
                    cells: cells.collect(),
                }],
            );
        }
        results
    }

    /// Every tag is closed in its order, and no attribute or text breaks out.
    fn well_formed(svg: &str) -> Result<usize, String> {
        let mut open = Vec::new();
        let mut elements = 0;
        let mut rest = svg;
        while let Some((text, after)) = rest.split_once('<') {
            if text.replace("&amp;", "").replace("&lt;", "").contains(['&', '>']) {
                return Err(format!("text {text:?}"));
            }
            let (tag, after) = after.split_once('>').ok_or("a tag without end")?;
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name.to_owned()) {
                    return Err(format!("</{name}> closes something else"));
                }
            } else {
                elements += 1;
                if tag.matches('"').count() % 2 != 0 {
                    return Err(format!("<{tag}> has an open quote"));
                }
                if !tag.ends_with('/') {
                    open.push(tag.split(' ').next().unwrap_or_default().to_owned());
                }
            }
            rest = after;
        }
        if open.is_empty() {
            Ok(elements)
        } else {
            Err(format!("{open:?} stay open"))
        }
    }

    #[test]
    fn the_plot_is_well_formed_with_a_bar_for_each_proxy_and_no_impossible_number() {
        let svg = of(&results());
        assert!(well_formed(&svg).unwrap() > 20, "{svg}");
        for peer in [Peer::Hauberk, Peer::Envoy] {
            // Two bars and one mark in the legend.
            assert_eq!(svg.matches(&format!("fill=\"{}\"", colour(peer))).count(), 3);
        }
        assert!(
            !svg.contains("NaN") && !svg.contains("inf") && !svg.contains("=\"-"),
            "{svg}"
        );
    }

    #[test]
    fn the_check_of_the_form_finds_faults() {
        for broken in ["<a><b></a></b>", "<a", "<a x=\"1></a>", "<a>", "<a>&</a>"] {
            assert!(well_formed(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_run_without_figures_gives_an_empty_plot_rather_than_none() {
        let empty = Results::new(vec![Peer::Hauberk], 1, Duration::from_secs(1));
        well_formed(&of(&empty)).unwrap();
    }

    #[test]
    fn scales_have_between_four_and_ten_lines_at_round_numbers() {
        for (highest, expected) in [(33.0, 5.0), (5.0, 1.0), (1450.0, 200.0), (119.0, 20.0)] {
            assert_eq!(step(highest), expected, "{highest}");
        }
    }
}
