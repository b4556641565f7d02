//! Pods of many shapes, each in a file, and beside it what injection makes of it: `x.yaml` and `x.out.yaml`, or
//! `x.refused.txt`. `UPDATE=1 cargo test -p inject golden` rewrites what is made; read the difference before you commit it.
//!
//! The first lines of a file say what it is about. A line `# config: {…}` is the installation's configuration.

use std::fs;
use std::path::{Path, PathBuf};

use inject::{Config, inject, patch};
use k8s_openapi::api::core::v1::Pod;

/// Whether what is made is written instead of compared.
fn update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// A file of the folder.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) pod: Pod,
    path: PathBuf,
}

/// Every file that goes in.
pub(crate) fn cases() -> Vec<Case> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(".yaml") && !name.ends_with(".out.yaml")
    });
    paths.sort();
    assert!(paths.len() >= 15, "{} has the pods", folder.display());
    paths.into_iter().map(Case::read).collect()
}

impl Case {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let config = text
            .lines()
            .find_map(|line| line.strip_prefix("# config: "))
            .unwrap_or("{}");
        let named = |e: serde_saphyr::Error| format!("{}: {e}", path.display());
        Self {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            config: serde_saphyr::from_str(config).map_err(named).unwrap(),
            pod: serde_saphyr::from_str(&text).map_err(named).unwrap(),
            path,
        }
    }

    /// The injected pod; none where it is refused.
    pub(crate) fn injected(&self) -> Option<Pod> {
        inject(&self.pod, "shop", &self.config).ok()
    }

    /// What is made of it, with the ending of its file.
    fn outcome(&self) -> (&'static str, String) {
        match inject(&self.pod, "shop", &self.config) {
            Ok(pod) => ("out.yaml", serde_saphyr::to_string(&pod).unwrap()),
            Err(problems) => {
                let lines = problems.iter().map(|problem| format!("{problem}\n"));
                ("refused.txt", lines.collect())
            }
        }
    }
}

#[test]
fn every_pod_comes_out_as_written_down() {
    let mut wrong = String::new();
    for case in cases() {
        let (ending, made) = case.outcome();
        assert_eq!(
            ending == "refused.txt",
            case.name.starts_with("refused-"),
            "{}: {made}",
            case.name
        );
        let path = case.path.with_extension(ending);
        if update() {
            fs::write(&path, &made).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        if committed != made {
            wrong += &format!("{}\n{}", path.display(), difference(&committed, &made));
        }
    }
    assert!(
        wrong.is_empty(),
        "`UPDATE=1 cargo test -p inject golden` rewrites these:\n{wrong}"
    );
}

#[test]
fn injecting_twice_is_injecting_once() {
    for case in cases() {
        if let Some(once) = case.injected() {
            let twice = inject(&once, "shop", &case.config).unwrap();
            assert_eq!(twice, once, "{}", case.name);
            assert!(patch(&once, &twice).is_empty());
        }
    }
}

#[test]
fn a_pod_that_another_version_injected_is_brought_to_this_one() {
    let older = |native| Config {
        image: "hauberk-proxy:older".to_owned(),
        operator: "https://elsewhere:1".to_owned(),
        native,
        drain_timeout: "1s".parse().unwrap(),
        skip_outbound_ports: "1".parse().unwrap(),
        ..Config::default()
    };
    for case in cases() {
        for native in [false, true] {
            let Ok(before) = inject(&case.pod, "shop", &older(native)) else {
                continue;
            };
            let now = inject(&before, "shop", &case.config).unwrap();
            let mut direct = inject(&case.pod, "shop", &case.config).unwrap();
            // A grace period is only ever raised, and an empty list may have become none.
            let (spec, expected) = (now.spec.clone().unwrap(), direct.spec.as_mut().unwrap());
            expected.termination_grace_period_seconds = spec.termination_grace_period_seconds;
            assert_eq!(probes_as_numbers(now), probes_as_numbers(direct), "{}", case.name);
        }
    }
}

/// Where a probe stays the application's, a port that had a name has its number after a rewriting and back.
fn probes_as_numbers(pod: Pod) -> serde_json::Value {
    let mut value = serde_json::to_value(pod).unwrap();
    let containers = value
        .pointer_mut("/spec/containers")
        .unwrap()
        .as_array_mut()
        .unwrap();
    for container in containers {
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            if let Some(http) = container.pointer_mut(&format!("/{probe}/httpGet")) {
                let filled = http.as_object_mut().unwrap();
                filled.entry("path").or_insert("/".into());
                filled.entry("scheme").or_insert("HTTP".into());
            }
        }
    }
    value
}

#[test]
fn the_patch_makes_the_injected_pod() {
    for case in cases() {
        if let Some(after) = case.injected() {
            let mut value = serde_json::to_value(&case.pod).unwrap();
            json_patch::patch(&mut value, &patch(&case.pod, &after)).unwrap();
            assert_eq!(value, serde_json::to_value(&after).unwrap(), "{}", case.name);
        }
    }
}

/// Lines that are gone with `-`, lines that are new with `+`, by the longest common subsequence.
fn difference(before: &str, after: &str) -> String {
    let (a, b): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let mut longest = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i][j] = if a[i] == b[j] {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            out += &format!("-{:4} {}\n", i + 1, a[i]);
            i += 1;
        } else {
            out += &format!("+{:4} {}\n", j + 1, b[j]);
            j += 1;
        }
    }
    out
}

#[test]
fn a_difference_shows_what_is_gone_and_what_is_new() {
    assert_eq!(
        difference("a\nb\nc\n", "a\nx\nc\nd\n"),
        "-   2 b\n+   2 x\n+   4 d\n"
    );
    assert_eq!(difference("a\n", "a\n"), "");
}
