//! The status as text for people: what is wrong first, then objects, then proxies.

use super::{ObjectStatus, Status, Unreadable};
use crate::push::ProxyView;

/// The status as text.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    for file in &status.files {
        line(&mut out, &format!("file {}: {}", file.file, file.problem));
    }
    for object in &status.unreadable {
        let Unreadable {
            kind,
            namespace,
            name,
            generation,
            problem,
        } = object;
        line(
            &mut out,
            &format!("{kind} {namespace}/{name}: generation {generation} cannot be read: {problem}"),
        );
    }
    for resource in &status.unsendable {
        line(&mut out, &format!("{}: {}", resource.resource, resource.problem));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    objects(&mut out, &status.objects);
    out.push('\n');
    proxies(&mut out, &status.proxies);
    out
}

fn objects(out: &mut String, objects: &[ObjectStatus]) {
    if objects.is_empty() {
        line(out, "no objects");
        return;
    }
    let header = ["KIND", "NAMESPACE", "NAME", "GENERATION", "STATE", "APPLIED"].map(str::to_owned);
    let rows = objects.iter().map(|o| {
        let state = if o.accepted { "accepted" } else { "rejected" };
        let cells = [
            o.kind.clone(),
            o.namespace.clone(),
            o.name.clone(),
            o.generation.to_string(),
            state.to_owned(),
            o.applied.clone(),
        ];
        let refused = o
            .refused_by
            .iter()
            .map(|r| format!("refused by {}: {}", r.proxy, r.reason));
        let notes = [&o.findings, &o.conflicts, &o.warnings];
        (
            cells,
            notes.into_iter().flatten().cloned().chain(refused).collect(),
        )
    });
    table(out, header, rows.collect());
}

fn proxies(out: &mut String, proxies: &[ProxyView]) {
    if proxies.is_empty() {
        line(out, "no proxies are connected");
        return;
    }
    let header = [
        "PROXY",
        "VERSION",
        "CONNECTED",
        "SUBSCRIPTIONS",
        "APPLIED",
        "WAITING",
        "REFUSED",
    ]
    .map(str::to_owned);
    let rows = proxies.iter().map(|p| {
        let cells = [
            format!("{}/{}", p.namespace, p.pod),
            p.proxy_version.clone(),
            span(p.connected_seconds),
            p.subscriptions.values().sum::<usize>().to_string(),
            p.applied.to_string(),
            p.waiting.to_string(),
            p.refused.to_string(),
        ];
        let nack = p.last_nack.iter();
        let notes = nack.map(|n| format!("refused {} {} ago: {}", n.resource, span(n.seconds_ago), n.reason));
        (cells, notes.collect())
    });
    table(out, header, rows.collect());
}

/// Columns as wide as their widest cell; notes stand indented below their row.
fn table<const N: usize>(out: &mut String, header: [String; N], rows: Vec<([String; N], Vec<String>)>) {
    let mut widths = header.each_ref().map(|cell| cell.chars().count());
    for (cells, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut row = |cells: &[String; N]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        line(out, padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    row(&header);
    for (cells, notes) in &rows {
        row(cells);
        for note in notes {
            row_note(&mut row, note);
        }
    }
}

fn row_note<const N: usize>(row: &mut impl FnMut(&[String; N]), note: &str) {
    let mut cells = [const { String::new() }; N];
    cells[0] = format!("  {note}");
    row(&cells);
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use crate::push::HubView;
    use crate::status::tests::{facts, proxy};
    use crate::status::{FileProblem, board};

    use super::*;

    #[test]
    fn what_is_wrong_comes_first_and_notes_stand_below_their_object() {
        let mut wrong = facts(false, None);
        wrong.findings = vec!["spec.http[0].route: has no destination".to_owned()];
        let files = vec![FileProblem {
            file: "a.yaml".to_owned(),
            problem: "line 3: not YAML".to_owned(),
        }];
        let unreadable = vec![Unreadable {
            kind: "DestinationRule".to_owned(),
            namespace: "shop".to_owned(),
            name: "slipped-past".to_owned(),
            generation: 4,
            problem: "spec.host: must be a string".to_owned(),
        }];
        let hub = HubView {
            proxies: vec![proxy("web-0")],
            ..HubView::default()
        };
        assert_eq!(
            render(&board(vec![wrong], files, unreadable, hub)),
            "\
file a.yaml: line 3: not YAML
DestinationRule shop/slipped-past: generation 4 cannot be read: spec.host: must be a string

KIND            NAMESPACE  NAME     GENERATION  STATE     APPLIED
VirtualService  shop       reviews  2           rejected  not in force
  spec.http[0].route: has no destination

PROXY       VERSION  CONNECTED  SUBSCRIPTIONS  APPLIED  WAITING  REFUSED
shop/web-0  0.1.0    1m5s       2              1        1        0
"
        );
    }

    #[test]
    fn an_empty_mesh_is_said_to_be_empty() {
        let text = render(&board(Vec::new(), Vec::new(), Vec::new(), HubView::default()));
        assert_eq!(text, "no objects\n\nno proxies are connected\n");
    }
}
