//! Helm installs it, and `hauberk check` agrees.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tests::cluster::Cluster;
use tests::lab::eventually_every;
use tokio::time::Instant;

use super::SOON;
use super::tools::{OPERATOR, OPERATORS, SYSTEM, hauberk, helm, values};

pub(super) async fn install(cluster: &'static Cluster) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut crds = vec!["upgrade", "hauberk-crds", "charts/hauberk-crds", "--install"];
    if cluster.version() < (1, 25) {
        // Such a server does not know the rules in the schemas, and drops them.
        crds.extend(["--server-side", "false", "--disable-openapi-validation"]);
    }
    cluster.namespace(SYSTEM, &[]).await?;
    helm(cluster, &crds)?;
    let fit = hauberk(cluster, &["check", "--pre"])?;
    print!("{}", String::from_utf8_lossy(&fit.stdout));
    let file = values_file(cluster, &Value::Null)?;
    helm(
        cluster,
        &[
            "upgrade",
            "hauberk",
            "charts/hauberk",
            "--install",
            "--values",
            &file,
            "--wait",
        ],
    )?;
    cluster.wait_rollout(SYSTEM, OPERATOR).await?;
    println!(
        "      installed and ready after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let pods = cluster.pods(SYSTEM, OPERATORS).await?;
    ensure!(pods.len() == 2, "{} replicas, expected 2", pods.len());
    Ok(())
}

/// A file with the values of the suite and what a trial changes in them.
pub(super) fn values_file(cluster: &Cluster, changed: &Value) -> anyhow::Result<String> {
    let path = std::env::temp_dir().join(format!("hauberk-e2e-values-{}.json", std::process::id()));
    std::fs::write(&path, values(cluster, changed))?;
    Ok(path.display().to_string())
}

pub(super) async fn check(cluster: &'static Cluster) -> anyhow::Result<()> {
    let pause = Duration::from_secs(1);
    eventually_every(pause, SOON, "hauberk check is green", async || {
        let output = hauberk(cluster, &["check"])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        print!("{text}");
        Ok(())
    })
    .await
}
