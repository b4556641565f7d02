//! What every source file keeps to.

use crate::hold;
use crate::tree::{Text, sources};

/// The most lines a file has. Most have 100 to 400.
const MOST_LINES: usize = 500;

/// Modules that decide: data in, decision with its reason out.
const DECISIONS: [&str; 7] = [
    "proxy/src/detect",
    "proxy/src/route",
    "proxy/src/balancer",
    "proxy/src/breaker",
    "proxy/src/outlier",
    "proxy/src/retry",
    "control-plane/src/compile",
];

/// Packages with a binary that is configured; `tests` holds programs of tests, which are told by the lab.
const CONFIGURED: [&str; 3] = ["proxy/src/", "control-plane/src/", "cli/src/"];

fn belongs_to(file: &Text, module: &str) -> bool {
    file.path
        .strip_prefix(module)
        .is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

/// Lines of code (unit tests left out) that hold one of the words.
fn lines_with<'a>(files: impl Iterator<Item = &'a Text>, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.code() {
            let code = line.split("//").next().unwrap_or_default();
            found.extend(
                words
                    .iter()
                    .filter(|w| code.contains(**w))
                    .map(|w| format!("{}: {w}", file.at(number))),
            );
        }
    }
    found
}

#[test]
fn every_file_says_first_what_it_is() {
    // Modules of unit tests are the end of the file beside them, and that one says.
    let belongs = |f: &Text| {
        let inside = f.path.split_once("/src/").map_or("", |(_, inside)| inside);
        inside.ends_with("tests.rs") || inside.contains("tests/")
    };
    let silent = sources()
        .into_iter()
        .filter(|f| !belongs(f) && !f.text.starts_with("//! "));
    hold(
        "begin with `//!`: what the file is, who calls it, what it never does",
        silent.map(|f| f.path).collect(),
    );
}

#[test]
fn no_file_is_long() {
    let long = sources()
        .into_iter()
        .filter(|f| f.text.lines().count() > MOST_LINES);
    hold(
        "split it where its subject splits (`foo.rs` beside `foo/`); 500 lines are the most",
        long.map(|f| format!("{}: {} lines", f.path, f.text.lines().count()))
            .collect(),
    );
}

#[test]
fn nothing_is_left_open() {
    // Put together here, so that this file does not find itself.
    let words = [
        ["to", "do!("],
        ["unimple", "mented!("],
        ["FIX", "ME"],
        ["XX", "X"],
        ["TO", "DO"],
    ]
    .map(|w| w.concat());
    let mut broken = Vec::new();
    for file in sources() {
        for (number, line) in file.text.lines().enumerate() {
            let open = words.iter().filter(|w| line.contains(w.as_str()));
            broken.extend(open.map(|w| format!("{}: {w}", file.at(number + 1))));
        }
    }
    hold("do it now, or leave it out and say so in the issue", broken);
}

#[test]
fn no_test_is_switched_off() {
    let attribute = ["#[ig", "nore"].concat();
    let mut broken = Vec::new();
    for file in sources() {
        let off = file
            .text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains(&attribute));
        broken.extend(off.map(|(number, _)| file.at(number + 1)));
    }
    hold(
        "a test that cannot run here says so when it runs; one that fails is mended or removed",
        broken,
    );
}

#[test]
fn the_environment_is_read_in_one_file_of_each_binary() {
    let all = sources();
    let elsewhere = all
        .iter()
        .filter(|f| CONFIGURED.iter().any(|c| f.path.starts_with(c)) && !f.path.contains("/settings"));
    hold(
        "make it a field of `Settings` and read it in settings.rs",
        lines_with(elsewhere, &["env::var", "env::set_var", "env = \""]),
    );
}

#[test]
fn decisions_are_synchronous_functions_of_data() {
    let all = sources();
    for module in DECISIONS {
        assert!(
            all.iter().any(|f| belongs_to(f, module)),
            "{module} is gone: name in DECISIONS the module that decides now"
        );
    }
    let deciding = all.iter().filter(|f| DECISIONS.iter().any(|d| belongs_to(f, d)));
    hold(
        "a decision waits for nothing and reads no clock, no dice, no socket: hand it in as an argument",
        lines_with(
            deciding,
            &[
                "async fn",
                "async move",
                ".await",
                "Instant::now(",
                "SystemTime::now(",
                "rand::rng(",
                "rand::random",
                "thread_rng",
                "TcpStream",
                "std::fs",
            ],
        ),
    );
}

#[test]
fn the_request_path_takes_no_lock() {
    let all = sources();
    let path = all.iter().filter(|f| {
        [
            "proxy/src/route",
            "proxy/src/balancer",
            "proxy/src/breaker",
            "proxy/src/retry",
            "proxy/src/live",
        ]
        .iter()
        .any(|m| belongs_to(f, m))
    });
    hold(
        "workers share atomics and nothing else (docs/decisions/0004)",
        lines_with(path, &["Mutex<", "RwLock<", "Mutex::new", "RwLock::new"]),
    );
}
