//! The stored baseline, and the comparison with it. Counts belong to one compiler and to one set of processor features:
//! with others nothing is compared.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::count::Counted;

/// More than this above the baseline is not accepted; more than this below asks for a new baseline.
const TOLERANCE_PERCENT: f64 = 5.0;

/// What is stored.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    /// What the counts belong to.
    built: Built,
    /// Instructions of one operation.
    cases: BTreeMap<String, u64>,
}

/// What counts depend on beside the code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Built {
    rustc: String,
    /// Features of it that libraries choose code by.
    processor: String,
}

impl Built {
    /// Those of this run.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let output = Command::new("rustc").arg("--version").output();
        let output = output.context("asking rustc for its version")?;
        let rustc = String::from_utf8(output.stdout).context("rustc's version")?;
        Ok(Self {
            rustc: rustc.trim().to_owned(),
            processor: processor().to_owned(),
        })
    }
}

impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.rustc, self.processor)
    }
}

#[cfg(target_arch = "x86_64")]
fn processor() -> &'static str {
    if std::is_x86_feature_detected!("avx2") {
        "x86_64 with AVX2"
    } else {
        "x86_64"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> &'static str {
    std::env::consts::ARCH
}

impl Baseline {
    /// Reads what is stored; nothing is stored where there is no file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{}; remedy: remove it, and {ACCEPT}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Takes what was counted as the new baseline: of these cases, or instead of all that is stored.
    pub(crate) fn accept(&mut self, built: Built, counted: &Counted, all: bool) -> anyhow::Result<()> {
        ensure!(
            all || self.built == built,
            "the baseline belongs to {}, this is {built}; remedy: count all cases",
            self.built
        );
        if all {
            self.cases.clear();
        }
        self.built = built;
        let counted = counted.iter().map(|(name, count)| ((*name).to_owned(), *count));
        self.cases.extend(counted);
        Ok(())
    }

    /// Stores it.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("writing the baseline")?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Compares what was counted. `known` are all cases there are.
    pub(crate) fn compare(&self, built: &Built, counted: &Counted, known: &[&str]) -> Report {
        let comparable = self.built == *built;
        let rows = counted.iter().map(|(name, now)| {
            let before = self.cases.get(*name).copied().filter(|_| comparable);
            let verdict = match before {
                None if comparable => Verdict::New,
                None => Verdict::Unknown,
                Some(before) => Verdict::of(before, *now),
            };
            Row {
                name: (*name).to_owned(),
                now: *now,
                before,
                verdict,
            }
        });
        Report {
            rows: rows.collect(),
            gone: self
                .cases
                .keys()
                .filter(|name| !known.contains(&name.as_str()))
                .cloned()
                .collect(),
            other: (!comparable).then(|| (self.built.clone(), built.clone())),
        }
    }
}

const ACCEPT: &str = "`UPDATE=1 make instructions`";

/// What came of a comparison. `Display` is the table, and what is to be done.
#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    /// Cases of the baseline that are no more.
    gone: Vec<String>,
    /// The baseline belongs to the first, this run to the second.
    other: Option<(Built, Built)>,
}

#[derive(Debug)]
struct Row {
    name: String,
    now: u64,
    before: Option<u64>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// As before, within the tolerance.
    Same,
    Worse,
    Better,
    /// Not in the baseline.
    New,
    /// Nothing to compare with.
    Unknown,
}

impl Verdict {
    fn of(before: u64, now: u64) -> Self {
        let percent = change(before, now);
        if percent > TOLERANCE_PERCENT {
            Self::Worse
        } else if percent < -TOLERANCE_PERCENT {
            Self::Better
        } else {
            Self::Same
        }
    }
}

/// From `before` to `now`, in percent of `before`.
fn change(before: u64, now: u64) -> f64 {
    (now as f64 - before as f64) / before.max(1) as f64 * 100.0
}

impl Report {
    /// Whether nothing costs more than the baseline allows, and the baseline names what there is.
    pub(crate) fn holds(&self) -> bool {
        let bad = |row: &Row| matches!(row.verdict, Verdict::Worse | Verdict::New);
        self.other.is_some() || self.gone.is_empty() && !self.rows.iter().any(bad)
    }

