//! One pod: a network namespace with a thread of its own.
//!
//! The thread lives as long as the pod. It starts the pod's programs and drives futures whose sockets belong to the
//! pod. Threads that it starts, such as a runtime's blocking pool, inherit the namespace. When the last handle is
//! dropped the thread ends, and the namespace with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use nix::sched::{CloneFlags, unshare};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::hub::{Place, hub};
use super::names::Names;
use super::process::Process;
use crate::client::{Call, Protocol, Reply, Session};

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who a pod is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodIdentity {
    /// The pod's name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// The service account that it runs as.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A handle to a pod. Clones are the same pod.
#[derive(Clone, Debug)]
pub struct Pod {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    identity: PodIdentity,
    place: Place,
    names: Names,
    logs: PathBuf,
    jobs: mpsc::UnboundedSender<Job>,
}

impl Pod {
    /// Creates the namespace, plugs it into the bridge and sets up its addresses.
    pub(super) async fn create(
        identity: PodIdentity,
        place: Place,
        names: Names,
        logs: PathBuf,
    ) -> anyhow::Result<Pod> {
        let (jobs, queue) = mpsc::unbounded_channel();
        let (ready, namespace) = oneshot::channel();
        let name = identity.name.clone();
        std::thread::Builder::new()
            .name(format!("pod {name}"))
            .spawn(move || live(ready, queue))
            .context("cannot start a pod's thread")?;
        let netns = namespace
            .await
            .context("a pod's thread ended early")?
            .with_context(|| format!("pod {name}"))?;
        // Dropped when the cable is plugged: from then on the pod's thread alone keeps its namespace alive.
        hub()?
            .plug(place, &netns)
            .with_context(|| format!("pod {name}"))?;
        let pod = Pod {
            inner: Arc::new(Inner {
                identity,
                place,
                names,
                logs,
                jobs,
            }),
        };
        pod.run(async move { place.configure() })
            .await
            .with_context(|| format!("pod {name}"))?;
        Ok(pod)
    }

    /// The pod's name.
    pub fn name(&self) -> &str {
        &self.inner.identity.name
    }

    /// The pod's Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.inner.identity.namespace
    }

    /// Name, namespace, service account, labels.
    pub fn identity(&self) -> &PodIdentity {
        &self.inner.identity
    }

    /// The pod's IPv4 address.
    pub fn ip(&self) -> Ipv4Addr {
        self.inner.place.v4
    }

    /// All addresses of the pod: IPv4, and IPv6 where the machine has it.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.inner.place.addresses()
    }

    /// An address of this pod.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip()), port)
    }

    /// Whether a program in the pod listens on `port`. Found in the kernel's tables, so that no one is connected to.
    pub async fn listens(&self, port: u16) -> bool {
        self.run(async move {
            ["tcp", "tcp6"].iter().any(|table| {
                let table = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"));
                table.is_ok_and(|table| lists_listener(&table, port))
            })
        })
        .await
    }

    /// Runs `future` inside the pod: its sockets belong to the pod's network. Dropping the returned future stops it.
    ///
    /// # Panics
    ///
    /// When `future` panics.
    pub async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (mut done, result) = oneshot::channel();
        let job: Job = Box::pin(async move {
            tokio::select! {
                output = future => { let _nobody_waits = done.send(output); }
                () = done.closed() => {}
            }
        });
        let sent = self.inner.jobs.send(job);
        assert!(
            sent.is_ok(),
            "the thread of pod {} lives as long as its handles",
            self.name()
        );
        match result.await {
            Ok(output) => output,
            Err(_dropped) => panic!(
                "a future that ran in pod {} panicked; its message stands above",
                self.name()
            ),
        }
    }

    /// Starts `command` in the pod. Its output goes to a log file named after the pod and `name`.
    pub async fn spawn(&self, name: &str, command: Command) -> anyhow::Result<Process> {
        let full = format!("{}-{name}", self.name());
        let log = self.inner.logs.join(format!("{full}.log"));
        self.run(async move { Process::start(&full, command, &log) })
            .await
    }

    /// Finds the address of `authority` (`name:port`, or an address and a port) as this pod's resolver would.
    pub fn resolve(&self, authority: &str) -> anyhow::Result<SocketAddr> {
        let (host, port) = authority
            .rsplit_once(':')
            .with_context(|| format!("{authority}: expected name:port"))?;
        let port = port
            .parse()
            .with_context(|| format!("{authority}: expected a port number after the colon"))?;
        Ok(SocketAddr::new(
            self.inner.names.resolve(host, self.namespace())?,
            port,
        ))
    }

    /// Dials `authority` from inside the pod. The connection may be used from anywhere.
    pub async fn connect(&self, authority: &str) -> anyhow::Result<TcpStream> {
        let address = self.resolve(authority)?;
        let stream = self.run(TcpStream::connect(address)).await;
        stream.with_context(|| format!("pod {} cannot connect to {authority} ({address})", self.name()))
    }

    /// Opens an HTTP connection from inside the pod, to send several calls on.
    pub async fn session(&self, authority: &str, protocol: Protocol) -> anyhow::Result<Session> {
        let stream = self.connect(authority).await?;
        // In the pod, so that the connection goes on when the test's own task is busy.
        Ok(self.run(Session::open(stream, protocol)).await?)
    }

    /// Makes one call from inside the pod, on a connection of its own.
    pub async fn send(&self, call: Call) -> anyhow::Result<Reply> {
        let address = self.resolve(&call.authority()?)?;
        Ok(self.run(call.send_to(address)).await?)
    }

    /// Fetches `url` from inside the pod, on a connection of its own.
    pub async fn get(&self, url: &str) -> anyhow::Result<Reply> {
        self.send(Call::get(url)).await
    }
}

/// The life of a pod's thread.
fn live(ready: oneshot::Sender<anyhow::Result<File>>, mut queue: mpsc::UnboundedReceiver<Job>) {
    let outcome = separate();
    let runtime = match outcome {
        Ok((netns, runtime)) => {
            let _caller_gave_up = ready.send(Ok(netns));
            runtime
        }
        Err(error) => {
            let _caller_gave_up = ready.send(Err(error));
            return;
        }
    };
    runtime.block_on(async move {
        while let Some(job) = queue.recv().await {
            tokio::spawn(job);
        }
    });
    // Do not wait for blocking work that a test left behind.
    runtime.shutdown_background();
}

/// Moves the calling thread, and no other, into a new network namespace.
fn separate() -> anyhow::Result<(File, tokio::runtime::Runtime)> {
    unshare(CloneFlags::CLONE_NEWNET).context("the kernel refuses a network namespace for a pod")?;
    let netns = File::open("/proc/thread-self/ns/net").context("the lab needs /proc")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a pod's runtime")?;
    Ok((netns, runtime))
}

/// Looks for a socket in state 0A (LISTEN) whose local address ends in `port`.
fn lists_listener(table: &str, port: u16) -> bool {
    let port = format!("{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().and_then(|local| local.rsplit_once(':'));
        let state = fields.nth(1);
        local.is_some_and(|(_, found)| found == port) && state == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_count_as_listeners() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 00000000:1F90 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:1F91 0100007F:9C40 01 00000000:00000000\n";
        assert!(lists_listener(table, 8080));
        assert!(!lists_listener(table, 8081));
        assert!(!lists_listener(table, 80));
        assert!(!lists_listener("", 80));
    }
}
