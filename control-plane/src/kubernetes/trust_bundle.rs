//! The ConfigMaps from which a pod's proxy learns the roots of the mesh before it has spoken to the operator: one in every
//! namespace that has proxies, or is to have them. `main` runs this beside the authority; only the holder of the lease
//! writes.
//!
//! What is written is looked at again every minute, and put right where someone changed it. A namespace that cannot be
//! written to holds up no other one. Nothing is deleted here: a namespace that leaves the mesh keeps its copy, which holds
//! nothing secret, since pods may still have it mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::names::{
    INJECT_SWITCH, PLATFORM_NAMESPACES, ROOT_NAMESPACE, TRUST_BUNDLE_CONFIG_MAP, TRUST_BUNDLE_KEY,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::{Failed, within};
use crate::admin::SourceReport;
use crate::authority::Authority;
use crate::metrics::AuthorityMetrics;
use crate::state::World;

/// Label that says who looks after an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The operator, there and as the owner of fields.
pub const KEEPER: &str = "hauberk-control-plane";

/// How often what was written is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Between two requests, so that a thousand namespaces do not crowd out what else the API server has to do.
const PAUSE: Duration = Duration::from_millis(20);
/// For the world to settle: many changes of pods are one change here.
const SETTLE: Duration = Duration::from_millis(200);
/// Between tries in a namespace that cannot be written to.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The namespaces that are to have the roots: the operator's own, those whose pods are to get proxies, and those that have
/// pods with a proxy.
#[must_use]
pub fn wanted(world: &World) -> BTreeSet<String> {
    let on = |labels: &BTreeMap<String, String>| labels.get(INJECT_SWITCH).is_some_and(|v| v == "enabled");
    let labelled = world
        .namespaces()
        .filter(|(_, labels)| on(labels))
        .map(|(name, _)| name);
    let meshed = world
        .pods()
        .filter(|pod| pod.injected)
        .map(|pod| pod.name.namespace.as_str());
    labelled
        .chain(meshed)
        .filter(|name| !PLATFORM_NAMESPACES.contains(name))
        .chain([ROOT_NAMESPACE])
        .map(str::to_owned)
        .collect()
}

/// Keeps the ConfigMaps as they should be while `holds` says that this operator is the one that writes. Runs until the
/// authority or the source is gone.
///
/// # Errors
/// Never for what the API server says: that is logged, counted and tried again.
pub async fn run(
    client: kube::Client,
    authority: Arc<Authority>,
    mut source: watch::Receiver<SourceReport>,
    mut holds: watch::Receiver<bool>,
    metrics: AuthorityMetrics,
) -> anyhow::Result<()> {
    let mut bundles = authority.bundles();
    let mut keeper = Keeper {
        client,
        metrics,
        known: BTreeMap::new(),
    };
    loop {
        let writes = *holds.borrow_and_update();
        let world = {
            let report = source.borrow_and_update();
            report.loaded.then(|| report.world.clone())
        };
        let due = match world.filter(|_| writes) {
            Some(world) => keeper.pass(&wanted(&world), &authority.roots_pem(), &holds).await,
            None => {
                // Another holder may write meanwhile, so nothing that was seen counts any more.
                keeper.known.clear();
                None
            }
        };
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            changed = source.changed() => {
                changed?;
                tokio::time::sleep(SETTLE).await;
            }
            changed = holds.changed() => changed?,
            bundle = bundles.next() => if bundle.is_none() { anyhow::bail!("the authority is gone") },
        }
    }
}

/// Writes, and knows what was written.
struct Keeper {
    client: kube::Client,
    metrics: AuthorityMetrics,
    known: BTreeMap<String, Known>,
}

/// How things stand in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// What was written; `None` until that succeeded.
    written: Option<Arc<str>>,
    /// When to turn to it again, unless the roots change before.
    next: Instant,
    /// Tries that failed, since the last one that did not.
    failures: u32,
}