    fn named(&self, verdict: Verdict) -> Option<String> {
        let names = self.rows.iter().filter(|row| row.verdict == verdict);
        let names: Vec<_> = names.map(|row| row.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self
            .rows
            .iter()
            .map(|row| row.name.len())
            .max()
            .unwrap_or(0)
            .max(4);
        writeln!(
            f,
            "{:wide$}  {:>14}  {:>10}  {:>8}",
            "case", "instructions", "baseline", "change"
        )?;
        for Row {
            name, now, before, ..
        } in &self.rows
        {
            let (stored, change) = match before {
                Some(before) => (before.to_string(), format!("{:+.1} %", change(*before, *now))),
                None => ("-".to_owned(), "-".to_owned()),
            };
            writeln!(f, "{name:wide$}  {now:>14}  {stored:>10}  {change:>8}")?;
        }
        if let Some((stored, now)) = &self.other {
            let stored = if stored.rustc.is_empty() {
                "nothing".to_owned()
            } else {
                stored.to_string()
            };
            return writeln!(
                f,
                "not compared: the baseline belongs to {stored}, this is {now}; {ACCEPT} makes a new one"
            );
        }
        if let Some(names) = self.named(Verdict::Worse) {
            writeln!(
                f,
                "more than {TOLERANCE_PERCENT} % above the baseline: {names}; make them cheaper, or accept with {ACCEPT} and \
                 say why in the commit"
            )?;
        }
        if let Some(names) = self.named(Verdict::Better) {
            writeln!(
                f,
                "more than {TOLERANCE_PERCENT} % below the baseline: {names}; keep it so with {ACCEPT}"
            )?;
        }
        if let Some(names) = self.named(Verdict::New) {
            writeln!(f, "not in the baseline yet: {names}; add with {ACCEPT}")?;
        }
        if !self.gone.is_empty() {
            writeln!(
                f,
                "in the baseline, but no case any more: {}; drop with {ACCEPT}",
                self.gone.join(", ")
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(rustc: &str) -> Built {
        Built {
            rustc: rustc.to_owned(),
            processor: "any".to_owned(),
        }
    }

    fn baseline(cases: &[(&'static str, u64)]) -> Baseline {
        let mut baseline = Baseline::default();
        let counted = cases.iter().copied().collect();
        baseline.accept(built("1"), &counted, true).unwrap();
        baseline
    }

    #[test]
    fn only_what_costs_more_than_the_tolerance_fails() {
        let stored = baseline(&[("a", 1000), ("b", 1000), ("c", 1000)]);
        let table = [(1050, true), (1051, false), (1000, true), (949, true), (0, true)];
        for (now, holds) in table {
            let counted = Counted::from([("a", now), ("b", 1000)]);
            let report = stored.compare(&built("1"), &counted, &["a", "b", "c"]);
            assert_eq!(report.holds(), holds, "{now}\n{report}");
            let told = report.to_string();
            assert_eq!(told.contains("above the baseline: a;"), !holds, "{told}");
            assert_eq!(told.contains("below the baseline: a;"), now < 950, "{told}");
        }
    }

    #[test]
    fn a_case_without_baseline_fails_and_so_does_a_baseline_without_case() {
        let stored = baseline(&[("a", 1)]);
        let new = stored.compare(&built("1"), &Counted::from([("a", 1), ("b", 1)]), &["a", "b"]);
        assert!(
            !new.holds() && new.to_string().contains("not in the baseline yet: b;"),
            "{new}"
        );
        let gone = stored.compare(&built("1"), &Counted::from([("b", 1)]), &["b"]);
        assert!(
            !gone.holds() && gone.to_string().contains("no case any more: a;"),
            "{gone}"
        );
    }

    #[test]
    fn counts_of_another_compiler_are_not_compared() {
        let stored = baseline(&[("a", 1)]);
        let report = stored.compare(&built("2"), &Counted::from([("a", 100)]), &["a"]);
        assert!(
            report.holds() && report.to_string().contains("not compared"),
            "{report}"
        );
    }

    #[test]
    fn some_cases_are_accepted_without_touching_the_others() {
        let mut stored = baseline(&[("a", 1), ("b", 1)]);
        stored
            .accept(built("1"), &Counted::from([("a", 2)]), false)
            .unwrap();
        assert_eq!(
            stored.cases,
            BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)])
        );
        let error = stored
            .accept(built("2"), &Counted::from([("a", 2)]), false)
            .unwrap_err();
        assert!(error.to_string().contains("count all cases"), "{error}");
        stored
            .accept(built("2"), &Counted::from([("a", 2)]), true)
            .unwrap();
        assert_eq!(stored.cases, BTreeMap::from([("a".to_owned(), 2)]));
    }
}
