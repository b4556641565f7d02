//! One word a thing: the words that docs/lexicon.md rules out are not used for names in the code.

use std::collections::BTreeMap;

use crate::hold;
use crate::tree::{read, sources};

/// What introduces a name that we chose.
const INTRODUCE: [&str; 8] = [
    "struct ", "enum ", "trait ", "fn ", "mod ", "type ", "const ", "static ",
];

/// The words after `Not:` in the lexicon, each with the word to use.
fn ruled_out() -> BTreeMap<String, String> {
    let lexicon = read("docs/lexicon.md");
    let mut words = BTreeMap::new();
    let mut term = "";
    for line in lexicon.text.lines() {
        if let Some(entry) = line.strip_prefix("- **") {
            term = entry.split("**").next().unwrap_or_default();
        }
        if let Some((_, not)) = line.split_once("Not: ") {
            let ruled_out = not.split('`').skip(1).step_by(2);
            words.extend(ruled_out.map(|word| (word.to_owned(), term.to_owned())));
        }
    }
    words
}

/// `HttpRoute_table` as `http`, `route`, `table`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut previous = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && previous.is_lowercase()) {
            parts.push(String::new());
        }
        if c != '_' {
            parts
                .last_mut()
                .expect("begins with one")
                .extend(c.to_lowercase());
        }
        previous = c;
    }
    parts
}

fn introduced(line: &str) -> Option<&str> {
    let line = line.trim_start();
    if line.starts_with("//") {
        return None;
    }
    let after = INTRODUCE.iter().find_map(|word| {
        let at = line.find(word)?;
        let alone = line[..at].ends_with([' ', '(']) || at == 0;
        alone.then(|| &line[at + word.len()..])
    })?;
    after.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
}

#[test]
fn one_word_a_thing() {
    let ruled_out = ruled_out();
    assert!(
        !ruled_out.is_empty(),
        "docs/lexicon.md rules words out after `Not:`"
    );
    let mut broken = Vec::new();
    for file in sources() {
        let stem = file
            .path
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs");
        let names = file
            .text
            .lines()
            .enumerate()
            .filter_map(|(i, line)| Some((i + 1, introduced(line)?)));
        for (number, name) in std::iter::once((0, stem)).chain(names) {
            for part in parts(name) {
                if let Some(term) = ruled_out.get(&part) {
                    broken.push(format!(
                        "{}: `{name}` says {part}; the word is **{term}**",
                        file.at(number)
                    ));
                }
            }
        }
    }
    hold("use the word of docs/lexicon.md", broken);
}

#[test]
fn names_are_taken_apart_at_case_and_underscore() {
    assert_eq!(parts("HttpRoute_table"), ["http", "route", "table"]);
    assert_eq!(introduced("pub(crate) fn pick_all(x: u8) {"), Some("pick_all"));
    assert_eq!(introduced("// fn nothing()"), None);
    assert_eq!(introduced("let confn = 1;"), None);
}
