//! The proxies that are measured, what each can do, and how it is started for one leg.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::certificates::NAME;
use crate::template::{Values, render};

/// A proxy, or none.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// No proxy: the client dials the application.
    Direct,
    /// Ours.
    Hauberk,
    /// The smallest sensible proxy on the same libraries.
    Floor,
    Envoy,
    Nginx,
    Haproxy,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Direct => "direct",
            Peer::Hauberk => "hauberk",
            Peer::Floor => "floor",
            Peer::Envoy => "envoy",
            Peer::Nginx => "nginx",
            Peer::Haproxy => "haproxy",
        }
    }

    /// The proxies of others, which have to be brought first.
    pub(crate) fn foreign() -> [Peer; 3] {
        [Peer::Envoy, Peer::Nginx, Peer::Haproxy]
    }

    /// Whether it can take `shape`. nginx speaks HTTP/2 to no upstream.
    pub(crate) fn takes(self, shape: Shape) -> bool {
        self != Peer::Nginx || (shape.app != Protocol::Http2 && shape.wire != Some(Protocol::Http2))
    }
}

/// What is spoken on a leg.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Tcp,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Tcp => "tcp",
        }
    }

    fn alpn(self) -> &'static str {
        match self {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "h2",
            Protocol::Tcp => "",
        }
    }
}

/// What the application speaks on which port, and what stands between the proxies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shape {
    pub(crate) app: Protocol,
    pub(crate) port: u16,
    /// Through two proxies, with mutual TLS and this protocol between them; through one and in plaintext when not set.
    pub(crate) wire: Option<Protocol>,
    /// Whether TLS sessions are resumed.
    pub(crate) resumption: bool,
}

/// What one proxy process does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leg {
    pub(crate) listen: u16,
    pub(crate) to: SocketAddr,
    pub(crate) downstream: Protocol,
    pub(crate) upstream: Protocol,
    pub(crate) downstream_tls: bool,
    pub(crate) upstream_tls: bool,
    pub(crate) resumption: bool,
}

/// Where the programs of the peers are, for every user of the lab to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs {
    pub(crate) floor: PathBuf,
    pub(crate) envoy: Option<PathBuf>,
    pub(crate) nginx: Option<PathBuf>,
    pub(crate) haproxy: Option<PathBuf>,
    /// Libraries that come with nginx and HAProxy.
    pub(crate) libraries: PathBuf,
    /// Modules of nginx.
    pub(crate) modules: PathBuf,
}

impl Programs {
    pub(crate) fn has(&self, peer: Peer) -> bool {
        match peer {
            Peer::Direct | Peer::Hauberk | Peer::Floor => true,
            Peer::Envoy => self.envoy.is_some(),
            Peer::Nginx => self.nginx.is_some(),
            Peer::Haproxy => self.haproxy.is_some(),
        }
    }

