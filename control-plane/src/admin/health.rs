//! How the operator is: its process, its disk, and each part it depends on. Examined anew for each question.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Admin;
use crate::authority::Signs;
use crate::source::{Failing, Feed};

/// A hub that takes longer than this for one event does not work any more.
const HUB: Duration = Duration::from_secs(5);
/// Below this the state directory's disk is as good as full.
const LOW_DISK: u64 = 16 << 20;
/// A root that ends within this time must be rotated now.
const ROOT_ENDS: Duration = Duration::from_secs(30 * 24 * 3600);
/// An intermediate that ends within this time must be replaced now; whoever issues it may give it a short life.
const INTERMEDIATE_ENDS: Duration = Duration::from_secs(3 * 24 * 3600);

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// As it should be.
    Ok,
    /// Works, but someone should look.
    Degraded,
    /// Not there yet.
    Starting,
    /// Does not work.
    Failing,
}

/// How the operator is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The worst of all.
    pub status: Standing,
    /// Time since the start.
    pub uptime_seconds: u64,
    /// What the process costs.
    pub process: Process,
    /// The disk of the state directory.
    pub disk: Option<Disk>,
    /// What the operator depends on.
    pub dependencies: Vec<Dependency>,
}

/// What the process costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Processor time since the start.
    pub cpu_seconds: f64,
    /// Memory in use.
    pub resident_bytes: u64,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// A directory on it.
    pub path: String,
    /// What is free of it.
    pub free_bytes: u64,
}

/// A part that the operator depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// How it is.
    pub status: Standing,
    /// What there is to say.
    pub detail: String,
    /// How long it took to answer.
    pub latency_ms: Option<f64>,
    /// Time since it changed last.
    pub last_change_seconds: Option<u64>,
}

impl Dependency {
    fn new(name: &str, status: Standing, detail: String) -> Self {
        Self {
            name: name.to_owned(),
            status,
            detail,
            latency_ms: None,
            last_change_seconds: None,
        }
    }
}

impl Health {
    /// Whether the process works; one that does not is best started anew.
    #[must_use]
    pub fn live(&self) -> bool {
        let hub = self.dependencies.iter().find(|d| d.name == "hub");
        hub.is_some_and(|hub| hub.status != Standing::Failing)
    }

    /// Whether it can serve proxies.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.status <= Standing::Degraded
    }
}

pub(crate) async fn examine(admin: &Admin) -> Health {
    let disk = admin.authority.state_dir().and_then(disk);
    let mut dependencies = vec![source(admin), authority(admin), hub(admin).await];
    let state_dir = admin.authority.state_dir();
    dependencies.extend(state_dir.map(|path| self::state_dir(path, disk.as_ref())));
    let worst = dependencies.iter().map(|d| d.status).max();
    Health {
        status: worst.unwrap_or(Standing::Ok),
        uptime_seconds: admin.started.elapsed().as_secs(),
        process: process(),
        disk,
        dependencies,
    }
}

fn source(admin: &Admin) -> Dependency {
    let report = admin.source.borrow().clone();
    let feeds = report
        .feeds
        .map(|feeds| feeds.borrow().clone())
        .unwrap_or_default();
    let (status, detail) = standing(report.loaded, report.problems.len(), &feeds);
    Dependency {
        last_change_seconds: report.changed.map(|at| at.elapsed().as_secs()),
        ..Dependency::new("source", status, detail)
    }
}

/// What was read once stays in force, so a source that cannot be followed is no reason to serve nobody.
fn standing(loaded: bool, problems: usize, feeds: &[Feed]) -> (Standing, String) {
    let mut details: Vec<String> = feeds
        .iter()
        .filter_map(|feed| Some((feed.kind, feed.failing.as_ref()?)))
        .map(|(kind, Failing { since, problem })| {
            let seconds = since.elapsed().as_secs();
            format!("{kind} is stale since {seconds} s: {problem}")
        })
        .collect();
    if !loaded {
        let missing: Vec<_> = feeds
            .iter()
            .filter(|f| !f.listed)
            .map(|f| f.kind.name())
            .collect();
        let missing = match missing.is_empty() {
            true => String::new(),
            false => format!(": {} is missing", missing.join(", ")),
        };
        details.insert(0, format!("not everything has been read yet{missing}"));
        return (Standing::Starting, details.join("; "));
    }
    if problems > 0 {
        details.push(format!(
            "{problems} files or objects cannot be read; /status lists them"
        ));
    }
    match details.is_empty() {
        true => (Standing::Ok, "everything is read".to_owned()),
        false => (Standing::Degraded, details.join("; ")),
    }
}

