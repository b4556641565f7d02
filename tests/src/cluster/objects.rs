//! Objects of any kind, as YAML: applied, deleted, rolled out.

use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::Cluster;
use crate::lab::eventually_every;

/// A deployment is rolled out within this time, or the test fails.
pub const ROLLED_OUT_WITHIN: Duration = Duration::from_secs(120);
/// Between two questions to the API server.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// Who owns the fields that tests apply.
const FIELD_OWNER: &str = "hauberk-e2e";

impl Cluster {
    /// Applies every document of `yaml`, in order. What the server refuses becomes the error, in its words.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        apply(&self.client, yaml).await
    }

    /// Deletes every object that `yaml` names, the last first. What is gone already is no error.
    pub async fn delete(&self, yaml: &str) -> anyhow::Result<()> {
        for document in documents(yaml)?.into_iter().rev() {
            let (api, object) = api_of(&self.client, document).await?;
            match api.delete(&object.name_any(), &DeleteParams::background()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error).with_context(|| described(&object)),
            }
        }
        Ok(())
    }

    /// Creates a namespace with these labels, or gives them to it.
    pub async fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<()> {
        let labels: serde_json::Map<String, Value> = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.apply(&object.to_string()).await
    }

    /// Deletes a namespace and returns when it is gone with all in it.
    pub async fn delete_namespace(&self, name: &str) -> anyhow::Result<()> {
        // Of a namespace with pods in it Kubernetes looks only every quarter of a minute whether they are gone.
        let deployments = Api::<Deployment>::namespaced(self.client(), name);
        let all = ListParams::default();
        deployments
            .delete_collection(&DeleteParams::background(), &all)
            .await
            .context("deployments")?;
        let pods = Api::<Pod>::namespaced(self.client(), name);
        eventually_every(
            PAUSE,
            ROLLED_OUT_WITHIN,
            "the pods of all deployments are gone",
            async || {
                let left = pods.list(&all).await?.items;
                // Those of nobody, of a Job or of a StatefulSet go with the namespace.
                let of_deployment = |pod: &&Pod| {
                    pod.owner_references()
                        .iter()
                        .any(|owner| owner.kind == "ReplicaSet")
                };
                match left.iter().filter(of_deployment).count() {
                    0 => Ok(()),
                    left => bail!("{left} are left"),
                }
            },
        )
        .await?;
        self.delete(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string(),
        )
        .await?;
        let namespaces = Api::<Namespace>::all(self.client());
        eventually_every(
            PAUSE,
            ROLLED_OUT_WITHIN,
            &format!("namespace {name} is gone"),
            async || match namespaces.get_opt(name).await? {
                None => Ok(()),
                Some(_) => bail!("it is still there"),
            },
        )
        .await
    }

    /// Returns when every pod of a deployment is of its newest revision and ready, and none of an older one is left.
    pub async fn wait_rollout(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.client(), namespace);
        eventually_every(
            PAUSE,
            ROLLED_OUT_WITHIN,
            &format!("deployment {namespace}/{name} is rolled out"),
            async || rolled_out(&deployments.get(name).await?),
        )
        .await
    }

    /// Changes a deployment's number of pods and returns when they are as many.
    pub async fn scale(&self, namespace: &str, name: &str, replicas: u32) -> anyhow::Result<()> {
        self.patch_deployment(namespace, name, &json!({"spec": {"replicas": replicas}}))
            .await?;
        self.wait_rollout(namespace, name).await
    }

    /// Replaces every pod of a deployment, as `kubectl rollout restart` does, and returns when that is done.
    pub async fn restart(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let now = format!("{:?}", std::time::SystemTime::now());
        let annotations = json!({"hauberk-e2e/restarted": now});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        self.patch_deployment(namespace, name, &patch).await?;
        self.wait_rollout(namespace, name).await
    }

    async fn patch_deployment(&self, namespace: &str, name: &str, patch: &Value) -> anyhow::Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.client(), namespace);
        let patched = deployments
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched
            .map(drop)
            .with_context(|| format!("deployment {namespace}/{name}"))
    }
}

/// Applies every document, in order.
pub(super) async fn apply(client: &Client, yaml: &str) -> anyhow::Result<()> {
    for document in documents(yaml)? {
        let (api, object) = api_of(client, document).await?;
        let params = PatchParams::apply(FIELD_OWNER).force();
        let applied = api
            .patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await;
        applied.with_context(|| described(&object))?;
    }
    Ok(())
}

fn documents(yaml: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("not YAML")?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

/// The object, and where objects of its kind are.
async fn api_of(client: &Client, document: Value) -> anyhow::Result<(Api<DynamicObject>, DynamicObject)> {
    let object: DynamicObject = serde_json::from_value(document).context("not an object of Kubernetes")?;
    let types = object
        .types
        .as_ref()
        .context("an object without apiVersion and kind")?;
    let kind = GroupVersionKind::try_from(types).context("apiVersion")?;
    let (resource, abilities) = pinned_kind(client, &kind)
        .await
        .with_context(|| format!("the server has no {} {}", kind.api_version(), kind.kind))?;
    let api = match abilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
    };
    Ok((api, object))
}

fn described(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("object", |types| &types.kind);
    let namespace = object
        .namespace()
        .map(|namespace| format!("{namespace}/"))
        .unwrap_or_default();
    format!("{kind} {namespace}{}", object.name_any())
}

/// What is still missing, if anything. As in `kubectl rollout status`.
fn rolled_out(deployment: &Deployment) -> anyhow::Result<()> {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        bail!("the controller has not seen it yet");
    }
    let [all, updated, available] = [
        status.replicas,
        status.updated_replicas,
        status.available_replicas,
    ]
    .map(Option::unwrap_or_default);
    if (all, updated, available) != (wanted, wanted, wanted) {
        bail!("of {wanted} pods {updated} are new and {available} available; there are {all}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(status: &Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "generation": 2},
            "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_rollout_is_over_when_all_pods_are_new_and_available_and_no_other_is_left() {
        for (status, missing) in [
            (
                json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
                "not seen",
            ),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}),
                "there are 3",
            ),
            (
                json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}),
                "1 are new",
            ),
            (
                json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2}),
                "0 available",
            ),
        ] {
            let error = rolled_out(&deployment(&status)).unwrap_err().to_string();
            assert!(error.contains(missing), "{error}");
        }
        let done =
            json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        assert!(rolled_out(&deployment(&done)).is_ok());
    }

    #[test]
    fn documents_are_taken_apart_and_empty_ones_left_out() {
        let yaml = "---\nkind: A\n---\n# nothing\n---\n{kind: B}\n";
        let kinds: Vec<Value> = documents(yaml).unwrap();
        assert_eq!(kinds, [json!({"kind": "A"}), json!({"kind": "B"})]);
    }
}
