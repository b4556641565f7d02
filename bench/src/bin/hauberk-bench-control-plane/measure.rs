//! One measurement of one size: from an empty machine to a mesh that has everything, changes one by one, changes at a
//! rate, and an operator that is started anew under all of its proxies.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use bench::processor::time_of;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::fleet::{Applied, Fleet};
use crate::folder::Folder;
use crate::mesh::{HOT, Size, What, mixed};
use crate::operator::{Operator, POLL, Start};
use crate::process::{Memory, memory};
use crate::proxy::{Dialler, Proxy};

/// For how long an idle mesh is looked at.
const IDLE: Duration = Duration::from_secs(10);
/// One in so many changes is one of a route.
const ROUTES: u64 = 10;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Changes of each sort that are made one by one.
    pub(crate) single: usize,
    /// Changes a second.
    pub(crate) rate: u32,
    /// For how long.
    pub(crate) churn: Duration,
    /// No wait is longer than this; what takes longer has failed.
    pub(crate) patience: Duration,
}

/// What one size costs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    pub(crate) size: Size,
    pub(crate) cold: Cold,
    /// On-CPU share of an operator that has nothing to do, in percent of one CPU.
    pub(crate) idle_percent: f64,
    pub(crate) endpoint: Cost,
    pub(crate) route: Cost,
    /// Of the Service that every proxy uses.
    pub(crate) hot_endpoint: Cost,
    pub(crate) hot_route: Cost,
    pub(crate) churn: Churn,
    pub(crate) restart: Restart,
}

/// From the start of the operator until every proxy has everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cold {
    /// Until the operator serves.
    pub(crate) load_seconds: f64,
    /// Until every proxy has acknowledged everything, counted from the operator's start.
    pub(crate) ready_seconds: f64,
    pub(crate) load_cpu_seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) received_mib: f64,
    pub(crate) memory: Memory,
}

/// Changes of one sort.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    pub(crate) changes: usize,
    /// From the change of the file to the last ACK.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// On-CPU time of the operator, a change.
    pub(crate) cpu_ms: f64,
    /// What all proxies received, TLS included, a change.
    pub(crate) received_bytes: f64,
}

/// Changes at a rate.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Churn {
    pub(crate) per_second: f64,
    pub(crate) endpoint: Cost,
    pub(crate) route: Cost,
    pub(crate) operator_percent: f64,
    pub(crate) simulator_percent: f64,
    pub(crate) memory: Memory,
}

/// All proxies come back to a new operator.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Restart {
    /// Until the new operator serves.
    pub(crate) load_seconds: f64,
    /// From then until every proxy is subscribed to everything again; the proxies' back-off included.
    pub(crate) back_seconds: f64,
    /// On-CPU time of the operator for that.
    pub(crate) cpu_seconds: f64,
    pub(crate) received_mib: f64,
    /// Resources that were sent although nothing had changed.
    pub(crate) resources: u64,
    pub(crate) memory: Memory,
}

/// Measures one size, in a new directory below `dir`.
pub(crate) async fn measure(size: Size, plan: &Plan, binary: &Path) -> anyhow::Result<Measured> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let measured = measure_in(dir.path(), size, plan, binary).await;
    if measured.is_err() {
        let kept = dir.keep();
        eprintln!("the operator's log: {}", kept.join("operator.log").display());
    }
    measured
}

async fn measure_in(dir: &Path, size: Size, plan: &Plan, binary: &Path) -> anyhow::Result<Measured> {
    let folder = Folder::write(dir, size)?;
    let start = Start::new(binary, dir, folder.root()).await?;
    let mut operator = start.operator()?;
    let load = operator.ready(plan.patience).await?;
    let fleet = Fleet::new(size);
    let mut mesh = Mesh {
        operator: operator.pid,
        rng: 1,
        fleet,
        folder,
        plan: *plan,
    };
    let mut proxies = JoinSet::new();
    let cold = mesh.cold(&start, &operator, load, &mut proxies).await?;
    let idle_percent = mesh.idle().await?;
    let endpoint = mesh.one_by_one(What::Endpoint, None).await?;
    let route = mesh.one_by_one(What::Route, None).await?;
    let hot_endpoint = mesh.one_by_one(What::Endpoint, Some(HOT)).await?;
    let hot_route = mesh.one_by_one(What::Route, Some(HOT)).await?;
    let churn = mesh.churn(&operator).await?;
    all_applied(&operator, &size, plan.patience).await?;
    operator.stop().await?;
    let restart = mesh.restart(&start).await?;
    Ok(Measured {
        size,
        cold,
        idle_percent,
        endpoint,
        route,
        hot_endpoint,
        hot_route,
        churn,
        restart,
    })
}

