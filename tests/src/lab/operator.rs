//! The lab's operator: `hauberk-control-plane` in a pod of its own, reading the lab's manifest folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpStream;

use super::binaries::Binary;
use super::metrics;
use super::pod::Pod;
use super::process::Process;
use super::proxy::{ADMIN_PORT, lab_command, read_metrics, while_running};
use crate::client::{Call, Reply};

/// The trust domain of every lab.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// The port that proxies connect to.
pub const CONFIG_PORT: u16 = 15_010;
const UP_WITHIN: Duration = Duration::from_secs(20);
const TOKEN_WITHIN: Duration = Duration::from_secs(10);

/// The operator of a lab.
#[derive(Debug)]
pub struct Operator {
    pod: Pod,
    config: PathBuf,
    state: PathBuf,
    environment: BTreeMap<String, String>,
    process: Mutex<Option<Arc<Process>>>,
}

impl Operator {
    pub(super) fn new(
        pod: Pod,
        config: PathBuf,
        state: PathBuf,
        environment: BTreeMap<String, String>,
    ) -> Operator {
        Operator {
            pod,
            config,
            state,
            environment,
            process: Mutex::new(None),
        }
    }

    /// Starts it and waits until it takes connections.
    pub async fn start(&self) -> anyhow::Result<()> {
        let mut command = lab_command(&Binary::ControlPlane.path()?);
        command.args(["run", "--source", "directory", "--trust-domain", TRUST_DOMAIN]);
        command
            .arg("--config-dir")
            .arg(&self.config)
            .arg("--state-dir")
            .arg(&self.state);
        command.args([
            "--listen",
            &format!("0.0.0.0:{CONFIG_PORT}"),
            "--admin",
            &format!("0.0.0.0:{ADMIN_PORT}"),
        ]);
        command.envs(&self.environment);
        let process = Arc::new(self.pod.spawn("run", command).await?);
        *self.slot() = Some(Arc::clone(&process));
        while_running(
            &process,
            UP_WITHIN,
            "the operator takes connections",
            async || {
                let roots = self.roots();
                if !roots.exists() {
                    bail!("{} is missing", roots.display());
                }
                TcpStream::connect(self.pod.address(CONFIG_PORT)).await?;
                Ok(())
            },
        )
        .await
    }

    /// Kills it without warning. Proxies must go on with what they know.
    pub fn kill(&self) {
        if let Some(process) = self.slot().take() {
            process.kill();
        }
    }

    /// Kills it, if it runs, and starts it again with the state that it left.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.kill();
        self.start().await
    }

    /// The running program.
    pub fn process(&self) -> anyhow::Result<Arc<Process>> {
        self.slot().clone().context("the operator is not running")
    }

    /// The pod that it runs in.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The trust roots that it has written.
    pub fn roots(&self) -> PathBuf {
        self.state.join("roots.pem")
    }

    /// Where it keeps its own files.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// A token that proves to it who a pod is.
    pub async fn token(&self, namespace: &str, service_account: &str, pod: &str) -> anyhow::Result<String> {
        let mut command = lab_command(&Binary::ControlPlane.path()?);
        command.arg("token").arg("--state-dir").arg(&self.state);
        command.args([
            "--namespace",
            namespace,
            "--service-account",
            service_account,
            "--pod",
            pod,
        ]);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = tokio::time::timeout(TOKEN_WITHIN, output)
            .await
            .context("hauberk-control-plane token never ended")?
            .context("cannot run hauberk-control-plane")?;
        let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || token.is_empty() {
            let reason = String::from_utf8_lossy(&output.stderr);
            bail!(
                "hauberk-control-plane token gave none ({}): {}",
                output.status,
                reason.trim()
            );
        }
        Ok(token)
    }

    /// Takes the next step of a rotation; gives what the command said.
    ///
    /// # Errors
    /// What the command said when it took none.
    pub async fn rotate_root(&self) -> anyhow::Result<String> {
        let mut command = lab_command(&Binary::ControlPlane.path()?);
        command.args(["rotate-root", "--trust-domain", TRUST_DOMAIN]);
        command.arg("--state-dir").arg(&self.state);
        command.envs(&self.environment);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output();
        let output = tokio::time::timeout(TOKEN_WITHIN, output)
            .await
            .context("hauberk-control-plane rotate-root never ended")?
            .context("cannot run hauberk-control-plane")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
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
