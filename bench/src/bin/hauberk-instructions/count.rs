//! Counts cases under valgrind, one process for each count and as many at once as there are cores. Everything that could
//! make two runs of one build differ is the same for all: no environment, no randomised addresses, one choice of the C
//! library's string functions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};

use crate::cases::Case;

/// Instructions of one operation, by case.
pub(crate) type Counted = BTreeMap<&'static str, u64>;

/// One process to run.
struct Run<'a> {
    case: &'a Case,
    without: bool,
    twice: bool,
}

/// Counts every case. The profile of each is kept in `profiles`.
pub(crate) fn count(cases: &[&Case], profiles: Option<&Path>) -> anyhow::Result<Counted> {
    let kept;
    let folder = match profiles {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
            folder
        }
        None => {
            kept = tempfile::tempdir().context("making a folder for profiles")?;
            kept.path()
        }
    };
    let runs: Vec<Run<'_>> = cases
        .iter()
        .flat_map(|case| {
            let both = if case.without.is_some() {
                &[false, true][..]
            } else {
                &[false]
            };
            both.iter().flat_map(move |without| {
                [true, false].map(|twice| Run {
                    case,
                    without: *without,
                    twice,
                })
            })
        })
        .collect();
    let totals = all(&runs, folder)?;
    let total = |case: &Case, without, twice| {
        let run = runs
            .iter()
            .position(|r| r.case.name == case.name && r.without == without && r.twice == twice);
        totals[run.expect("every count was run")]
    };
    let each = |case: &Case, without| {
        let more = total(case, without, true).saturating_sub(total(case, without, false));
        more / u64::from(case.iterations)
    };
    Ok(cases
        .iter()
        .map(|case| {
            let subtracted = case.without.map_or(0, |_| each(case, true));
            (case.name, each(case, false).saturating_sub(subtracted))
        })
        .collect())
}

/// Runs all, and gives the total of each.
fn all(runs: &[Run<'_>], folder: &Path) -> anyhow::Result<Vec<u64>> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(run) = runs.get(index) else {
                        return;
                    };
                    let total = run.total(folder);
                    done.lock().expect("no thread panics").insert(index, total);
                }
            });
        }
    });
    let done = done.into_inner().expect("no thread panics");
    done.into_values().collect()
}

impl Run<'_> {
    fn total(&self, folder: &Path) -> anyhow::Result<u64> {
        let Self { case, without, twice } = self;
        let profile = match (without, twice) {
            (false, true) => format!("{}.callgrind", case.name.replace('/', "-")),
            (without, twice) => format!("{}-{without}-{twice}", case.name.replace('/', "-")),
        };
        let profile = folder.join(profile);
        let this = std::env::current_exe().context("finding this program")?;
        let mut command = Command::new("setarch");
        command
            .args(["--addr-no-randomize", "valgrind", "--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(this)
            .args(["--once", case.name, "--iterations"])
            .arg((case.iterations * if *twice { 2 } else { 1 }).to_string());
        if *without {
            command.arg("--without");
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", path)
            // Which memcpy the C library takes depends on these bits of the processor.
            .env("GLIBC_TUNABLES", TUNABLES)
            // The allocator gives memory back when a clock says so: not here.
            .env("MIMALLOC_PURGE_DELAY", "-1")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let output = command.output().context(
            "starting setarch and valgrind (Debian: util-linux, valgrind; `make setup` installs them)",
        )?;
        if !output.status.success() {
            bail!(
                "{}: {}: {}",
                case.name,
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let text = std::fs::read_to_string(&profile)
            .with_context(|| format!("{}: reading the profile that valgrind wrote", case.name))?;
        let totals = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
        let total = totals.and_then(|total| total.trim().parse().ok());
        total.with_context(|| format!("{}: no total in the profile of valgrind", case.name))
    }
}

/// Leaves the C library the instructions that every processor of this kind has.
const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-RTM";