/// A mesh under measurement.
struct Mesh {
    fleet: Rc<Fleet>,
    folder: Folder,
    /// The process id of the operator.
    operator: u32,
    rng: u64,
    plan: Plan,
}

impl Mesh {
    async fn cold(
        &mut self,
        start: &Start,
        operator: &Operator,
        load: Duration,
        proxies: &mut JoinSet<()>,
    ) -> anyhow::Result<Cold> {
        let size = self.fleet.size;
        let dialler = Dialler::new(start.listen, &start.state, self.fleet.traffic.clone())?;
        let tokens = (0..size.proxies).map(|number| token(&size, number, &start.state));
        let tokens: Vec<_> = tokens.collect::<anyhow::Result<_>>()?;
        let load_cpu = time_of(self.operator)?;
        let dialling = operator.started.elapsed();
        for (number, token) in tokens.into_iter().enumerate() {
            let proxy = Proxy::new(number, token, dialler.clone(), Rc::clone(&self.fleet));
            proxies.spawn_local(proxy.run());
        }
        self.fleet.all_complete(self.plan.patience).await?;
        // The tokens were made while the operator was ready already.
        let ready = operator.started.elapsed() - (dialling - load);
        Ok(Cold {
            load_seconds: load.as_secs_f64(),
            ready_seconds: ready.as_secs_f64(),
            load_cpu_seconds: load_cpu.as_secs_f64(),
            cpu_seconds: time_of(self.operator)?.as_secs_f64(),
            received_mib: mib(self.fleet.bytes()),
            memory: memory(operator.pid)?,
        })
    }

    async fn idle(&mut self) -> anyhow::Result<f64> {
        // What the start has left to do is none of it.
        sleep(Duration::from_secs(1)).await;
        let (began, before) = (Instant::now(), time_of(self.operator)?);
        sleep(IDLE.min(self.plan.churn)).await;
        Ok(percent(time_of(self.operator)? - before, began.elapsed()))
    }

    /// Changes one by one, each when the one before is applied everywhere: of one Service, or of any that is used.
    async fn one_by_one(&mut self, what: What, of: Option<usize>) -> anyhow::Result<Cost> {
        let (cpu, bytes) = (time_of(self.operator)?, self.fleet.bytes());
        for _ in 0..self.plan.single {
            let service = of.unwrap_or_else(|| self.any_service());
            self.change(what, service)?;
            self.fleet.at_most_waiting(0, self.plan.patience).await?;
        }
        let applied = self.fleet.take_applied();
        let cpu = time_of(self.operator)? - cpu;
        Cost::of(&applied, applied.len(), cpu, self.fleet.bytes() - bytes)
    }

    async fn churn(&mut self, operator: &Operator) -> anyhow::Result<Churn> {
        let (cpu, own, bytes) = (
            time_of(self.operator)?,
            time_of(std::process::id())?,
            self.fleet.bytes(),
        );
        let began = Instant::now();
        let mut tick = interval(Duration::from_secs(1) / self.plan.rate);
        // Late or not, the rate is kept.
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut changes = 0_u64;
        while began.elapsed() < self.plan.churn {
            tick.tick().await;
            let what = if (changes + 1).is_multiple_of(ROUTES) {
                What::Route
            } else {
                What::Endpoint
            };
            let service = self.any_service();
            self.change(what, service)?;
            changes += 1;
        }
        let during = began.elapsed();
        self.fleet.at_most_waiting(0, self.plan.patience).await?;
        let cpu = time_of(self.operator)? - cpu;
        let applied = self.fleet.take_applied();
        let of = |what| {
            applied
                .iter()
                .copied()
                .filter(move |a| a.what == what)
                .collect::<Vec<_>>()
        };
        let cost = |what| Cost::of(&of(what), applied.len(), cpu, self.fleet.bytes() - bytes);
        Ok(Churn {
            per_second: changes as f64 / during.as_secs_f64(),
            endpoint: cost(What::Endpoint)?,
            route: cost(What::Route)?,
            operator_percent: percent(cpu, during),
            simulator_percent: percent(time_of(std::process::id())? - own, during),
            memory: memory(operator.pid)?,
        })
    }

