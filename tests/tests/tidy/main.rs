//! The invariants of ARCHITECTURE.md and the rules of CONTRIBUTING.md that a machine can check, over `cargo metadata`,
//! the sources and the documents. Each failure lists every place, and says what to do. Nothing here changes a file.

mod dependencies;
mod documents;
mod lexicon;
mod sources;
mod tree;

/// Fails with every place where a rule does not hold, and the remedy.
#[track_caller]
fn hold(remedy: &str, broken: Vec<String>) {
    assert!(
        broken.is_empty(),
        "{} broken: {remedy}\n  {}",
        if broken.len() == 1 {
            "1 place is"
        } else {
            "places are"
        },
        broken.join("\n  ")
    );
}
