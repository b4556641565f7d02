//! Puts into words what a deserializer found: what the field must be, and what was probably meant.

use serde_json::Value;

use super::decode::Problem;
use crate::{
    definitions,
    object::Kind,
    path::Step,
    words::{printable, quote},
};

/// The fields of `metadata` that people write by hand.
const METADATA: [&str; 8] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "finalizers",
    "ownerReferences",
    "creationTimestamp",
];

/// The problem with a field that does not exist.
pub(super) fn unknown_field(kind: Kind, path: &[Step]) -> Problem {
    let Some((Step::Field(name), parent)) = path.split_last() else {
        return Problem::new(path.to_vec(), "is not known");
    };
    let known = known_fields(kind, parent);
    let message = match did_you_mean(name, known.iter().copied()) {
        hint if !hint.is_empty() => format!("unknown field{hint}"),
        _ if known.is_empty() => "unknown field; remove it".to_owned(),
        _ => format!("unknown field; remove it (known here: {})", known.join(", ")),
    };
    Problem::new(path.to_vec(), message)
}

/// The problem with a value that does not fit its field, from the words of serde.
pub(super) fn mismatch(mut path: Vec<Step>, raw: &str) -> Problem {
    let quoted = |text: &str| {
        text.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    if let Some(name) = raw
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'))
    {
        path.push(Step::Field(name.to_owned()));
        return Problem::new(path, "is required");
    }
    if let Some((value, known)) = raw
        .strip_prefix("unknown variant `")
        .and_then(|rest| rest.split_once("`, expected"))
    {
        let known = quoted(known);
        let hint = did_you_mean(value, known.iter().map(String::as_str));
        let (value, known) = (quote(value), known.join(", "));
        return Problem::new(
            path,
            format!("{value} is not known here; use one of {known}{hint}"),
        );
    }
    for prefix in ["invalid type: ", "invalid value: "] {
        if let Some((found, expected)) = raw
            .strip_prefix(prefix)
            .and_then(|rest| rest.rsplit_once(", expected "))
        {
            let remedy = if expected == "a string" && !found.starts_with(['m', 's', 'n']) {
                "; put it in quotes"
            } else {
                ""
            };
            let expected = in_words(expected);
            let found = printable(found, 100);
            return Problem::new(path, format!("must be {expected}, not {found}{remedy}"));
        }
    }
    Problem::new(path, printable(raw, 500))
}

/// `; did you mean …?` where one of the known words is close, and nothing otherwise.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let longest = match word.chars().count() {
        0..=3 => 1,
        4..=7 => 2,
        8..=40 => 3,
        _ => return String::new(),
    };
    let nearest = known.map(|known| (distance(word, known), known)).min();
    match nearest {
        Some((distance, known)) if distance <= longest => format!("; did you mean `{known}`?"),
        Some(_) | None => String::new(),
    }
}

/// What serde expects, in words of the manifest rather than of the language.
fn in_words(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number from 0",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "i64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

fn known_fields(kind: Kind, path: &[Step]) -> Vec<&'static str> {
    match path {
        [] => return vec!["apiVersion", "kind", "metadata", "spec", "status"],
        [Step::Field(first)] if first == "metadata" => return METADATA.to_vec(),
        [_, ..] => {}
    }
    let mut schema = definitions::schema(kind).unwrap_or(&Value::Null);
    for step in path {
        schema = match step {
            Step::Index(_) => &schema["items"],
            Step::Field(name) => match &schema["properties"][name.as_str()] {
                Value::Null => &schema["additionalProperties"],
                property => property,
            },
        };
    }
    match &schema["properties"] {
        Value::Object(properties) => properties.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// How many letters must be changed, added, removed or swapped with their neighbour to make one word of the
/// other. Case does not count. Only called with words of at most 40 letters.
fn distance(a: &str, b: &str) -> usize {
    let letters = |word: &str| word.to_lowercase().chars().collect::<Vec<_>>();
    let (a, b) = (letters(a), letters(b));
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let above = &rows[i - 1];
            let changed = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_recognised() {
        for (a, b, expected) in [
            ("weight", "weight", 0),
            ("wieght", "weight", 1),
            ("Weight", "weight", 0),
            ("wait", "weight", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
        assert_eq!(
            did_you_mean("wieght", ["host", "weight"].into_iter()),
            "; did you mean `weight`?"
        );
        assert_eq!(did_you_mean("banana", ["host", "weight"].into_iter()), "");
    }

    #[test]
    fn a_mismatch_is_told_in_words_of_the_manifest() {
        let told = |raw: &str| mismatch(vec![], raw).message;
        assert_eq!(
            told("invalid type: integer `5`, expected a string"),
            "must be a string, not integer `5`; put it in quotes"
        );
        assert_eq!(
            told("invalid value: integer `-1`, expected u32"),
            "must be a whole number from 0 to 4294967295, not integer `-1`"
        );
        assert_eq!(
            told("unknown variant `ROUND_ROBBIN`, expected one of `RANDOM`, `ROUND_ROBIN`"),
            "`ROUND_ROBBIN` is not known here; use one of RANDOM, ROUND_ROBIN; did you mean `ROUND_ROBIN`?"
        );
        assert_eq!(told("`5` is not a duration"), "`5` is not a duration");
    }
}
