//! The tools of a user on the cluster: Helm, `hauberk`, and plain requests to the API server.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tests::cluster::Cluster;

/// Namespace of the installation.
pub(super) const SYSTEM: &str = "hauberk-system";
/// Name of the operator's Deployment.
pub(super) const OPERATOR: &str = "hauberk-control-plane";
/// Labels of the operator's pods.
pub(super) const OPERATORS: &str = "app.kubernetes.io/name=hauberk-control-plane";

/// The root of this tree.
fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in a workspace")
}

/// Runs Helm; what it prints.
pub(super) fn helm(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("sh");
    command
        .arg(tree().join("scripts/helm.sh"))
        .current_dir(tree())
        .args(arguments);
    let output = run(cluster, command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "helm {}: {text}{errors}",
        arguments.join(" ")
    );
    Ok(text)
}

/// Runs `hauberk`, which stands beside this program.
pub(super) fn hauberk(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut program: PathBuf = std::env::current_exe()?;
    program.set_file_name("hauberk");
    let mut command = Command::new(program);
    command.args(arguments);
    run(cluster, command)
}

fn run(cluster: &Cluster, mut command: Command) -> anyhow::Result<Output> {
    let output = command.env("KUBECONFIG", cluster.kubeconfig()).output();
    output.with_context(|| format!("cannot run {command:?}"))
}

/// The values that the suite installs with, and what a trial changes in them.
pub(super) fn values(cluster: &Cluster, changed: &Value) -> String {
    let image = |name: &str| {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, ""));
        json!({"repository": repository, "tag": tag})
    };
    let mut values = json!({
        "image": {
            "proxy": image(&cluster.images().proxy),
            "controlPlane": image(&cluster.images().control_plane),
        },
    });
    if let (Some(all), Some(more)) = (values.as_object_mut(), changed.as_object()) {
        all.extend(more.clone());
    }
    values.to_string()
}

/// GET of a path of the API server.
pub(super) async fn get(cluster: &Cluster, path: &str) -> anyhow::Result<Value> {
    request(cluster, "GET", path, "application/json", None).await
}

/// DELETE of a path of the API server.
pub(super) async fn delete(cluster: &Cluster, path: &str) -> anyhow::Result<()> {
    request(cluster, "DELETE", path, "application/json", None)
        .await
        .map(drop)
}

/// A request of any kind.
pub(super) async fn request(
    cluster: &Cluster,
    method: &str,
    path: &str,
    kind: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(body)?;
    cluster
        .client()
        .request(request)
        .await
        .with_context(|| format!("{method} {path}"))
}

/// What the API server says to an object that it must refuse.
pub(super) async fn refused(cluster: &Cluster, yaml: &str) -> anyhow::Result<String> {
    match cluster.apply(yaml).await {
        Ok(()) => bail!("taken, though it should have been refused: {yaml}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// A condition of an object's status.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> anyhow::Result<&'a Value> {
    let conditions = object["status"]["conditions"]
        .as_array()
        .context("no conditions yet")?;
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.with_context(|| format!("no condition {kind} in {conditions:?}"))
}
