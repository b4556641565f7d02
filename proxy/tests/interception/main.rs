//! Interception in a real kernel: every case makes a network namespace of its own, lets `hauberk-proxy init` program
//! it, and then dials.
//!
//! Needs root, or user namespaces (some cases need real root and say so). Where neither is allowed the cases are
//! skipped with the reason; with `CI` set that is a failure. No case ever touches the namespace it was started in:
//! each runs in a process of its own, which leaves that namespace before it does anything else.

#![allow(clippy::unwrap_used, reason = "this is a test without the standard harness")]

mod cases;
mod pod;

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
};

/// What a case's process says when it was not permitted what it needs.
const SKIPPED: i32 = 77;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--case", name] => run_case(name),
        ["--far-end"] => pod::far_end(),
        ["--dial-as", uid, target] => pod::dial_as(uid.parse().unwrap(), target.parse().unwrap()),
        ["--list", ..] => {
            cases::ALL.iter().for_each(|case| println!("{}: test", case.name));
            ExitCode::SUCCESS
        }
        words => run_all(
            words
                .iter()
                .copied()
                .filter(|word| !word.starts_with("--"))
                .collect(),
        ),
    }
}

fn run_all(filters: Vec<&str>) -> ExitCode {
    let (mut passed, mut skipped, mut failed) = (0, 0, 0);
    for case in cases::ALL {
        if !filters.is_empty() && !filters.iter().any(|filter| case.name.contains(filter)) {
            continue;
        }
        let programs = tempfile::tempdir().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--case", case.name]);
        if let Some(without) = case.without {
            command.env("PATH", only_network_programs(programs.path(), without));
        }
        let output = command.output().unwrap();
        match output.status.code() {
            Some(0) => {
                passed += 1;
                println!("test {} ... ok", case.name);
            }
            Some(SKIPPED) => {
                skipped += 1;
                println!(
                    "test {} ... skipped: {}",
                    case.name,
                    String::from_utf8_lossy(&output.stdout).trim()
                );
            }
            _ => {
                failed += 1;
                println!("test {} ... FAILED", case.name);
                println!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }
    println!("\n{passed} passed; {failed} failed; {skipped} skipped");
    let skipping_is_a_failure = env::var_os("CI").is_some() && skipped > 0;
    if failed > 0 || skipping_is_a_failure {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn run_case(name: &str) -> ExitCode {
    let case = cases::ALL
        .iter()
        .find(|case| case.name == name)
        .expect("the runner names an existing case");
    match pod::Pod::enter() {
        Ok(pod) if case.needs_real_root && !pod.real_root => {
            println!("needs real root");
            drop(pod);
            std::process::exit(SKIPPED)
        }
        Ok(pod) => {
            (case.run)(&pod);
            ExitCode::SUCCESS
        }
        Err(reason) => {
            println!("{reason}");
            std::process::exit(SKIPPED)
        }
    }
}

/// A `PATH` with everything of the usual one that programs the network, except what starts with one of `without`.
fn only_network_programs(directory: &Path, without: &[&str]) -> String {
    for from in ["/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        let Ok(entries) = std::fs::read_dir(from) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let wanted = name == "ip" || name == "nft" || name.contains("tables");
            let link = directory.join(&name);
            if wanted && !without.iter().any(|prefix| name.starts_with(prefix)) && !link.exists() {
                std::os::unix::fs::symlink(entry.path(), link).unwrap();
            }
        }
    }
    directory.to_str().unwrap().to_owned()
}
