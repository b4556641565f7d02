//! Who may depend on whom: the arrows of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

use crate::hold;
use crate::tree::{files, root, sources};

/// The workspace as cargo resolves it on this machine, without the network.
static WORKSPACE: LazyLock<Metadata> = LazyLock::new(|| {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--offline".to_owned(), format!("--filter-platform={host}")])
        .exec()
        .expect("cargo metadata runs")
});

/// Every package that `name` is built from, itself excluded. `cargo metadata` counts features that only another package
/// asks for, so this may hold more than is built, and never less.
fn built_from(name: &str) -> BTreeSet<&'static str> {
    let names: BTreeMap<&PackageId, &str> = WORKSPACE
        .packages
        .iter()
        .map(|p| (&p.id, p.name.as_str()))
        .collect();
    let resolve = WORKSPACE.resolve.as_ref().expect("was asked for");
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|n| (&n.id, n)).collect();
    let start = WORKSPACE.workspace_members.iter().find(|id| names[id] == name);
    let start = start.unwrap_or_else(|| panic!("the workspace has no package `{name}`"));
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(id) = open.pop() {
        for dependency in &nodes[id].deps {
            let normal = dependency
                .dep_kinds
                .iter()
                .any(|k| k.kind == DependencyKind::Normal);
            if normal && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter().map(|id| names[id]).collect()
}

/// Every package that `name` is built from by itself, with the features that it asks for and no others.
fn built_alone(name: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--package",
            name,
        ])
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("names of packages");
    text.lines()
        .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
        .collect()
}

/// What the manifest of a workspace package names under `[dependencies]`.
fn named_by(name: &str) -> BTreeSet<&'static str> {
    let package = WORKSPACE
        .workspace_packages()
        .into_iter()
        .find(|p| p.name == name);
    let package = package.unwrap_or_else(|| panic!("the workspace has no package `{name}`"));
    let normal = package
        .dependencies
        .iter()
        .filter(|d| d.kind == DependencyKind::Normal);
    normal.map(|d| d.name.as_str()).collect()
}

fn forbid(found: &BTreeSet<&str>, who: &str, forbidden: &[&str], remedy: &str) {
    let broken = forbidden.iter().filter(|f| found.contains(**f));
    hold(remedy, broken.map(|f| format!("{who} depends on {f}")).collect());
}

#[test]
fn the_proxy_knows_nothing_of_kubernetes() {
    forbid(
        &built_from("proxy"),
        "proxy",
        &[
            "kube",
            "kube-core",
            "kube-client",
            "k8s-openapi",
            "crds",
            "control-plane",
            "serde-saphyr",
        ],
        "the proxy is told everything through `api`; compile it in the operator, carry it in a proto",
    );
}

#[test]
fn the_operator_knows_nothing_of_the_proxy() {
    forbid(
        &built_from("control-plane"),
        "control-plane",
        &["proxy"],
        "what both need belongs into `api`",
    );
}

/// It is built from both programs, to say what they would do; nobody else is.
#[test]
fn nothing_is_built_from_the_command_line() {
    for package in WORKSPACE.workspace_packages() {
        if package.name.as_str() != "cli" {
            let name = package.name.as_str();
            forbid(
                &built_from(name),
                name,
                &["cli"],
                "what both need belongs into the crate that decides it",
            );
        }
    }
}

#[test]
fn the_custom_resources_know_nothing_of_the_contract() {
    let found = built_alone("crds");
    forbid(
        // The operator's client of the API server shares a library with them, and with it features.
        &found.iter().map(String::as_str).collect(),
        "crds",
        &["api", "proxy", "control-plane", "tonic", "prost", "tokio"],
        "the operator's `compile` is where the two meet",
    );
}

#[test]
fn the_contract_does_no_input_or_output() {
    forbid(
        &built_from("api"),
        "api",
        &[
            "crds",
            "proxy",
            "control-plane",
            "kube",
            "k8s-openapi",
            "rustls",
            "notify",
        ],
        "`api` is data and conversions; put this where it is used",
    );
    forbid(
        &named_by("api"),
        "api",
        &[
            "tokio",
            "hyper",
            "hyper-util",
            "socket2",
            "nix",
            "axum",
            "tracing",
        ],
        "`api` is data and conversions; put this where it is used",
    );
    let doing = [
        "std::fs",
        "std::process",
        "std::thread",
        "std::env",
        "TcpStream",
        "async fn",
        "tokio::",
        ".await",
    ];
    let mut broken = Vec::new();
    for file in sources().iter().filter(|f| f.path.starts_with("api/src/")) {
        for (number, line) in file.code() {
            broken.extend(
                doing
                    .iter()
                    .filter(|d| line.contains(**d))
                    .map(|d| format!("{}: {d}", file.at(number))),
            );
        }
    }
    hold("`api` is data and conversions; put this where it is used", broken);
}

/// Asked of `cargo tree`, which resolves features as the build does: `cargo metadata` shows providers that are named
/// by features nobody turned on.
#[test]
fn there_is_one_tls_provider() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--offline",
            "--edges=normal,build",
            "--prefix=none",
            "--format={lib}",
        ])
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {errors}");
    let tree = String::from_utf8_lossy(&output.stdout);
    let libraries: BTreeSet<&str> = tree.lines().map(|l| l.trim_end_matches(" (*)")).collect();
    assert!(
        libraries.contains("aws_lc_rs"),
        "cargo tree must show aws-lc-rs:\n{tree}"
    );
    forbid(
        &libraries,
        "the workspace",
        &[
            "ring",
            "openssl",
            "openssl_sys",
            "native_tls",
            "boring",
            "boring_sys",
            "rustls_rustcrypto",
        ],
        "aws-lc-rs is the one provider: `cargo tree -i NAME` shows who asks for it; turn that feature off",
    );
}

#[test]
fn every_version_stands_in_the_workspace_manifest() {
    let mut broken = Vec::new();
    for manifest in files("Cargo.toml") {
        if manifest.path == "Cargo.toml" {
            continue;
        }
        let mut in_dependencies = false;
        for (number, line) in manifest.text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('[') {
                in_dependencies = line.trim_matches(['[', ']']).ends_with("dependencies");
            } else if in_dependencies
                && !line.is_empty()
                && !line.starts_with('#')
                && !line.contains("workspace")
            {
                broken.push(format!("{}: {line}", manifest.at(number + 1)));
            }
        }
    }
    hold(
        "write the version into the root Cargo.toml, and `NAME.workspace = true` here",
        broken,
    );
}

#[test]
fn every_package_keeps_the_lints_of_the_workspace() {
    let mut broken = Vec::new();
    for package in WORKSPACE.workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("the manifest is readable");
        // The entry point that libFuzzer calls is an exported symbol, which counts as unsafe code.
        if package.name != "fuzz" && !manifest.contains("[lints]\nworkspace = true") {
            broken.push(package.manifest_path.to_string());
        }
    }
    hold("add `[lints]` with `workspace = true`", broken);
}
