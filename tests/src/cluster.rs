//! A real Kubernetes for tests: API server, controllers, kubelet, containerd and pods, on this machine and in private.
//!
//! ```no_run
//! use tests::cluster::{self, Cluster};
//!
//! # async fn example() -> anyhow::Result<()> {
//! cluster::enter(); // the first line of main, before any thread
//! let cluster = Cluster::start().await?;
//! cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").await?;
//! println!("{}", cluster.kubectl(&["get", "nodes"]).await?);
//! # Ok(())
//! # }
//! ```
//!
//! Where `KUBECONFIG` is set it is that cluster instead, and what needs the node ([`Cluster::node`]) is left out, with
//! the reason printed. The programs are those that `scripts/kubernetes.sh` built; `make e2e` names them in the
//! environment. As in the lab, everything lives in namespaces and in memory.

mod calls;
mod enter;
mod images;
pub mod manifests;
mod names;
mod node;
mod objects;
mod pki;
mod pods;
mod programs;
mod trial;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub use calls::{Caller, RunningLoad};
pub use enter::enter;
pub use images::Images;
pub use node::Node;
pub use objects::ROLLED_OUT_WITHIN;
pub use trial::{run, trial};

/// The node's name.
const NODE: &str = "node1";
/// Its address, and that of DNS.
const NODE_IP: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 10);
const SERVICE_NETWORK: &str = "10.96.0.0/16";
/// The Service `kubernetes`.
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The Service `kube-dns`.
const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const POD_NETWORK: &str = "10.244.0.0/16";
const API_SERVER: &str = "https://127.0.0.1:6443";
/// The state of a node, in memory.
const RUN: &str = "/run/hauberk-cluster";
/// How many lines of each log [`Cluster::diagnose`] shows.
const SHOWN_LINES: usize = 15;

/// A running Kubernetes. Dropping it ends it, if it is the tests' own.
pub struct Cluster {
    client: Client,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    images: Images,
    version: (u32, u32),
    node: Option<Arc<Node>>,
}

impl Cluster {
    /// Brings one up, or connects to that of `KUBECONFIG`. The images under test are there when it returns.
    pub async fn start() -> anyhow::Result<Cluster> {
        let (client, kubeconfig, kubectl, images, node);
        if let Some(users) = of_the_user() {
            images = Images::pushed()?;
            client = client_of(&users).await?;
            (kubeconfig, kubectl, node) = (users, PathBuf::from("kubectl"), None);
        } else {
            images = Images::local();
            let started = Node::start(&images).await?;
            (client, kubeconfig, kubectl) = (started.client(), started.kubeconfig(), started.kubectl());
            node = Some(started);
        }
        let version = client
            .apiserver_version()
            .await
            .context("cannot ask for the server's version")?;
        // Some providers add a plus sign.
        let number = |text: &str| text.trim_end_matches('+').parse::<u32>();
        let version = (
            number(&version.major).with_context(|| format!("version {}", version.git_version))?,
            number(&version.minor).with_context(|| format!("version {}", version.git_version))?,
        );
        eprintln!(
            "e2e: Kubernetes {}.{} of {}",
            version.0,
            version.1,
            kubeconfig.display()
        );
        Ok(Cluster {
            client,
            kubeconfig,
            kubectl,
            images,
            version,
            node,
        })
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A file for kubectl, helm and others, with all rights.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The images under test.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The server's version, such as `(1, 29)`.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The node, for what cannot be done through the API. On a cluster of the user's there is none to be had: then this
    /// prints that `what` is left out.
    pub fn node(&self, what: &str) -> Option<&Node> {
        if self.node.is_none() {
            eprintln!(
                "e2e: left out: {what}: it needs the node, which the cluster of KUBECONFIG does not give"
            );
        }
        self.node.as_deref()
    }

    /// Runs kubectl with these arguments and returns what it prints.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = programs::kubectl(&self.kubectl, &self.kubeconfig);
        command.args(arguments);
        output(command).await
    }

    /// What there is to see when something failed: pods, events, the ends of all logs.
    pub async fn diagnose(&self) -> String {
        let mut text = String::new();
        for arguments in [
            &[
                "get",
                "pods,services,deployments",
                "--all-namespaces",
                "--output=wide",
            ][..],
            &[
                "get",
                "events",
                "--all-namespaces",
                "--sort-by=.metadata.creationTimestamp",
            ],
        ] {
            let said = self
                .kubectl(arguments)
                .await
                .unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<&str> = said.lines().collect();
            let shown = lines[lines.len().saturating_sub(60)..].join("\n");
            text += &format!("--- kubectl {}\n{shown}\n", arguments.join(" "));
        }
        text += &self.logs_of_unready().await;
        if let Some(node) = &self.node {
            text += &node.log_ends(SHOWN_LINES);
            text += &format!("all logs: {}\n", node.logs().display());
        }
        text
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("kubeconfig", &self.kubeconfig)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The kubeconfig of a cluster that the user has.
fn of_the_user() -> Option<PathBuf> {
    std::env::var_os("KUBECONFIG")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

async fn client_of(kubeconfig: &Path) -> anyhow::Result<Client> {
    let what = || format!("cannot use {}", kubeconfig.display());
    let read = Kubeconfig::read_from(kubeconfig).with_context(what)?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .with_context(what)?;
    Client::try_from(config).with_context(what)
}

/// Runs a program to its end and returns what it prints; what it complains of becomes the error.
async fn output(command: Command) -> anyhow::Result<String> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command
        .output()
        .await
        .with_context(|| format!("cannot run {}", words[0]))?;
    let [said, complained] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if !output.status.success() {
        bail!(
            "`{}` failed ({}): {}{said}",
            words.join(" "),
            output.status,
            complained.trim()
        );
    }
    Ok(said)
}
