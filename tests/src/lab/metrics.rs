//! Reads numbers out of the Prometheus text that proxies and the operator serve.
//!
//! Used by tests through [`Proxy::metric`](super::Proxy::metric) and [`Operator::metric`](super::Operator::metric).

/// The sum of all series called `name` that carry every label in `labels`; nothing when there is none.
pub fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let matching = text.lines().filter_map(|line| value_of(line, name, labels));
    matching.fold(None, |total, value| Some(total.unwrap_or(0.0) + value))
}

fn value_of(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let (carried, value) = match rest.strip_prefix('{') {
        Some(rest) => split_labels(rest)?,
        None => (Vec::new(), rest.strip_prefix(' ')?),
    };
    let carries = |(key, value): &(&str, &str)| carried.iter().any(|(k, v)| k == key && v == value);
    if !labels.iter().all(carries) {
        return None;
    }
    value.split_whitespace().next()?.parse().ok()
}

/// Reads `a="x",b="y"} rest`; a quoted value may hold any character, with `\\`, `\"` and `\n` escaped.
fn split_labels(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((key.to_owned(), value));
        rest = &after[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "# HELP requests_total Requests.\n# TYPE requests_total counter\n\
        requests_total{service=\"a\",code=\"200\"} 3\n\
        requests_total{service=\"a\",code=\"503\"} 2\n\
        requests_total{service=\"b \\\"q\\\"}\",code=\"200\"} 10\n\
        requests_total_other 99\nup 1\n";

    #[test]
    fn series_with_the_asked_labels_are_added_up() {
        for (labels, expected) in [
            (&[][..], Some(15.0)),
            (&[("service", "a")], Some(5.0)),
            (&[("service", "a"), ("code", "503")], Some(2.0)),
            (&[("service", "b \"q\"}")], Some(10.0)),
            (&[("service", "c")], None),
        ] {
            assert_eq!(sum(TEXT, "requests_total", labels), expected, "{labels:?}");
        }
        assert_eq!(sum(TEXT, "up", &[]), Some(1.0));
        assert_eq!(sum(TEXT, "down", &[]), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,80}") {
            let _any_outcome = sum(&format!("m{{{text}"), "m", &[("a", "b")]);
        }
    }
}
