//! What applications speak goes through the mesh as if it were not there.

mod databases;
mod flow;
mod grpc;
mod http1;
mod http2;
mod tcp;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::app::Answer;
use tests::lab::{App, Builder, Lab, PortSpec, ServiceSpec, eventually};
use tests::load::Plan;

use super::SOON;
use super::group::Group;

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    let mut trials = http1::trials(&group);
    trials.extend(http2::trials(&group));
    trials.extend(grpc::trials(&group));
    trials.extend(tcp::trials(&group));
    trials.extend(flow::trials(&group));
    trials.extend(databases::trials(&group));
    trials
}

/// A client and one service for each thing that is spoken. `own` is for servers of the tests themselves.
fn lab() -> Builder {
    let own = ServiceSpec::new("own")
        .port(PortSpec::new("http", 8000, App::Nothing))
        .port(PortSpec::new("http2", 8001, App::Nothing))
        .port(PortSpec::new("tcp", 8002, App::Nothing))
        .port(PortSpec::new("https", 8003, App::Nothing))
        .port(PortSpec::new("any", 8004, App::Nothing))
        .port(PortSpec::new("cache", 6379, App::Nothing))
        .port(PortSpec::new("store", 5432, App::Nothing))
        .version("v1", 1);
    Lab::builder()
        .service(
            ServiceSpec::http("reviews")
                .port(PortSpec::new("undeclared", 8081, App::Http))
                .version("v1", 1),
        )
        .service(ServiceSpec::grpc("ledger").version("v1", 1))
        .service(ServiceSpec::tcp("bank", 5432).version("v1", 1))
        .service(
            ServiceSpec::new("mail")
                .port(PortSpec::greeting(2525, "220 mail is ready").named("anything"))
                .version("v1", 1),
        )
        .service(
            ServiceSpec::new("quiet")
                .port(PortSpec::silent(7000))
                .version("v1", 1),
        )
        .service(
            ServiceSpec::new("guess")
                .port(PortSpec::silent(7001).named("something"))
                .version("v1", 1),
        )
        .service(ServiceSpec::http("nodes").headless().version("v1", 2))
        .service(ServiceSpec::http("six").dual_stack().version("v1", 1))
        .service(own)
        .client("web")
}

/// The HTTP application's answer to a GET from `web`.
async fn ask(lab: &Lab, url: &str) -> anyhow::Result<Answer> {
    let reply = lab.pod("web").get(url).await?;
    ensure!(reply.status == 200, "{url}: {} {}", reply.status, reply.text());
    reply.json().with_context(|| url.to_owned())
}

/// Waits until requests to `url` from `web` are answered at all: endpoints of a new lab arrive when they arrive.
async fn warm(lab: &Lab, url: &str) -> anyhow::Result<()> {
    eventually(SOON, &format!("{url} answers"), async || {
        let report = lab.load("web", Plan::get(url).requests(1)).await?.finish().await;
        ensure!(report.errors() == 0, "{}", report.summary());
        Ok(())
    })
    .await
}