    /// Starts an operator in the place of one that has stopped, and waits until every proxy is back.
    async fn restart(&mut self, start: &Start) -> anyhow::Result<Restart> {
        let size = self.fleet.size;
        let (bytes, resources) = (self.fleet.bytes(), self.fleet.resources());
        let mut operator = start.operator()?;
        let load = operator.ready(self.plan.patience).await?;
        self.operator = operator.pid;
        let cpu = time_of(self.operator)?;
        let deadline = Instant::now() + self.plan.patience;
        let all = (
            size.proxies as f64,
            (size.proxies * size.subscriptions_each()) as f64,
        );
        loop {
            let served = operator.served().await?;
            if served == all {
                break;
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "after the restart {served:?} of {all:?} proxies and subscriptions are back"
            );
            sleep(POLL).await;
        }
        let back = operator.started.elapsed() - load;
        let cpu = time_of(self.operator)? - cpu;
        all_applied(&operator, &size, self.plan.patience).await?;
        let resources = self.fleet.resources() - resources;
        anyhow::ensure!(
            resources == 0,
            "{resources} resources were sent to proxies that had them already"
        );
        // And what comes after the restart still arrives.
        let service = self.any_service();
        self.change(What::Endpoint, service)?;
        self.fleet.at_most_waiting(0, self.plan.patience).await?;
        let restart = Restart {
            load_seconds: load.as_secs_f64(),
            back_seconds: back.as_secs_f64(),
            cpu_seconds: cpu.as_secs_f64(),
            received_mib: mib(self.fleet.bytes() - bytes),
            resources,
            memory: memory(operator.pid)?,
        };
        operator.stop().await?;
        Ok(restart)
    }

    fn change(&mut self, what: What, service: usize) -> anyhow::Result<()> {
        let generation = self.folder.next(what, service);
        self.fleet.expect(what, service, generation);
        self.folder.change(what, service, generation)
    }

    /// A Service that is used, by chance.
    fn any_service(&mut self) -> usize {
        loop {
            let number = mixed(&mut self.rng) % self.fleet.size.services as u64;
            let service = usize::try_from(number).expect("below a usize");
            if !self.fleet.users[service].is_empty() {
                return service;
            }
        }
    }
}

/// Waits until the operator knows that every proxy has applied everything.
async fn all_applied(operator: &Operator, size: &Size, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let status = operator.status().await?;
        let applied: usize = status.proxies.iter().map(|proxy| proxy.applied).sum();
        let all = size.proxies * size.subscriptions_each();
        if applied == all {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "by the operator's own status {applied} of {all} subscriptions are applied"
        );
        sleep(Duration::from_millis(500)).await;
    }
}

fn token(size: &Size, number: usize, state: &Path) -> anyhow::Result<String> {
    const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
    let id = size.identity(number);
    control_plane::authority::mint(state, &id.namespace, &id.service_account, &id.pod, LIFETIME)
}

impl Cost {
    /// `of` are the changes whose time is told, `all` is how many the costs are of.
    fn of(of: &[Applied], all: usize, cpu: Duration, bytes: u64) -> anyhow::Result<Self> {
        let mut times: Vec<_> = of.iter().map(|applied| applied.after).collect();
        times.sort_unstable();
        let last = times
            .len()
            .checked_sub(1)
            .context("nothing was changed: give it more time")?;
        let at = |share: f64| times[(last as f64 * share).round() as usize].as_secs_f64() * 1e3;
        Ok(Self {
            changes: times.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            cpu_ms: cpu.as_secs_f64() * 1e3 / all as f64,
            received_bytes: bytes as f64 / all as f64,
        })
    }
}

fn percent(cpu: Duration, of: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / of.as_secs_f64()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let applied: Vec<_> = (1..=101)
            .rev()
            .map(|ms| Applied {
                what: What::Route,
                after: Duration::from_millis(ms),
            })
            .collect();
        let cost = Cost::of(&applied, 202, Duration::from_secs(2), 404).unwrap();
        assert_eq!((cost.p50_ms, cost.p99_ms, cost.max_ms), (51.0, 100.0, 101.0));
        assert_eq!(cost.received_bytes, 2.0);
        assert!(Cost::of(&[], 0, Duration::ZERO, 0).is_err());
    }
}
