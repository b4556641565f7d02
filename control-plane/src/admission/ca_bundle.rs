//! Keeps what the API server verifies the webhooks' certificate with: `caBundle` in their two registrations is the
//! authority's trust bundle, with both roots while they rotate. Only the holder of the lease writes, and only when
//! something differs.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use json_patch::Patch;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::authority::{Authority, SERVICE_ACCOUNT};
use crate::metrics::{WriteMetrics, Written};
use crate::status::write::OWNER;

/// How often the registrations are looked at, besides each change of the roots.
const LOOK: Duration = Duration::from_secs(60);
/// The same after something failed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Time for one call.
const ANSWER: Duration = Duration::from_secs(10);
/// Name of both registrations.
const NAME: &str = SERVICE_ACCOUNT;

/// Keeps the roots in the registrations of the webhooks while this replica holds the lease, for ever.
///
/// # Errors
/// When lease or authority are no longer followed.
pub async fn keep_ca_bundle(
    client: Client,
    authority: &Authority,
    mut leader: watch::Receiver<bool>,
    metrics: WriteMetrics,
) -> anyhow::Result<()> {
    let mut keeper = Keeper {
        client,
        metrics,
        said: HashSet::new(),
    };
    let mut bundles = authority.bundles();
    loop {
        leader.wait_for(|holds| *holds).await?;
        let good = keeper.look(&authority.roots_pem()).await;
        let wait = if good { LOOK } else { LOOK_AGAIN };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = bundles.next() => anyhow::ensure!(changed.is_some(), "the authority has ended"),
            changed = leader.changed() => changed?,
        }
    }
}

struct Keeper {
    client: Client,
    metrics: WriteMetrics,
    /// Problems that were logged already.
    said: HashSet<&'static str>,
}

impl Keeper {
    /// Sees to both registrations; tells whether all is well, or beyond what looking again soon would mend.
    async fn look(&mut self, roots: &str) -> bool {
        let roots = base64::engine::general_purpose::STANDARD.encode(roots);
        let mut good = true;
        for resource in [
            ApiResource::erase::<MutatingWebhookConfiguration>(&()),
            ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
        ] {
            let kind = if resource.kind.starts_with("Mutating") {
                "MutatingWebhookConfiguration"
            } else {
                "ValidatingWebhookConfiguration"
            };
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            match timeout(ANSWER, keep(&api, &roots)).await {
                Ok(Ok(changed)) => {
                    self.said.remove(kind);
                    if changed {
                        self.metrics.count(Written::ca_bundle, true);
                        tracing::info!("{kind} {NAME}: its caBundle now has the roots of the mesh");
                    }
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                    if self.said.insert(kind) {
                        tracing::warn!(
                            "{kind} {NAME} is not there, so the API server does not ask the operator: install the \
                             chart's webhooks, or leave them out on purpose"
                        );
                    }
                }
                Ok(Err(error)) => {
                    good = false;
                    self.metrics.count(Written::ca_bundle, false);
                    if self.said.insert(kind) {
                        tracing::warn!(%error, "{kind} {NAME}: its caBundle cannot be kept; trying again");
                    }
                }
                Err(_) => {
                    good = false;
                    self.metrics.count(Written::ca_bundle, false);
                    if self.said.insert(kind) {
                        tracing::warn!("{kind} {NAME}: the API server does not answer; trying again");
                    }
                }
            }
        }
        good
    }
}

/// Puts the roots into one registration where they differ; tells whether they did.
async fn keep(api: &Api<DynamicObject>, roots: &str) -> Result<bool, kube::Error> {
    let registration = api.get(NAME).await?;
    let Some(patch) = change(&registration.data, roots) else {
        return Ok(false);
    };
    let params = PatchParams {
        field_manager: Some(OWNER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(NAME, &params, &kube::api::Patch::Json::<()>(patch))
        .await?;
    Ok(true)
}

/// The change that puts the roots into a registration; `None` when they are there. Each webhook is named again, so that a
/// list that has changed meanwhile is not hit at the wrong place.
fn change(registration: &Value, roots: &str) -> Option<Patch> {
    let mut steps = Vec::new();
    for (i, webhook) in registration["webhooks"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if webhook["clientConfig"]["caBundle"] != roots {
            steps
                .push(json!({"op": "test", "path": format!("/webhooks/{i}/name"), "value": webhook["name"]}));
            let path = format!("/webhooks/{i}/clientConfig/caBundle");
            steps.push(json!({"op": "add", "path": path, "value": roots}));
        }
    }
    let patch = serde_json::from_value(Value::Array(steps)).expect("these are operations of a patch");
    Some(patch).filter(|patch: &Patch| !patch.0.is_empty())
}

#[cfg(test)]
mod tests;