fn authority(admin: &Admin) -> Dependency {
    let health = admin.authority.health();
    let left = health.expires.duration_since(SystemTime::now());
    let (status, detail) = match left {
        Err(_) => (
            Standing::Failing,
            "what signs has expired: rotate it with `rotate-root`, or replace the intermediate if you brought one"
                .to_owned(),
        ),
        Ok(left) => {
            let days = left.as_secs() / 86400;
            let ends = match health.signs {
                Signs::Root(_) => ROOT_ENDS,
                Signs::Issuer => INTERMEDIATE_ENDS,
            };
            let status = if left < ends || health.problem.is_some() {
                Standing::Degraded
            } else {
                Standing::Ok
            };
            let roots = health.roots;
            let problem = health.problem.map(|p| format!("; {p}")).unwrap_or_default();
            (
                status,
                format!("roots in the bundle: {roots}; what signs ends in {days} days{problem}"),
            )
        }
    };
    Dependency::new("authority", status, detail)
}

async fn hub(admin: &Admin) -> Dependency {
    match tokio::time::timeout(HUB, admin.hub.ping()).await {
        Ok(Some(latency)) => {
            let proxies = admin.metrics.push.sessions.get();
            Dependency {
                latency_ms: Some(latency.as_secs_f64() * 1e3),
                ..Dependency::new("hub", Standing::Ok, format!("connected proxies: {proxies}"))
            }
        }
        Ok(None) => Dependency::new("hub", Standing::Failing, "has stopped".to_owned()),
        Err(_) => Dependency::new(
            "hub",
            Standing::Failing,
            format!("has not answered for {} s", HUB.as_secs()),
        ),
    }
}

fn state_dir(path: &Path, disk: Option<&Disk>) -> Dependency {
    let path = path.display();
    let (status, detail) = match disk {
        None => (Standing::Degraded, format!("{path} cannot be examined")),
        Some(disk) if disk.free_bytes < LOW_DISK => {
            (Standing::Degraded, format!("the disk of {path} is nearly full"))
        }
        Some(_) => (Standing::Ok, format!("{path} is there")),
    };
    Dependency::new("state-dir", status, detail)
}

fn disk(path: &Path) -> Option<Disk> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some(Disk {
        path: path.display().to_string(),
        free_bytes: stat.blocks_available().saturating_mul(stat.fragment_size()),
    })
}

/// What the process costs, as the kernel counts it; zeros where there is no /proc.
pub(crate) fn process() -> Process {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    Process {
        cpu_seconds: cpu_seconds(&read("/proc/self/stat")).unwrap_or_default(),
        resident_bytes: resident_bytes(&read("/proc/self/status")).unwrap_or_default(),
    }
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // Of the interface to user space: fixed, whatever the kernel's own tick.
    const TICKS_PER_SECOND: f64 = 100.0;
    // The name of the process may hold anything, so the fields are counted from the parenthesis that ends it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok().map(f64::from);
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read_whatever_the_process_is_called() {
        let stat = "77 (a) b (c)) S 1 77 77 0 -1 4194560 900 0 3 0 250 50 0 0 20 0 3 0 4711 12345 25";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    1024 kB\n"), Some(1 << 20));
        for bad in ["", "x", "1 (a", "1 (a) S 1 2", "VmRSS: many kB"] {
            assert_eq!((cpu_seconds(bad), resident_bytes(bad)), (None, None), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stale_source_is_told_and_does_not_end_readiness() {
        use crds::Kind::{Pod, VirtualService};
        let feed = |kind, listed, problem: Option<&str>| Feed {
            kind,
            listed,
            heard: None,
            failing: problem.map(|problem| Failing {
                since: tokio::time::Instant::now(),
                problem: problem.to_owned(),
            }),
        };
        let bad = feed(VirtualService, false, Some("not installed"));
        let feeds = [feed(Pod, true, None), bad];
        tokio::time::advance(Duration::from_secs(7)).await;
        for (loaded, problems, feeds, status, says) in [
            (true, 0, &feeds[..1], Standing::Ok, vec!["everything is read"]),
            (
                true,
                2,
                &feeds[..1],
                Standing::Degraded,
                vec!["2 files or objects"],
            ),
            (
                true,
                0,
                &feeds,
                Standing::Degraded,
                vec!["VirtualService is stale since 7 s", "not installed"],
            ),
            (
                false,
                0,
                &feeds,
                Standing::Starting,
                vec!["yet: VirtualService is missing", "not installed"],
            ),
            (
                false,
                0,
                &[],
                Standing::Starting,
                vec!["not everything has been read yet"],
            ),
        ] {
            let (found, detail) = standing(loaded, problems, feeds);
            assert_eq!(found, status, "{detail}");
            assert!(says.iter().all(|part| detail.contains(part)), "{detail}");
            assert!(found <= Standing::Degraded || !loaded);
        }
    }

    #[test]
    fn this_process_uses_memory_and_this_disk_is_there() {
        assert!(process().resident_bytes > 0);
        assert!(disk(Path::new("/")).is_some());
    }
}
