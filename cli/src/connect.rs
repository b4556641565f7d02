//! The way to the API server, as kubectl finds it. Called once, by `main`.

use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::settings::Connection;

/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A client for the cluster that is asked for.
///
/// # Errors
/// When there is no kubeconfig, or it cannot be used.
pub(crate) async fn client(connection: &Connection) -> anyhow::Result<Client> {
    let options = KubeConfigOptions {
        context: connection.context.clone(),
        ..KubeConfigOptions::default()
    };
    let mut config = match (&connection.kubeconfig, &connection.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path);
            let file = file.with_context(|| format!("--kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .with_context(|| format!("--kubeconfig {}", path.display()))?
        }
        (None, Some(context)) => Config::from_kubeconfig(&options)
            .await
            .with_context(|| format!("--context {context}"))?,
        (None, None) => Config::infer().await.context(
            "no way to a cluster: name a kubeconfig with --kubeconfig or with KUBECONFIG, as for kubectl",
        )?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(ANSWER);
    Client::try_from(config).context("the kubeconfig cannot be used")
}
