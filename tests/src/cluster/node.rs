//! The one node of a cluster that the tests bring up: its programs, in the order in which they need each other.
//!
//! Started by [`Cluster::start`](super::Cluster::start). Tests use it for what needs the node itself: restarting the API
//! server, importing images. Dropping it kills every program; containers end with the process's own namespace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node as NodeObject, ServiceAccount};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::images::Images;
use super::names::{Change, Files, follow};
use super::pki::Pki;
use super::programs::{self, Places};
use super::{DNS_IP, NODE, NODE_IP, RUN, SHOWN_LINES, enter, objects};
use crate::client::Call;
use crate::lab::{Process, Signal, ends, eventually_every, while_running};

/// How often a program that starts is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A program of the node is ready within this time, on a machine that does much else.
const READY_WITHIN: Duration = Duration::from_secs(120);
const API_SERVER: &str = "kube-apiserver";
const DNS: &str = "dnsmasq";

/// The node. Dropping it kills its programs.
pub struct Node {
    places: Places,
    programs: Mutex<BTreeMap<&'static str, Arc<Process>>>,
    files: Files,
    client: Client,
}

impl Node {
    /// Starts everything and returns when the node is ready for pods.
    pub(super) async fn start(images: &Images) -> anyhow::Result<Arc<Node>> {
        let begun = Instant::now();
        let run = PathBuf::from(RUN);
        let logs = logs(&run)?;
        let places = Places {
            kubernetes: programs_folder()?,
            pki: Pki::create(&run.join("pki"))?,
            logs,
            group: enter::group()?,
            pause: images.testapp.clone(),
            run,
        };
        let client = super::client_of(&places.pki.file("admin.conf")).await?;
        let node = Arc::new(Node {
            files: Files::create(&places.run)?,
            programs: Mutex::default(),
            client,
            places,
        });
        let told = |what: &str| eprintln!("e2e: {what} after {:.1} s", begun.elapsed().as_secs_f64());
        tokio::try_join!(
            async {
                node.start_control().await?;
                told("API server ready");
                anyhow::Ok(())
            },
            async {
                node.start_containerd().await?;
                for archive in Images::archives()? {
                    node.import_image(&archive).await?;
                }
                told("images imported");
                Ok(())
            }
        )?;
        node.run("kubelet", programs::kubelet(&node.places)?)?;
        node.run("kube-proxy", programs::kube_proxy(&node.places)?)?;
        node.start_dns().await?;
        node.ready().await?;
        told("node ready");
        Ok(node)
    }

    /// Kills the API server and returns at once: nobody can talk to the cluster until [`Node::start_apiserver`].
    pub fn stop_apiserver(&self) {
        lock(&self.programs).remove(API_SERVER);
    }

    /// Starts the API server and returns when it answers.
    pub async fn start_apiserver(&self) -> anyhow::Result<()> {
        let server = self.run(API_SERVER, programs::api_server(&self.places))?;
        while_running(&server, READY_WITHIN, "the API server answers", async || {
            let answer = self
                .client
                .request_text(http::Request::get("/readyz").body(Vec::new())?)
                .await;
            if answer.is_err() {
                tokio::time::sleep(LOOK).await;
            }
            answer.map(drop).context("it does not answer")
        })
        .await
    }

    /// Restarts the API server, politely, and returns when it answers again.
    pub async fn restart_apiserver(&self) -> anyhow::Result<()> {
        let server = lock(&self.programs).remove(API_SERVER);
        if let Some(server) = server {
            server.signal(Signal::SIGTERM)?;
            // It waits for watches to end, up to a minute; a restart that long would be another test.
            let _killed_when_dropped = server.wait(Duration::from_secs(3)).await;
        }
        self.start_apiserver().await
    }

    /// Imports the images of an archive under the names in it.
    pub async fn import_image(&self, archive: &Path) -> anyhow::Result<()> {
        let archive = archive.display().to_string();
        self.ctr(&["images", "import", &archive]).await.map(drop)
    }

    /// Gives an image that was imported another name.
    pub async fn tag_image(&self, name: &str, other: &str) -> anyhow::Result<()> {
        self.ctr(&["images", "tag", "--force", name, other])
            .await
            .map(drop)
    }

    /// The folder of all logs: a file for each program, and `pods` with those of the containers.
    pub fn logs(&self) -> &Path {
        &self.places.logs
    }

    /// The last `lines` lines of every program's log.
    pub fn log_ends(&self, lines: usize) -> String {
        ends(&self.places.logs, lines)
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.places.pki.file("admin.conf")
    }

