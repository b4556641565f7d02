//! Columns for people: as wide as their widest cell, with notes indented below a row.

/// One row, and what is to be said below it.
#[derive(Debug)]
pub(crate) struct Row<const N: usize> {
    pub(crate) cells: [String; N],
    pub(crate) notes: Vec<String>,
}

/// The table as text.
pub(crate) fn render<const N: usize>(header: [&str; N], rows: &[Row<N>]) -> String {
    let header = header.map(str::to_owned);
    let mut widths = header.each_ref().map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let padded: Vec<_> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut out = line(&header);
    for row in rows {
        out.push_str(&line(&row.cells));
        for note in &row.notes {
            out.push_str(&format!("  {note}\n"));
        }
    }
    out
}

/// A time span in its two largest units.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// `text` in brief: the first few, and how many more.
pub(crate) fn some(names: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let mut shown: Vec<_> = names.take(SHOWN).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_cells_and_lines_have_no_tail() {
        let row = |a: &str, b: &str, notes: &[&str]| Row {
            cells: [a.to_owned(), b.to_owned()],
            notes: notes.iter().map(|n| (*n).to_owned()).collect(),
        };
        let text = render(
            ["NAME", "X"],
            &[row("a", "long cell", &["odd"]), row("longer", "", &[])],
        );
        assert_eq!(text, "NAME    X\na       long cell\n  odd\nlonger\n");
    }

    #[test]
    fn spans_and_lists_are_brief() {
        let spans = [5, 65, 3_700, 90_000].map(span);
        assert_eq!(spans, ["5s", "1m5s", "1h1m", "1d1h"]);
        let names = |n: usize| some((0..n).map(|i| i.to_string()).collect::<Vec<_>>().into_iter());
        assert_eq!(names(2), "0, 1");
        assert_eq!(names(7), "0, 1, 2, 3, 4, and 2 more");
    }
}
