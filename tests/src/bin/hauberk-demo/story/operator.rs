//! The operator is killed and comes back.

use std::time::Duration;

use tests::lab::{Lab, eventually};
use tests::load::Plan;

use super::{PATIENCE, URL, failures};
use crate::shop::{REVIEWS, traffic};
use crate::tell::Teller;

pub(crate) async fn tell(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    teller.story("the operator is killed, and comes back");
    let old = lab.load("web", Plan::get(URL).connections(4).rate(200.0)).await?;
    lab.operator().kill();
    teller.wait("without the operator,", Duration::from_secs(2)).await;
    let fresh = lab
        .load(
            "web",
            Plan::get(URL).connections(4).rate(50.0).fresh_connections(),
        )
        .await?;
    teller.wait("new connections, too,", Duration::from_secs(2)).await;
    lab.operator().restart().await?;
    teller.step("waiting for every proxy to be back");
    let proxies = proxies(lab);
    eventually(PATIENCE, "every proxy is connected again", async || {
        let connected = lab.operator().metric("hauberk_operator_sessions", &[]).await?;
        anyhow::ensure!(connected as usize >= proxies, "{connected} of {proxies}");
        Ok(())
    })
    .await?;
    teller
        .wait("with the operator back,", Duration::from_secs(3))
        .await;
    let pushed = lab
        .operator()
        .metric("hauberk_operator_resources_sent_total", &[])
        .await?;
    let (old, fresh) = (old.stop().await, fresh.stop().await);
    teller.claim(
        old.errors() == 0,
        "open connections: nothing failed",
        &failures(&old),
    );
    teller.claim(
        fresh.errors() == 0,
        "new connections: nothing failed",
        &failures(&fresh),
    );
    teller.claim(
        pushed == 0.0,
        "nothing is pushed that did not change",
        &format!("{pushed:.0} resources to {proxies} proxies that came back"),
    );
    lab.apply(REVIEWS, &traffic(0, 100))?;
    eventually(PATIENCE, "an edit takes effect again", async || {
        let reply = lab.pod("web").get(URL).await?;
        anyhow::ensure!(reply.app_version() == "v2", "answered by {}", reply.app_version());
        anyhow::ensure!(
            lab.proxy("web").admin("/health/ready").await?.status == 200,
            "not ready"
        );
        Ok(())
    })
    .await?;
    teller.claim(true, "and an edit takes effect again", "all of it on v2");
    Ok(())
}

fn proxies(lab: &Lab) -> usize {
    let pods = ["reviews", "ledger", "stock"]
        .iter()
        .map(|service| lab.pods_of(service).len())
        .sum::<usize>();
    pods + 1
}
