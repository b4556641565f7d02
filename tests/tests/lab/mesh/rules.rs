//! The user's objects, applied so that a test knows when they hold.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use serde_json::Value;
use tests::client::Call;
use tests::lab::{Lab, eventually};

use super::SOON;

/// Makes each set of rules different from all others.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The text of a VirtualService named `host` with `rules` (YAML, a list), and the stamp that proves it is followed: a
/// request that carries it is answered with it.
pub(crate) fn stamped(host: &str, rules: &str) -> (String, String) {
    let stamp = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
    let rules: String = rules.lines().map(|line| format!("  {line}\n")).collect();
    let yaml = format!(
        "apiVersion: hauberk.dev/v1alpha1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: shop}}\n\
         spec:\n  hosts: [{host}]\n  http:\n  - match: [{{headers: {{x-stamp: {{exact: \"{stamp}\"}}}}}}]\n    \
         directResponse: {{status: 200, body: {{string: \"{stamp}\"}}}}\n{rules}"
    );
    (yaml, stamp)
}

/// Returns when the operator has read all that was written before: the endpoints of a new lab above all.
pub(crate) async fn settled(lab: &Lab) -> anyhow::Result<()> {
    let stamp = NEXT.fetch_add(1, Ordering::Relaxed);
    let marker = format!("settled-{stamp}");
    lab.apply(
        &marker,
        &format!(
            "apiVersion: hauberk.dev/v1alpha1\nkind: VirtualService\nmetadata: {{name: {marker}, namespace: lab}}\n\
             spec: {{hosts: [nobody], http: [{{directResponse: {{status: 200}}}}]}}\n"
        ),
    )?;
    eventually(SOON, "the operator has read everything", async || {
        object(lab, "VirtualService", &marker).await?;
        Ok(())
    })
    .await?;
    lab.delete(&marker)
}

/// Applies HTTP rules for `host` and returns when every pod of `clients` follows them, and everything applied before.
pub(crate) async fn route(lab: &Lab, clients: &[&str], host: &str, rules: &str) -> anyhow::Result<()> {
    let (yaml, stamp) = stamped(host, rules);
    lab.apply(&format!("vs-{host}"), &yaml)?;
    for client in clients {
        follows(lab, client, host, &stamp).await?;
    }
    Ok(())
}

/// Returns when `client` follows the rules with `stamp`.
pub(crate) async fn follows(lab: &Lab, client: &str, host: &str, stamp: &str) -> anyhow::Result<()> {
    let what = format!("pod {client} follows rule set {stamp} of {host}");
    let url = lab.service(host).url("/");
    eventually(SOON, &what, async || {
        let reply = lab
            .pod(client)
            .send(Call::get(&url).header("x-stamp", stamp))
            .await?;
        ensure!(reply.text() == stamp, "{} {}", reply.status, reply.text());
        Ok(())
    })
    .await
}

/// Applies a DestinationRule named `host`, then `rules` for the same host, and returns when `clients` follow both.
pub(crate) async fn policy(
    lab: &Lab,
    clients: &[&str],
    host: &str,
    spec: &str,
    rules: &str,
) -> anyhow::Result<()> {
    lab.apply(&format!("dr-{host}"), &destination_rule(host, spec))?;
    route(lab, clients, host, rules).await
}

/// The text of a DestinationRule named `host` with more of `spec` (YAML, a mapping).
pub(crate) fn destination_rule(host: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: hauberk.dev/v1alpha1\nkind: DestinationRule\nmetadata: {{name: {host}, namespace: shop}}\n\
         spec:\n  host: {host}\n{spec}"
    )
}

/// Rules that send everything to `host`.
pub(crate) fn all_to(host: &str) -> String {
    format!("- route: [{{destination: {{host: {host}}}}}]")
}

/// What the operator says of everything.
pub(crate) async fn status(lab: &Lab) -> anyhow::Result<Value> {
    let reply = lab.operator().admin("/status").await?;
    ensure!(reply.status == 200, "/status answers {}", reply.status);
    reply.json()
}

/// What the operator says of one object.
pub(crate) async fn object(lab: &Lab, kind: &str, name: &str) -> anyhow::Result<Value> {
    let status = status(lab).await?;
    let objects = status["objects"].as_array().cloned().unwrap_or_default();
    objects
        .into_iter()
        .find(|object| object["kind"] == kind && object["name"] == name)
        .with_context(|| format!("the status knows no {kind} {name}"))
}

/// What a pod's proxy says of one cluster, found by a part of its name.
pub(crate) async fn cluster(lab: &Lab, pod: &str, part: &str) -> anyhow::Result<Value> {
    let clusters: Value = lab.proxy(pod).admin("/clusters").await?.json()?;
    let found = clusters.as_array().and_then(|all| {
        all.iter()
            .find(|c| c["name"].as_str().is_some_and(|n| n.contains(part)))
    });
    found
        .cloned()
        .with_context(|| format!("the proxy of {pod} knows no cluster like {part}: {clusters}"))
}
