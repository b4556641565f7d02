//! Where it is measured: the pods of the lab, the backends in them, and the proxies of the peers.
//!
//! Every peer stands where Hauberk stands: in the pod of the client, and for mutual TLS in the pod of the application
//! too, behind the same redirect. So the kernel does the same work for all of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tests::lab::{
    self, App, Binary, Lab, Pod, PortSpec, Privileges, Process, ServiceSpec, Workload, eventually,
};

use crate::peer::{Peer, Protocol, Shape};
use crate::{certificates, cpu};

/// The user of all proxies, which the redirect leaves alone.
const PROXY_UID: &str = "1337";
const OUTBOUND: u16 = 15_001;
const INBOUND: u16 = 15_006;
const READY_WITHIN: Duration = Duration::from_secs(15);

/// An application without a proxy beside it.
const PLAIN: &str = "plain";
/// An application with a proxy beside it; HTTP/1.1 becomes HTTP/2 between the proxies, as it does by default.
const MESHED: &str = "meshed";
/// The same, with HTTP/1.1 kept between the proxies.
const MESHED_HTTP1: &str = "meshed-http1";
const CLIENT: &str = "web";

/// The pods, and what runs in all scenarios.
#[derive(Debug)]
pub(crate) struct Place {
    // Dropped first to last: programs before the lab.
    _backends: Vec<Process>,
    floor: PathBuf,
    certificates: PathBuf,
    lab: Lab,
}

/// A way from a client to an application through the proxies of one peer, which live as long as this does.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) client: Pod,
    pub(crate) target: SocketAddr,
    pub(crate) authority: String,
    pub(crate) proxies: Vec<Arc<Process>>,
}

impl Place {
    pub(crate) async fn open(peers: &[Peer]) -> anyhow::Result<Place> {
        if lab::privileges()? != Privileges::Root {
            bail!("the bench needs root: it runs all proxies under a user of their own");
        }
        let floor = lab::reachable(&beside("hauberk-floor")?, "hauberk-floor")?;
        let mut builder = Lab::builder()
            .proxy_env("HAUBERK_ACCESS_LOG", "off")
            .proxy_env("HAUBERK_LOG", "warn")
            .client(CLIENT)
            .service(app(PLAIN, false))
            .service(app(MESHED, true))
            .service(app(MESHED_HTTP1, true))
            .manifest("features", &features());
        for peer in peers {
            if *peer != Peer::Hauberk {
                builder = builder
                    .outsider(&format!("{}-client", peer.name()))
                    .outsider(&format!("{}-app", peer.name()));
            }
        }
        let lab = builder.start().await?;
        let certificates = lab.dir().join("certificates");
        certificates::write(&certificates)?;
        let mut place = Place {
            _backends: Vec::new(),
            floor,
            certificates,
            lab,
        };
        let mut pods: Vec<Pod> = [PLAIN, MESHED, MESHED_HTTP1]
            .map(|service| place.lab.pod(&format!("{service}-v1-0")))
            .into();
        for peer in peers {
            if *peer == Peer::Hauberk {
                continue;
            }
            let [client, app] = ["client", "app"].map(|role| place.pod(*peer, role));
            if *peer != Peer::Direct {
                redirect(&client).await?;
                redirect(&app).await?;
            }
            pods.push(app);
        }
        for pod in pods {
            let backend = place.backend(&pod).await?;
            place._backends.push(backend);
        }
        Ok(place)
    }

    /// Where a measurement may leave a file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }

    fn pod(&self, peer: Peer, role: &str) -> Pod {
        self.lab.pod(&format!("{}-{role}", peer.name()))
    }

    /// Starts the proxies of `peer` for `shape`; nothing when the peer cannot do that.
    pub(crate) async fn way(&self, peer: Peer, shape: Shape) -> anyhow::Result<Option<Way>> {
        match peer {
            Peer::Direct => Ok(Some(self.direct(shape))),
            Peer::Hauberk => self.hauberk(shape).await.map(Some),
            Peer::Floor => self.floor(shape).await.map(Some),
        }
    }

    fn direct(&self, shape: Shape) -> Way {
        let target = self.pod(Peer::Direct, "app").address(port_of(shape.app));
        Way {
            client: self.pod(Peer::Direct, "client"),
            authority: target.to_string(),
            target,
            proxies: Vec::new(),
        }
    }

    async fn hauberk(&self, shape: Shape) -> anyhow::Result<Way> {
        let service = match shape.wire {
            None => PLAIN,
            Some(Protocol::Http1) => MESHED_HTTP1,
            Some(Protocol::Http2 | Protocol::Tcp) => MESHED,
        };
        let mut names = vec![CLIENT.to_owned()];
        if shape.wire.is_some() {
            names.push(format!("{service}-v1-0"));
        }
        let mut proxies = Vec::new();
        for name in names {
            let proxy = self.lab.proxy(&name);
            // Each scenario begins with the memory of a new process.
            proxy.restart().await?;
            let process = proxy.process()?;
            cpu::pin(process.pid(), cpu::PROXY)?;
            proxies.push(process);
        }
        let authority = format!("{service}.{}:{}", lab::NAMESPACE, port_of(shape.app));
        let client = self.lab.pod(CLIENT);
        Ok(Way {
            target: client.resolve(&authority)?,
            client,
            authority,
            proxies,
        })
    }