    pub(super) fn kubectl(&self) -> PathBuf {
        self.places.kubernetes.join("kubectl")
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// etcd, the API server, and those who work with nothing but that.
    async fn start_control(&self) -> anyhow::Result<()> {
        let etcd = self.run("etcd", programs::etcd(&self.places))?;
        while_running(&etcd, READY_WITHIN, "etcd is healthy", async || {
            let reply = Call::get("http://127.0.0.1:2379/health").send().await?;
            if reply.status != 200 {
                bail!("it answers {}", reply.text());
            }
            Ok(())
        })
        .await?;
        self.start_apiserver().await?;
        self.run("kube-controller-manager", programs::controllers(&self.places))?;
        self.run("kube-scheduler", programs::scheduler(&self.places))?;
        Ok(())
    }

    async fn start_containerd(&self) -> anyhow::Result<()> {
        let containerd = self.run("containerd", programs::containerd(&self.places)?)?;
        while_running(&containerd, READY_WITHIN, "containerd answers", async || {
            tokio::time::sleep(LOOK).await;
            self.ctr(&["version"]).await.map(drop)
        })
        .await
    }

    /// The cluster's DNS is a Service like any other, whose one endpoint is dnsmasq on the node.
    async fn start_dns(self: &Arc<Node>) -> anyhow::Result<()> {
        let objects = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: kube-dns, namespace: kube-system}}, spec: {{\
             clusterIP: {DNS_IP}, ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]}}}}\n---\n\
             {{apiVersion: v1, kind: Endpoints, metadata: {{name: kube-dns, namespace: kube-system}}, subsets: [{{\
             addresses: [{{ip: {NODE_IP}}}], ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]}}]}}\n"
        );
        eventually_every(LOOK, READY_WITHIN, "the Service of DNS is there", async || {
            objects::apply(&self.client, &objects).await
        })
        .await?;
        self.run_dns().await?;
        let (sender, mut changes) = mpsc::unbounded_channel();
        tokio::spawn(follow(self.client.clone(), self.files.clone(), sender));
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(change) = changes.recv().await {
                let Some(node) = weak.upgrade() else { return };
                if let Err(error) = node.reload_dns(change).await {
                    eprintln!("e2e: dns: {error:#}");
                }
            }
        });
        Ok(())
    }

    /// Starts dnsmasq and returns when it serves: a signal before that would end it.
    async fn run_dns(&self) -> anyhow::Result<()> {
        let dns = self.run(DNS, programs::dns(&self.files.hosts, &self.files.aliases))?;
        // As the kernel lists sockets: the address in network byte order, as a number of this machine.
        let bound = format!("{:08X}:0035", u32::from_ne_bytes(NODE_IP.octets()));
        while !std::fs::read_to_string("/proc/net/udp")
            .context("/proc/net/udp")?
            .contains(&bound)
        {
            if let Some(status) = dns.ended() {
                bail!(
                    "dnsmasq ended ({status}); its log ends:\n{}",
                    dns.log_tail(SHOWN_LINES)
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn reload_dns(&self, change: Change) -> anyhow::Result<()> {
        let dns = lock(&self.programs).get(DNS).cloned();
        match (change, dns) {
            (Change::Hosts, Some(dns)) => dns.signal(Signal::SIGHUP),
            (Change::Aliases, Some(dns)) => {
                dns.kill();
                self.run_dns().await
            }
            (_, None) => Ok(()),
        }
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let nodes = Api::<NodeObject>::all(self.client.clone());
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), "default");
        let kubelet = lock(&self.programs)["kubelet"].clone();
        while_running(&kubelet, READY_WITHIN, "the node is ready", async || {
            tokio::time::sleep(LOOK).await;
            let node = nodes.get(NODE).await?;
            let conditions = node
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let Some(ready) = conditions
                .into_iter()
                .find(|condition| condition.type_ == "Ready")
            else {
                bail!("it says nothing of itself yet");
            };
            if ready.status != "True" {
                bail!("{}", ready.message.unwrap_or_default());
            }
            // No pod can be made before its service account.
            accounts.get("default").await.context("no service account yet")?;
            Ok(())
        })
        .await
    }

    fn run(&self, name: &'static str, command: Command) -> anyhow::Result<Arc<Process>> {
        let log = self.places.logs.join(format!("{name}.log"));
        let process = Arc::new(Process::start(name, command, &log)?);
        lock(&self.programs).insert(name, Arc::clone(&process));
        Ok(process)
    }

    async fn ctr(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = programs::ctr(&self.places.containerd_socket());
        command.args(arguments);
        super::output(command).await
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// Where `scripts/kubernetes.sh` has put the programs.
fn programs_folder() -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("HAUBERK_KUBERNETES").context(
        "HAUBERK_KUBERNETES is not set: run `make e2e`, or set it to what `sh scripts/kubernetes.sh` prints",
    )?;
    let folder = PathBuf::from(folder);
    if !folder.join(API_SERVER).is_file() {
        bail!(
            "HAUBERK_KUBERNETES: there is no {API_SERVER} in {}",
            folder.display()
        );
    }
    Ok(folder)
}

/// The folder of logs: that of HAUBERK_CLUSTER_LOGS, without those of the run before, or one in memory. Containers write
/// there too.
fn logs(run: &Path) -> anyhow::Result<PathBuf> {
    let logs = std::env::var_os("HAUBERK_CLUSTER_LOGS").map_or_else(|| run.join("logs"), PathBuf::from);
    let logs = std::path::absolute(logs).context("HAUBERK_CLUSTER_LOGS")?;
    let pods = logs.join("pods");
    std::fs::create_dir_all(&pods).with_context(|| format!("cannot create {}", pods.display()))?;
    let stale = std::fs::read_dir(&logs)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let stale = stale.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    // Whoever named a folder with other things in it keeps those.
    for log in stale {
        std::fs::remove_file(&log).with_context(|| format!("cannot remove {}", log.display()))?;
    }
    std::fs::remove_dir_all(&pods).with_context(|| format!("cannot empty {}", pods.display()))?;
    std::fs::create_dir(&pods).with_context(|| format!("cannot create {}", pods.display()))?;
    // A kubelet knows no other place for them.
    let link = Path::new("/var/log/pods");
    std::os::unix::fs::symlink(&pods, link).with_context(|| format!("cannot create {}", link.display()))?;
    Ok(logs)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
