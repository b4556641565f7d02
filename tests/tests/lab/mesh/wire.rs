//! Bad input on the wire, from outsiders and from the pod's own application. Each gets a clear answer or a clear close,
//! and the process lives.

mod beyond;
mod floods;
mod frames;
mod heads;
mod operator;
mod peers;
mod ports;
mod tls_origination;

use std::time::Duration;

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::lab::{App, Builder, Lab, PortSpec, ServiceSpec, eventually};
use tokio::net::TcpStream;

use super::group::Group;

/// What a proxy may grow by under a flood.
const GROWTH: u64 = 24 * 1024 * 1024;
/// Within this, memory that is not needed any more is given back, if it is.
const GIVEN_BACK: Duration = Duration::from_secs(2);
/// Within this time a flood must have its answer.
const ANSWERED: Duration = Duration::from_secs(8);

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    let mut trials = heads::trials(&group);
    trials.extend(floods::trials(&group));
    trials.extend(ports::trials(&group));
    trials.extend(operator::trials(&group));
    trials.extend(peers::trials());
    trials.extend(tls_origination::trials());
    trials.extend(beyond::trials());
    trials
}

fn lab() -> Builder {
    Lab::builder()
        .service(
            ServiceSpec::http("reviews")
                .port(PortSpec::new("anything", 8081, App::Http))
                .version("v1", 1),
        )
        .client("web")
        .outsider("stranger")
}

const SERVER: &str = "reviews-v1-0";
const CLIENT: &str = "web";

/// The two sides on which bytes reach a proxy.
#[derive(Clone, Copy, Debug)]
enum Side {
    /// An outsider dials the pod.
    Inbound,
    /// The pod's own application dials a service.
    Outbound,
}

impl Side {
    const BOTH: [Side; 2] = [Side::Inbound, Side::Outbound];

    async fn dial(self, lab: &Lab, port: u16) -> anyhow::Result<TcpStream> {
        match self {
            Side::Inbound => {
                let address = lab.pod(SERVER).address(port).to_string();
                lab.pod("stranger").connect(&address).await
            }
            Side::Outbound => lab.pod(CLIENT).connect(&format!("reviews:{port}")).await,
        }
    }
}

/// How the proxies were before an attack.
struct Before {
    pids: [u32; 2],
    memory: [u64; 2],
}

fn now(lab: &Lab) -> anyhow::Result<Before> {
    let (client, server) = (lab.proxy(CLIENT).process()?, lab.proxy(SERVER).process()?);
    Ok(Before {
        pids: [client.pid(), server.pid()],
        memory: [client.rss()?, server.rss()?],
    })
}

/// The proxies are the same processes as before, have not grown much, are ready, and serve.
async fn unharmed(lab: &Lab, before: &Before) -> anyhow::Result<()> {
    // The last connections may still be closing, and what they held goes back to the system a moment later.
    eventually(GIVEN_BACK, "the proxies hold no more than before", async || {
        let after = now(lab)?;
        ensure!(before.pids == after.pids, "a proxy was restarted");
        for (before, after) in before.memory.iter().zip(after.memory) {
            ensure!(
                after < before + GROWTH,
                "a proxy grew from {before} to {after} bytes"
            );
        }
        Ok(())
    })
    .await?;
    for pod in [CLIENT, SERVER] {
        ensure!(
            lab.proxy(pod).process()?.ended().is_none(),
            "the proxy of {pod} has ended"
        );
        lab.proxy(pod).ready().await?;
    }
    let reply = lab.pod(CLIENT).get("http://reviews:8080/").await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    let url = format!("http://{}/", lab.pod(SERVER).address(8080));
    let reply = lab.pod("stranger").get(&url).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(())
}
