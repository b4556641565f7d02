//! Calls and loads from inside a pod, asked for from outside.
//!
//! A [`Caller`] is a pod that runs `hauberk-testapp caller`. It is spoken to through the API server, whose short absence
//! it outlives: loads go on in the pod, and only asking waits.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use super::Cluster;
use crate::caller::{Answer, Answered, Ask, CALLER_PORT, Order, Standing, Started};
use crate::lab::eventually_every;

/// The API server may be away this long while a load is asked how it stands.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// A pod that makes calls.
#[derive(Clone, Debug)]
pub struct Caller<'a> {
    cluster: &'a Cluster,
    namespace: String,
    pod: String,
}

/// A load that runs in a pod.
#[derive(Clone, Debug)]
pub struct RunningLoad<'a> {
    caller: Caller<'a>,
    id: u64,
}

impl<'a> Caller<'a> {
    pub(super) fn new(cluster: &'a Cluster, namespace: &str, pod: &str) -> Caller<'a> {
        Caller {
            cluster,
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
        }
    }

    /// Makes one call from inside the pod and returns what came, whatever its status.
    pub async fn call(&self, ask: &Ask) -> anyhow::Result<Answer> {
        match self.try_call(ask).await? {
            Answered::Answer(answer) => Ok(answer),
            Answered::Failed { failure, reason } => {
                bail!(
                    "{} {} from {}: {failure:?}: {reason}",
                    ask.method,
                    ask.url,
                    self.pod
                )
            }
        }
    }

    /// Makes one call from inside the pod and returns what became of it. An error only when the pod could not be asked.
    pub async fn try_call(&self, ask: &Ask) -> anyhow::Result<Answered> {
        self.ask("POST", "/calls", serde_json::to_string(ask)?).await
    }

    /// GETs `url` from inside the pod.
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.call(&Ask::get(url)).await
    }

    /// Starts a load in the pod. It runs until it is stopped or its order is fulfilled.
    pub async fn load(&self, order: &Order) -> anyhow::Result<RunningLoad<'a>> {
        let Started { id } = self.ask("POST", "/loads", serde_json::to_string(order)?).await?;
        Ok(RunningLoad {
            caller: self.clone(),
            id,
        })
    }

    async fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: String) -> anyhow::Result<T> {
        let Caller {
            cluster,
            namespace,
            pod,
        } = self;
        let text = cluster
            .request(method, namespace, pod, CALLER_PORT, path, body)
            .await?;
        serde_json::from_str(&text).with_context(|| format!("not the expected answer: {text}"))
    }
}

impl RunningLoad<'_> {
    /// How it stands.
    pub async fn standing(&self) -> anyhow::Result<Standing> {
        self.patiently("GET").await
    }

    /// Ends it, letting calls under way finish, and returns how it went. Asked again, it returns the same.
    pub async fn stop(&self) -> anyhow::Result<Standing> {
        self.patiently("DELETE").await
    }

    /// Returns once `calls` more calls have been answered or have failed: proof that the load is still at work.
    pub async fn goes_on(&self, calls: u64) -> anyhow::Result<()> {
        let before = self.standing().await?.summary.requests;
        eventually_every(PAUSE, ASKED_WITHIN, "the load goes on", async || {
            let now = self.standing().await?.summary.requests;
            if now < before + calls {
                bail!("{} calls since", now - before);
            }
            Ok(())
        })
        .await
    }

    async fn patiently(&self, method: &str) -> anyhow::Result<Standing> {
        let path = format!("/loads/{}", self.id);
        eventually_every(PAUSE, ASKED_WITHIN, "the load tells how it stands", async || {
            self.caller.ask(method, &path, String::new()).await
        })
        .await
    }
}
