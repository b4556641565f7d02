//! The operator under test: a real process on the folder, started, asked and stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use bench::processor;

/// Between two looks at what the operator says of itself.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// How operators are started here, each with the same addresses and the same state.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) binary: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// A running operator.
#[derive(Debug)]
pub(crate) struct Operator {
    child: Child,
    admin: SocketAddr,
    log: PathBuf,
    pub(crate) pid: u32,
    pub(crate) started: Instant,
}

impl Start {
    /// With two free ports.
    pub(crate) async fn new(binary: &Path, dir: &Path, config: &Path) -> anyhow::Result<Self> {
        // Both held at once, so that they are two.
        let held = (
            TcpListener::bind("127.0.0.1:0").await?,
            TcpListener::bind("127.0.0.1:0").await?,
        );
        Ok(Self {
            binary: binary.to_owned(),
            config: config.to_owned(),
            state: dir.join("state"),
            log: dir.join("operator.log"),
            listen: held.0.local_addr()?,
            admin: held.1.local_addr()?,
        })
    }

    /// Starts an operator.
    pub(crate) fn operator(&self) -> anyhow::Result<Operator> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)?;
        processor::stay_on(processor::MEASURED)?;
        let child = Command::new(&self.binary)
            .arg("run")
            .args(["--listen", &self.listen.to_string()])
            .args(["--admin", &self.admin.to_string()])
            .arg("--config-dir")
            .arg(&self.config)
            .arg("--state-dir")
            .arg(&self.state)
            .stdin(Stdio::null())
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn();
        processor::stay_on(processor::REST)?;
        let child = child.with_context(|| format!("cannot start {}", self.binary.display()))?;
        Ok(Operator {
            pid: child.id().context("the operator has ended at once")?,
            child,
            admin: self.admin,
            log: self.log.clone(),
            started: Instant::now(),
        })
    }
}

impl Operator {
    /// Waits until it serves proxies; gives the time since its start.
    pub(crate) async fn ready(&mut self, patience: Duration) -> anyhow::Result<Duration> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                let log = self.log.display();
                anyhow::bail!("the operator ended with {status}; see {log}");
            }
            if let Ok((200, _)) = get(self.admin, "/health/ready").await {
                return Ok(self.started.elapsed());
            }
            let elapsed = self.started.elapsed();
            anyhow::ensure!(elapsed < patience, "the operator is not ready after {elapsed:?}");
            sleep(POLL).await;
        }
    }

    /// Proxies that are connected and names that they are subscribed to.
    pub(crate) async fn served(&self) -> anyhow::Result<(f64, f64)> {
        let (code, text) = get(self.admin, "/metrics").await?;
        anyhow::ensure!(code == 200, "/metrics answers {code}");
        let of = |name| sum(&text, name).with_context(|| format!("/metrics has no {name}"));
        Ok((
            of("hauberk_operator_sessions")?,
            of("hauberk_operator_subscriptions")?,
        ))
    }

    /// What the operator knows of each proxy.
    pub(crate) async fn status(&self) -> anyhow::Result<control_plane::status::Status> {
        control_plane::admin::ask_status(self.admin).await
    }

    /// Stops it as a platform does.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid)?);
        kill(pid, Signal::SIGTERM).context("cannot stop the operator")?;
        let status = timeout(Duration::from_secs(20), self.child.wait()).await;
        let status = status.context("the operator does not stop")??;
        anyhow::ensure!(status.success(), "the operator ended with {status}");
        Ok(())
    }
}

fn sum(text: &str, name: &str) -> Option<f64> {
    let series = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        // Not a longer name that begins with this one.
        let value = match rest.as_bytes().first()? {
            b' ' => rest,
            b'{' => rest.rsplit_once('}')?.1,
            _ => return None,
        };
        value.trim().parse::<f64>().ok()
    });
    let values: Vec<_> = series.collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let ask = async {
        let mut tcp = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: operator\r\nconnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((code.context("an answer without a code")?, body.to_owned()))
    };
    timeout(Duration::from_secs(10), ask)
        .await
        .with_context(|| format!("{address}{path} has not answered within 10 s"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_of_its_own_series() {
        let text = "# TYPE a gauge\na{kind=\"x\"} 3\na{kind=\"y\"} 4\na_more 7\nb 1\n# EOF\n";
        assert_eq!(sum(text, "a"), Some(7.0));
        assert_eq!(sum(text, "b"), Some(1.0));
        assert_eq!(sum(text, "c"), None);
    }
}
