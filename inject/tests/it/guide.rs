//! The guide's table of annotations is the program's.

use std::fs;

use inject::ANNOTATIONS;

const BEGIN: &str = "<!-- annotations: made by `UPDATE=1 cargo test -p inject guide` -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn the_guide_lists_every_annotation() {
    let mut table = String::from("| Annotation | Value | Meaning |\n|---|---|---|\n");
    for annotation in ANNOTATIONS {
        table.push_str(&format!(
            "| `{}` | {} | {} |\n",
            annotation.name, annotation.values, annotation.meaning
        ));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/injection.md");
    let text = fs::read_to_string(path).unwrap();
    let (head, rest) = text
        .split_once(BEGIN)
        .expect("the guide has the place of the table");
    let (committed, tail) = rest.split_once(END).expect("the table has an end");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
        return;
    }
    assert_eq!(committed, table, "run `UPDATE=1 cargo test -p inject guide`");
}
