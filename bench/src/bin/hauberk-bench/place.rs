//! Where it is measured: the pods of the lab, the backends in them, and the proxies of the peers.
//!
//! Every peer stands where Hauberk stands: in the pod of the client, and for mutual TLS in the pod of the application
//! too, behind the same redirect. So the kernel does the same work for all of them.

mod bring;
mod objects;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bench::processor;
use tests::lab::{self, Binary, Lab, Pod, PodSpec, Privileges, Process, eventually};

use crate::certificates;
use crate::peer::{Leg, Peer, Programs, Protocol, Shape};
pub(crate) use objects::{Extra, destination_rule, features, not_ready, service, virtual_service};

/// The user of all proxies, which the redirect leaves alone.
const PROXY_UID: &str = "1337";
const OUTBOUND: u16 = 15_001;
const INBOUND: u16 = 15_006;
const READY_WITHIN: Duration = Duration::from_secs(15);

/// Ports of the backend.
pub(crate) const HTTP1: u16 = 8080;
pub(crate) const HTTP2: u16 = 8081;
pub(crate) const ECHO: u16 = 9000;
pub(crate) const SOURCE: u16 = 9001;

/// An application without a proxy beside it.
pub(crate) const PLAIN: &str = "plain";
/// An application with a proxy beside it; HTTP/1.1 becomes HTTP/2 between the proxies, as it does by default.
const MESHED: &str = "meshed";
/// The same, with HTTP/1.1 kept between the proxies.
const MESHED_HTTP1: &str = "meshed-http1";
/// The client in front of Hauberk.
pub(crate) const CLIENT: &str = "web";
/// The same, with an access log.
pub(crate) const LOGGING_CLIENT: &str = "web-logging";

/// The pods, and what runs in all scenarios.
#[derive(Debug)]
pub(crate) struct Place {
    // Dropped first to last: programs before the lab.
    backends: Vec<Process>,
    programs: Programs,
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
    /// Processes that only this way needs.
    own: Vec<Arc<Process>>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.own.iter().for_each(|process| process.kill());
    }
}

impl Way {
    /// How the logs of its proxies end.
    pub(crate) fn last_words(&self) -> String {
        self.proxies
            .iter()
            .map(|proxy| format!("the log of {} ends:\n{}\n", proxy.name(), proxy.log_tail(5)))
            .collect()
    }
}

impl Place {
    /// Opens the lab with pods for all peers that are here.
    pub(crate) async fn open(brought: Option<&Path>) -> anyhow::Result<Place> {
        if lab::privileges()? != Privileges::Root {
            bail!("the bench needs root: it runs all proxies under a user of their own");
        }
        let programs = bring::programs(brought)?;
        let peers: Vec<Peer> = [Peer::Direct, Peer::Floor]
            .into_iter()
            .chain(Peer::foreign().into_iter().filter(|peer| programs.has(*peer)))
            .collect();
        let mut builder = Lab::builder()
            .proxy_env("HAUBERK_LOG", "warn")
            .proxy_env("HAUBERK_ACCESS_LOG", "off")
            .client(CLIENT)
            .pod(PodSpec::new(LOGGING_CLIENT).proxy_env("HAUBERK_ACCESS_LOG", "json"))
            .service(objects::app(PLAIN, false))
            .service(objects::app(MESHED, true))
            .service(objects::app(MESHED_HTTP1, true))
            .manifest("features", &objects::features(PLAIN, ""))
            .manifest("features-meshed", &objects::features(MESHED, ""))
            .manifest(
                "features-meshed-http1",
                &objects::features(MESHED_HTTP1, "http: {h2UpgradePolicy: DO_NOT_UPGRADE}"),
            );
        for peer in &peers {
            builder = builder
                .outsider(&format!("{}-client", peer.name()))
                .outsider(&format!("{}-app", peer.name()));
        }
        let lab = builder.start().await?;
        let certificates = lab.dir().join("certificates");
        certificates::write(&certificates)?;
        let mut place = Place {
            backends: Vec::new(),
            programs,
            certificates,
            lab,
        };
        place.furnish(&peers).await?;
        Ok(place)
    }

    /// Redirects and backends.
    async fn furnish(&mut self, peers: &[Peer]) -> anyhow::Result<()> {
        let mut pods: Vec<Pod> = [PLAIN, MESHED, MESHED_HTTP1]
            .map(|service| self.lab.pod(&format!("{service}-v1-0")))
            .into();
        for peer in peers {
            let [client, app] = ["client", "app"].map(|role| self.pod(*peer, role));
            if *peer != Peer::Direct {
                redirect(&client).await?;
                redirect(&app).await?;
            }
            many_connections(&client).await;
            pods.push(app);
        }
        many_connections(&self.lab.pod(CLIENT)).await;
        for pod in pods {
            many_connections(&pod).await;
            let mut command = Command::new(&self.programs.floor);
            command.arg("backend");
            let process = pod.spawn("backend", command).await?;
            listening(&pod, &process, SOURCE).await?;
            self.backends.push(process);
        }
        Ok(())
    }