    /// The program and the arguments that make `peer` do `leg`. Its files go to `folder`.
    pub(crate) fn command(
        &self,
        peer: Peer,
        leg: Leg,
        certificates: &Path,
        folder: &Path,
    ) -> anyhow::Result<Command> {
        let config = |file: &str| -> anyhow::Result<PathBuf> {
            let path = folder.join(file);
            let text = configuration(peer, leg, certificates, folder, &self.modules)?;
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        let program = |program: &Option<PathBuf>| {
            program
                .clone()
                .with_context(|| format!("{} is not here: sh scripts/bench-peers.sh", peer.name()))
        };
        let mut command;
        match peer {
            Peer::Direct | Peer::Hauberk => bail!("{} is started in other ways", peer.name()),
            Peer::Floor => {
                command = Command::new(&self.floor);
                command.args(floor(leg)).arg("--certificates").arg(certificates);
            }
            Peer::Envoy => {
                command = Command::new(program(&self.envoy)?);
                command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"]);
                command.arg(config("envoy.yaml")?);
            }
            Peer::Nginx => {
                command = Command::new(program(&self.nginx)?);
                command.arg("-p").arg(folder).arg("-e").arg("stderr");
                command.arg("-c").arg(config("nginx.conf")?);
            }
            Peer::Haproxy => {
                command = Command::new(program(&self.haproxy)?);
                command.arg("-db").arg("-f").arg(config("haproxy.cfg")?);
            }
        }
        if matches!(peer, Peer::Nginx | Peer::Haproxy) {
            command.env("LD_LIBRARY_PATH", &self.libraries);
        }
        Ok(command)
    }
}

fn floor(leg: Leg) -> Vec<String> {
    let mut arguments: Vec<String> = vec![
        "proxy".into(),
        format!("--listen=0.0.0.0:{}", leg.listen),
        format!("--to={}", leg.to),
        format!("--downstream={}", leg.downstream.name()),
        format!("--upstream={}", leg.upstream.name()),
    ];
    for (on, flag) in [
        (leg.downstream_tls, "--downstream-tls"),
        (leg.upstream_tls, "--upstream-tls"),
        (!leg.resumption, "--no-resumption"),
    ] {
        if on {
            arguments.push(flag.to_owned());
        }
    }
    arguments
}

/// The configuration file of a foreign peer for `leg`.
pub(crate) fn configuration(
    peer: Peer,
    leg: Leg,
    certificates: &Path,
    folder: &Path,
    modules: &Path,
) -> anyhow::Result<String> {
    let tcp = leg.downstream == Protocol::Tcp;
    let template = match (peer, tcp) {
        (Peer::Envoy, false) => include_str!("../../../peers/envoy-http.yaml"),
        (Peer::Envoy, true) => include_str!("../../../peers/envoy-tcp.yaml"),
        (Peer::Nginx, false) => include_str!("../../../peers/nginx-http.conf"),
        (Peer::Nginx, true) => include_str!("../../../peers/nginx-tcp.conf"),
        (Peer::Haproxy, _) => include_str!("../../../peers/haproxy.cfg"),
        (Peer::Direct | Peer::Hauberk | Peer::Floor, _) => bail!("{} has no template", peer.name()),
    };
    let values = Values::default()
        .value("listen", leg.listen)
        .value("upstream_host", leg.to.ip())
        .value("upstream_port", leg.to.port())
        .value("certificates", certificates.display())
        .value("folder", folder.display())
        .value("modules", modules.display())
        .value("name", NAME)
        .value("downstream_alpn", leg.downstream.alpn())
        .value("upstream_alpn", leg.upstream.alpn())
        .flag("http", !tcp)
        .flag("tcp", tcp)
        .flag("downstream-http1", leg.downstream == Protocol::Http1)
        .flag("downstream-http2", leg.downstream == Protocol::Http2)
        .flag("upstream-http1", leg.upstream == Protocol::Http1)
        .flag("upstream-http2", leg.upstream == Protocol::Http2)
        .flag(
            "reason",
            leg.downstream == Protocol::Http1 && leg.upstream == Protocol::Http2,
        )
        .flag("downstream-tls", leg.downstream_tls)
        .flag("downstream-plain", !leg.downstream_tls)
        .flag("upstream-tls", leg.upstream_tls)
        .flag("upstream-plain", !leg.upstream_tls)
        .flag("resumption", leg.resumption)
        .flag("no-resumption", !leg.resumption);
    render(template, &haproxy(leg, certificates, values))
}

/// HAProxy says on one line what the others say in blocks.
fn haproxy(leg: Leg, certificates: &Path, values: Values) -> Values {
    let folder = certificates.display();
    let alpn = |protocol: Protocol| match protocol {
        Protocol::Tcp => String::new(),
        http => format!(" alpn {}", http.alpn()),
    };
    let files = format!(" crt {folder}/both.pem ca-file {folder}/root.pem verify required");
    let no_tickets = if leg.resumption { "" } else { " no-tls-tickets" };
    let bind_tls = format!(" ssl curves X25519{files}{}{no_tickets}", alpn(leg.downstream));
    let no_reuse = if leg.resumption { "" } else { " no-ssl-reuse" };
    let names = format!(" sni str({NAME}) verifyhost {NAME}{no_reuse}");
    let server_tls = format!(" ssl{files}{names}{}", alpn(leg.upstream));
    let only = |on: bool, text: &str| if on { text.to_owned() } else { String::new() };
    let tcp = leg.downstream == Protocol::Tcp;
    values
        .value(
            "bind_proto",
            only(
                leg.downstream == Protocol::Http2 && !leg.downstream_tls,
                " proto h2",
            ),
        )
        .value("bind_tls", only(leg.downstream_tls, &bind_tls))
        .value(
            "server_proto",
            only(leg.upstream == Protocol::Http2 && !leg.upstream_tls, " proto h2"),
        )
        .value("server_tls", only(leg.upstream_tls, &server_tls))
        .value("observe", if tcp { "layer4" } else { "layer7" })
}

#[cfg(test)]
#[path = "peer/tests.rs"]
mod tests;