impl Keeper {
    /// Turns to each namespace whose time it is; says when the next one's comes. Stops when the lease is lost.
    async fn pass(
        &mut self,
        wanted: &BTreeSet<String>,
        roots: &str,
        holds: &watch::Receiver<bool>,
    ) -> Option<Instant> {
        self.known.retain(|namespace, _| wanted.contains(namespace));
        let roots: Arc<str> = roots.into();
        for namespace in wanted {
            let known = self.known.get(namespace);
            if !due(known, &roots, Instant::now()) {
                continue;
            }
            if !*holds.borrow() {
                return None;
            }
            let before = known.and_then(|k| k.written.clone());
            let failures = known.map_or(0, |k| k.failures);
            let done = self.keep(namespace, &roots, before.as_ref()).await;
            let now = Instant::now();
            let next = match done {
                Ok(()) => Known {
                    written: Some(roots.clone()),
                    next: now + LOOK_AGAIN,
                    failures: 0,
                },
                Err(failed) => {
                    self.failed(namespace, &failed, failures);
                    Known {
                        written: None,
                        next: now + backoff(failures),
                        failures: failures.saturating_add(1),
                    }
                }
            };
            self.known.insert(namespace.clone(), next);
            tokio::time::sleep(PAUSE).await;
        }
        self.known.values().map(|known| known.next).min()
    }

    /// Writes the roots, or, where they have been written already, only if they are not there any more.
    async fn keep(&self, namespace: &str, roots: &Arc<str>, before: Option<&Arc<str>>) -> Result<(), Failed> {
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        if before == Some(roots) {
            let found = within(config_maps.get_opt(TRUST_BUNDLE_CONFIG_MAP)).await?;
            if found.as_ref().is_some_and(|found| as_wanted(found, roots)) {
                return Ok(());
            }
            tracing::warn!(
                namespace,
                "the trust bundle of a namespace was changed or removed; writing it again"
            );
        }
        let object = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": TRUST_BUNDLE_CONFIG_MAP,
                "namespace": namespace,
                "labels": { MANAGED_BY: KEEPER },
            },
            "data": { TRUST_BUNDLE_KEY: &**roots },
        });
        // Nobody else has a say in these fields.
        let params = PatchParams::apply(KEEPER).force();
        within(config_maps.patch(TRUST_BUNDLE_CONFIG_MAP, &params, &Patch::Apply(&object))).await?;
        self.metrics.bundles_written.inc();
        tracing::debug!(namespace, "wrote the trust bundle of a namespace");
        Ok(())
    }

    fn failed(&self, namespace: &str, failed: &Failed, failures: u32) {
        if leaving(failed) {
            tracing::debug!(namespace, reason = %failed, "a namespace is going, or gone");
            return;
        }
        self.metrics.bundles_failed.inc();
        // Once is enough for a log; that it goes on is in the metric.
        if failures == 0 {
            tracing::warn!(
                namespace,
                reason = %failed,
                "the trust bundle of a namespace cannot be written, so new pods there cannot start; trying again"
            );
        }
    }
}

/// Whether a namespace must be turned to now.
fn due(known: Option<&Known>, roots: &Arc<str>, now: Instant) -> bool {
    match known {
        None => true,
        Some(known) => known.next <= now || known.written.as_ref().is_some_and(|written| written != roots),
    }
}

fn as_wanted(found: &ConfigMap, roots: &str) -> bool {
    let text = found.data.as_ref().and_then(|data| data.get(TRUST_BUNDLE_KEY));
    let label = found
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(MANAGED_BY));
    text.is_some_and(|text| text == roots) && label.is_some_and(|label| label == KEEPER)
}

/// Whether the namespace is being deleted, or is not there (any more): the world learns of it in its own time.
fn leaving(failed: &Failed) -> bool {
    failed.status().is_some_and(|status| {
        status.is_not_found() || status.is_forbidden() && status.message.contains("being terminated")
    })
}

fn backoff(failures: u32) -> Duration {
    BACKOFF.0.saturating_mul(1 << failures.min(10)).min(BACKOFF.1)
}

#[cfg(test)]
mod tests;