    /// Where a measurement may leave a file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(crate) fn has(&self, peer: Peer) -> bool {
        self.programs.has(peer)
    }

    fn pod(&self, peer: Peer, role: &str) -> Pod {
        self.lab.pod(&format!("{}-{role}", peer.name()))
    }

    /// Starts the proxies of `peer` for `shape`; nothing when the peer cannot do that, or is not here.
    pub(crate) async fn way(
        &self,
        peer: Peer,
        shape: Shape,
        extra: Option<&Extra>,
    ) -> anyhow::Result<Option<Way>> {
        if !self.has(peer) || !peer.takes(shape) {
            return Ok(None);
        }
        match peer {
            Peer::Direct => Ok(Some(self.direct(shape))),
            // It always resumes.
            Peer::Hauberk if !shape.resumption => Ok(None),
            Peer::Hauberk => self.hauberk(shape, extra).await.map(Some),
            Peer::Floor | Peer::Envoy | Peer::Nginx | Peer::Haproxy => self.peer(peer, shape).await.map(Some),
        }
    }

    fn direct(&self, shape: Shape) -> Way {
        let target = self.pod(Peer::Direct, "app").address(shape.port);
        Way {
            client: self.pod(Peer::Direct, "client"),
            authority: target.to_string(),
            target,
            proxies: Vec::new(),
            own: Vec::new(),
        }
    }

    async fn hauberk(&self, shape: Shape, extra: Option<&Extra>) -> anyhow::Result<Way> {
        let service = match shape.wire {
            None => PLAIN,
            Some(Protocol::Http1) => MESHED_HTTP1,
            Some(Protocol::Http2 | Protocol::Tcp) => MESHED,
        };
        let client = extra.and_then(|extra| extra.client).unwrap_or(CLIENT);
        let mut names = vec![client.to_owned()];
        if shape.wire.is_some() {
            names.push(format!("{service}-v1-0"));
        }
        let mut proxies = Vec::new();
        for name in names {
            let proxy = self.lab.proxy(&name);
            // A case begins with the memory of a new process, unless others are measured in turns with it.
            if !extra.is_some_and(|extra| extra.shared) {
                proxy.restart().await?;
            }
            let process = proxy.process()?;
            processor::pin(process.pid(), processor::MEASURED)?;
            proxies.push(process);
        }
        let client = self.lab.pod(client);
        let mut way = Way {
            target: SocketAddr::new(self.lab.service(service).ip().context("no address")?, shape.port),
            authority: format!("{service}.{}:{}", lab::NAMESPACE, shape.port),
            client,
            proxies,
            own: Vec::new(),
        };
        if let Some((name, address)) = extra.and_then(|extra| extra.service.as_ref()) {
            way.target = SocketAddr::new((*address).into(), shape.port);
            way.authority = format!("{name}.{}:{}", lab::NAMESPACE, shape.port);
        }
        Ok(way)
    }

    async fn peer(&self, peer: Peer, shape: Shape) -> anyhow::Result<Way> {
        let (client, app) = (self.pod(peer, "client"), self.pod(peer, "app"));
        let leg = |listen, to, spoken: (Protocol, Protocol), tls: (bool, bool)| Leg {
            listen,
            to,
            downstream: spoken.0,
            upstream: spoken.1,
            downstream_tls: tls.0,
            upstream_tls: tls.1,
            resumption: shape.resumption,
        };
        let mut proxies = Vec::new();
        match shape.wire {
            None => {
                let to = self.lab.pod(&format!("{PLAIN}-v1-0")).address(shape.port);
                let leg = leg(OUTBOUND, to, (shape.app, shape.app), (false, false));
                proxies.push(self.start(peer, &client, leg).await?);
            }
            Some(wire) => {
                let to = SocketAddr::from(([127, 0, 0, 1], shape.port));
                let inbound = leg(INBOUND, to, (wire, shape.app), (true, false));
                proxies.push(self.start(peer, &app, inbound).await?);
                let outbound = leg(
                    OUTBOUND,
                    app.address(shape.port),
                    (shape.app, wire),
                    (false, true),
                );
                proxies.push(self.start(peer, &client, outbound).await?);
            }
        }
        Ok(Way {
            client,
            // Any address does, since the redirect takes them all.
            target: SocketAddr::from(([10, 96, 0, 99], shape.port)),
            authority: format!("{PLAIN}.{}:{}", lab::NAMESPACE, shape.port),
            own: proxies.clone(),
            proxies,
        })
    }

    /// Starts a proxy and waits until it listens; from then on it has its processor.
    async fn start(&self, peer: Peer, pod: &Pod, leg: Leg) -> anyhow::Result<Arc<Process>> {
        let folder = self.lab.dir().join(format!("{}-files", pod.name()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
        let program = self.programs.command(peer, leg, &self.certificates, &folder)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", PROXY_UID, "--regid", PROXY_UID, "--clear-groups"])
            .arg(program.get_program())
            .args(program.get_args())
            .envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
        ensure!(
            !pod.listens(leg.listen).await,
            "another proxy listens in pod {} on port {}",
            pod.name(),
            leg.listen
        );
        let process = pod.spawn(peer.name(), command).await?;
        listening(pod, &process, leg.listen).await?;
        processor::pin(process.pid(), processor::MEASURED)?;
        Ok(Arc::new(process))
    }
}

async fn listening(pod: &Pod, process: &Process, port: u16) -> anyhow::Result<()> {
    let what = format!("{} listens on port {port}", process.name());
    eventually(READY_WITHIN, &what, async || {
        if let Some(status) = process.ended() {
            // Said at once would be better, but a look cannot end the looking.
            bail!("it ended ({status}); its log ends:\n{}", process.log_tail(10));
        }
        if !pod.listens(port).await {
            bail!("its log ends:\n{}", process.log_tail(10));
        }
        Ok(())
    })
    .await
}

/// Lets a pod make many short connections one after another without running out of ports.
async fn many_connections(pod: &Pod) {
    pod.run(async {
        for (knob, value) in [
            ("net/ipv4/ip_local_port_range", "1024 65000"),
            ("net/core/somaxconn", "4096"),
        ] {
            // Where there is no such knob the limit is not there either.
            let _no_such_knob = std::fs::write(format!("/proc/sys/{knob}"), value);
        }
    })
    .await;
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
