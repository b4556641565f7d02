//! The charts: that their values are documented and typed, that their names and ports are the code's, that the roles are
//! what the code's table says, and that what Helm renders is what an API server would take whole.
//!
//! `UPDATE=1 cargo test -p control-plane --test charts` rewrites what is made: the roles, the descriptions in the schema,
//! and the guide's table of values.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod rbac;
mod render;
mod values;

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path} must be there: {e}"))
}

/// Compares a file that is made with what was made, or writes it.
#[track_caller]
fn hold(path: &str, made: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(root().join(path), made).unwrap();
        return;
    }
    assert!(
        read(path) == made,
        "{path} is out of date: run `UPDATE=1 cargo test -p control-plane --test charts`"
    );
}

#[test]
fn charts_have_the_version_of_the_programs() {
    for chart in ["hauberk", "hauberk-crds"] {
        let text = read(&format!("charts/{chart}/Chart.yaml"));
        for line in ["version", "appVersion"] {
            let line = format!("\n{line}: {}\n", env!("CARGO_PKG_VERSION"));
            assert!(
                text.contains(&line),
                "charts/{chart}/Chart.yaml has no line {line:?}"
            );
        }
    }
}
