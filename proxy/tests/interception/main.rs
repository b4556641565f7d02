//! Interception in a real kernel: every case makes a network namespace of its own, lets `hauberk-proxy init` program
//! it, and then dials.
//!
//! Needs root, or user namespaces (some cases need real root and say so). Where neither is allowed the cases are
//! skipped with the reason; with `CI` set that is a failure. No case ever touches the namespace it was started in:
//! each runs in a process of its own, which leaves that namespace before it does anything else.

#![allow(clippy::unwrap_used, reason = "this is a test without the standard harness")]

mod cases;
mod forget;
mod pod;

use std::{
    env,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, ExitCode},
};

/// What a case's process says when it was not permitted what it needs.
const SKIPPED: i32 = 77;

struct Case {
    name: &'static str,
    /// Whether root of a user namespace is not enough: there is one user only, and no lock file for iptables-legacy.
    needs_real_root: bool,
    /// Programs the case must not find, by the start of their names.
    without: Option<&'static [&'static str]>,
    /// What `nft` shall say that the kernel does not have, if a script contains it.
    nft_refuses: Option<&'static str>,
    run: fn(&pod::Pod),
}

const fn case(name: &'static str, run: fn(&pod::Pod)) -> Case {
    Case {
        name,
        needs_real_root: false,
        without: None,
        nft_refuses: None,
        run,
    }
}

const fn root_case(name: &'static str, run: fn(&pod::Pod)) -> Case {
    Case {
        needs_real_root: true,
        ..case(name, run)
    }
}

fn all() -> impl Iterator<Item = &'static Case> {
    cases::ALL.iter().chain(forget::ALL)
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--case", name] => run_case(name),
        ["--far-end"] => pod::far_end(),
        ["--dial-as", uid, target] => pod::dial_as(uid.parse().unwrap(), target.parse().unwrap()),
        ["--fail-as", uid, port, target] => pod::fail_as(
            uid.parse().unwrap(),
            port.parse().unwrap(),
            target.parse().unwrap(),
        ),
        ["--list", ..] => {
            all().for_each(|case| println!("{}: test", case.name));
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
    for case in all() {
        if !filters.is_empty() && !filters.iter().any(|filter| case.name.contains(filter)) {
            continue;
        }
        let programs = tempfile::tempdir().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--case", case.name]);
        if let Some(without) = case.without {
            command.env("PATH", only_network_programs(programs.path(), without));
        }
        if let Some(words) = case.nft_refuses {
            let usual = env::var("PATH").unwrap();
            command.env("PATH", refusing_nft(programs.path(), words, &usual));
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
    let case = all()
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

/// A `PATH` whose `nft` is the usual one, but knows no kernel that has what a script with `words` in it needs.
fn refusing_nft(directory: &Path, words: &str, usual: &str) -> String {
    let nft = directory.join("nft");
    let script = format!(
        "#!/bin/sh
PATH='{usual}'
[ \"$1\" = -f ] || exec nft \"$@\"
input=$(cat)
case \"$input\" in
*'{words}'*) echo 'Error: Could not process rule: Operation not supported' >&2; exit 1 ;;
esac
printf '%s\\n' \"$input\" | nft \"$@\"
"
    );
    std::fs::write(&nft, script).unwrap();
    std::fs::set_permissions(&nft, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{usual}", directory.display())
}
