//! The proxy of one pod: redirect, program, admin port.
//!
//! Started by [`launch`](super::launch) as a kubelet would start the injected containers; afterwards a test may kill,
//! restart and question it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};

use super::binaries::Binary;
use super::enter::Privileges;
use super::hub::hub;
use super::pod::Pod;
use super::poll::eventually;
use super::process::{Process, Signal};
use super::{APP_CONTROL_PORTS, metrics};
use crate::client::{Call, Reply};

/// The proxy's admin, health and metrics port.
pub const ADMIN_PORT: u16 = 15_020;
/// The user id that a proxy runs under, which the redirect leaves alone.
const PROXY_UID: &str = "1337";
const READY_WITHIN: Duration = Duration::from_secs(20);
const INIT_WITHIN: Duration = Duration::from_secs(20);

/// The proxy in a pod.
#[derive(Debug)]
pub struct Proxy {
    pod: Pod,
    environment: BTreeMap<String, String>,
    process: Mutex<Option<Arc<Process>>>,
}

impl Proxy {
    /// A proxy that is not started yet.
    pub(super) fn new(pod: Pod, environment: BTreeMap<String, String>) -> Proxy {
        Proxy {
            pod,
            environment,
            process: Mutex::new(None),
        }
    }

    /// Redirects the pod's traffic, as the init container does.
    pub(super) async fn redirect(&self, skip_inbound: &[u16], more: &[String]) -> anyhow::Result<()> {
        let own = std::iter::once(ADMIN_PORT).chain(APP_CONTROL_PORTS);
        let skip: Vec<String> = own
            .chain(skip_inbound.iter().copied())
            .map(|port| port.to_string())
            .collect();
        let mut command = lab_command(&Binary::Proxy.path()?);
        command
            .arg("init")
            .args(["--outbound-port", "15001", "--inbound-port", "15006"]);
        command.args(["--skip-inbound-ports", &skip.join(",")]);
        match hub()?.privileges {
            Privileges::Root => command.args(["--proxy-uid", PROXY_UID]),
            Privileges::Rootless => command.args(["--exclude-mark", PROXY_UID]),
        };
        command.args(more);
        self.init(command).await
    }

    /// Takes the redirect away again: `hauberk-proxy init --remove`.
    pub async fn remove_redirect(&self) -> anyhow::Result<()> {
        let mut command = lab_command(&Binary::Proxy.path()?);
        command.args(["init", "--remove"]);
        self.init(command).await
    }

    async fn init(&self, command: Command) -> anyhow::Result<()> {
        let process = self.pod.spawn("init", command).await?;
        let status = process.wait(INIT_WITHIN).await?;
        if !status.success() {
            bail!(
                "hauberk-proxy init failed in pod {} ({status}):\n{}",
                self.pod.name(),
                process.log_tail(20)
            );
        }
        Ok(())
    }

    /// Starts the program. Does not wait until it is ready.
    pub async fn start(&self) -> anyhow::Result<()> {
        let program = Binary::Proxy.path()?;
        let mut command = match hub()?.privileges {
            Privileges::Root => {
                let mut command = lab_command(Path::new("setpriv"));
                command
                    .args(["--reuid", PROXY_UID, "--regid", PROXY_UID, "--clear-groups"])
                    .arg(&program);
                command
            }
            Privileges::Rootless => {
                let mut command = lab_command(&program);
                command.env("HAUBERK_SOCKET_MARK", PROXY_UID);
                command
            }
        };
        command.arg("run").envs(&self.environment);
        let process = Arc::new(self.pod.spawn("proxy", command).await?);
        // Dropping the one before kills it, should it still run.
        *self.slot() = Some(process);
        Ok(())
    }

    /// Waits until it says that it is ready; fails at once when it ends.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let process = self.process()?;
        let what = format!("the proxy of pod {} is ready", self.pod.name());
        while_running(&process, READY_WITHIN, &what, async || {
            let reply = self.admin("/health/ready").await?;
            if reply.status != 200 {
                bail!("{} {}", reply.status, reply.text().trim());
            }
            Ok(())
        })
        .await
    }

    /// Runs `hauberk-proxy wait` as the hook that holds back the application; how it ended and what it said.
    pub async fn hook(&self, timeout: &str) -> anyhow::Result<(ExitStatus, String)> {
        let mut command = lab_command(&Binary::Proxy.path()?);
        command
            .args(["wait", "--timeout", timeout])
            .envs(&self.environment);
        let process = self.pod.spawn("wait", command).await?;
        let status = process.wait(READY_WITHIN).await?;
        Ok((status, process.log_tail(5)))
    }

    /// Kills it without warning. The redirect stays, as in a pod whose container died.
    pub fn kill(&self) {
        if let Some(process) = self.slot().take() {
            process.kill();
        }
    }

    /// Kills it and starts it again, and waits until it is ready.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.kill();
        self.start().await?;
        self.ready().await
    }

    /// Sends SIGTERM. Use [`process`](Proxy::process) to wait for the end.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.process()?.signal(Signal::SIGTERM)
    }

    /// The running program.
    pub fn process(&self) -> anyhow::Result<Arc<Process>> {
        self.slot()
            .clone()
            .with_context(|| format!("the proxy of pod {} is not running", self.pod.name()))
    }

    /// Asks the admin port.
    pub async fn admin(&self, path: &str) -> anyhow::Result<Reply> {
        let url = format!("http://{}{path}", self.pod.address(ADMIN_PORT));
        Ok(Call::get(&url).patience(Duration::from_secs(2)).send().await?)
    }

    /// All metrics, as text.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        read_metrics(self.admin("/metrics").await?)
    }

    /// The sum of the series called `name` with these labels; 0 where there is none yet.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        Ok(metrics::sum(&self.metrics().await?, name, labels).unwrap_or(0.0))
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Process>>> {
        self.process
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

pub(super) fn read_metrics(reply: Reply) -> anyhow::Result<String> {
    if reply.status != 200 {
        bail!("/metrics answers {}: {}", reply.status, reply.text());
    }
    Ok(reply.text())
}

/// Looks until `look` succeeds, and fails early, with the log, when the program ends meanwhile.
pub(crate) async fn while_running(
    process: &Process,
    deadline: Duration,
    what: &str,
    look: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    tokio::select! {
        result = eventually(deadline, what, look) => {
            result.with_context(|| format!("the log of {} ends:\n{}", process.name(), process.log_tail(20)))
        }
        Ok(status) = process.wait(deadline + Duration::from_secs(1)) => {
            bail!("{} ended ({status}) before {what}; its log ends:\n{}", process.name(), process.log_tail(20))
        }
    }
}

/// A command with nothing of the test's own environment but what finds programs and explains crashes.
pub(super) fn lab_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("RUST_BACKTRACE", "1");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}