    async fn floor(&self, shape: Shape) -> anyhow::Result<Way> {
        let (client, app) = (self.pod(Peer::Floor, "client"), self.pod(Peer::Floor, "app"));
        let port = port_of(shape.app);
        let mut proxies = Vec::new();
        let leg = |listen: u16, to: SocketAddr, spoken: (Protocol, Protocol), tls: Option<&str>| {
            let mut command = self.as_proxy(&self.floor);
            command
                .arg("proxy")
                .args(["--listen", &format!("0.0.0.0:{listen}"), "--to", &to.to_string()])
                .args(["--downstream", spoken.0.name(), "--upstream", spoken.1.name()])
                .arg("--certificates")
                .arg(&self.certificates);
            command.args(tls);
            command
        };
        match shape.wire {
            None => {
                let to = self.lab.pod(&format!("{PLAIN}-v1-0")).address(port);
                let command = leg(OUTBOUND, to, (shape.app, shape.app), None);
                proxies.push(start(&client, "floor", command, OUTBOUND).await?);
            }
            Some(wire) => {
                let to = SocketAddr::from(([127, 0, 0, 1], port));
                let command = leg(INBOUND, to, (wire, shape.app), Some("--downstream-tls"));
                proxies.push(start(&app, "floor", command, INBOUND).await?);
                let command = leg(
                    OUTBOUND,
                    app.address(port),
                    (shape.app, wire),
                    Some("--upstream-tls"),
                );
                proxies.push(start(&client, "floor", command, OUTBOUND).await?);
            }
        }
        // Any address does, since the redirect takes them all.
        let target = SocketAddr::from(([10, 96, 0, 99], port));
        Ok(Way {
            client,
            target,
            authority: format!("{PLAIN}.{}:{port}", lab::NAMESPACE),
            proxies,
        })
    }

    /// `program` under the user of the proxies.
    fn as_proxy(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", PROXY_UID, "--regid", PROXY_UID, "--clear-groups"])
            .arg(program);
        command
    }

    async fn backend(&self, pod: &Pod) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.floor);
        command.arg("backend");
        let process = pod.spawn("backend", command).await?;
        listening(pod, &process, 9002).await?;
        Ok(process)
    }
}

/// Starts a proxy and waits until it listens; from then on it has its processor.
async fn start(pod: &Pod, name: &str, command: Command, port: u16) -> anyhow::Result<Arc<Process>> {
    let process = pod.spawn(name, command).await?;
    listening(pod, &process, port).await?;
    cpu::pin(process.pid(), cpu::PROXY)?;
    Ok(Arc::new(process))
}

async fn listening(pod: &Pod, process: &Process, port: u16) -> anyhow::Result<()> {
    let what = format!("{} listens on port {port}", process.name());
    eventually(READY_WITHIN, &what, async || {
        if !pod.listens(port).await {
            bail!("its log ends:\n{}", process.log_tail(10));
        }
        Ok(())
    })
    .await
}

/// The redirect that Hauberk's pods have.
async fn redirect(pod: &Pod) -> anyhow::Result<()> {
    let mut command = Command::new(Binary::Proxy.path()?);
    command.args(["init", "--proxy-uid", PROXY_UID]);
    command.args(["--outbound-port", "15001", "--inbound-port", "15006"]);
    let process = pod.spawn("init", command).await?;
    let status = process.wait(READY_WITHIN).await?;
    if !status.success() {
        bail!(
            "hauberk-proxy init failed in pod {} ({status}):\n{}",
            pod.name(),
            process.log_tail(20)
        );
    }
    Ok(())
}

/// An application on the ports of the backend.
fn app(name: &str, meshed: bool) -> ServiceSpec {
    ServiceSpec::new(name)
        .port(PortSpec::new("http", 8080, App::Nothing))
        .port(PortSpec::new("http2", 8081, App::Nothing))
        .port(PortSpec::new("tcp-echo", 9000, App::Nothing))
        .port(PortSpec::new("tcp-source", 9001, App::Nothing))
        .port(PortSpec::new("tcp-sink", 9002, App::Nothing))
        .workload(Workload::new("v1", 1).meshed(meshed))
}

fn port_of(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Http1 => 8080,
        Protocol::Http2 => 8081,
        Protocol::Tcp => 9000,
    }
}

/// All that a mesh is expected to do for a request: a route, retries armed, a breaker, outlier detection.
fn features() -> String {
    let mut yaml = String::new();
    for (service, upgrade) in [
        (PLAIN, "DEFAULT"),
        (MESHED, "DEFAULT"),
        (MESHED_HTTP1, "DO_NOT_UPGRADE"),
    ] {
        yaml += &format!(
            "---
apiVersion: hauberk.dev/v1alpha1
kind: VirtualService
metadata: {{ name: {service}, namespace: shop }}
spec:
  hosts: [{service}]
  http:
    - retries: {{ attempts: 2, retryOn: 'connect-failure,refused-stream,gateway-error' }}
      route: [{{ destination: {{ host: {service} }} }}]
---
apiVersion: hauberk.dev/v1alpha1
kind: DestinationRule
metadata: {{ name: {service}, namespace: shop }}
spec:
  host: {service}
  trafficPolicy:
    connectionPool: {{ http: {{ h2UpgradePolicy: {upgrade} }} }}
    outlierDetection: {{ consecutive5xxErrors: 5, interval: 10s }}
    circuitBreaker: {{ failureThreshold: 5 }}
"
        );
    }
    yaml
}

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    let path = own.with_file_name(name);
    if !path.is_file() {
        bail!("{} is not built: run `make bench`", path.display());
    }
    Ok(path)
}
