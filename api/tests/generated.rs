//! Holds the committed code in `src/generated` to the protos in `proto/`. `UPDATE=1 cargo test -p api` rewrites it.

use std::path::{Path, PathBuf};

fn generate(into: &Path) {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = protox::compile([root.join("hauberk/v1/config.proto")], [&root]).expect("protos compile");
    tonic_prost_build::configure()
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .out_dir(into)
        .compile_fds(files)
        .expect("code is generated");
}

#[test]
fn generated_code_is_current() {
    let fresh = tempfile::tempdir().unwrap();
    generate(fresh.path());
    let committed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/generated/hauberk.v1.rs");
    let new = std::fs::read_to_string(fresh.path().join("hauberk.v1.rs")).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&committed, new).unwrap();
        return;
    }
    let old = std::fs::read_to_string(&committed).unwrap_or_default();
    assert!(
        old == new,
        "src/generated is out of date: run `UPDATE=1 cargo test -p api --test generated`"
    );
}
