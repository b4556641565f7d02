//! The way to a Kubernetes API server: connecting, what it offers, and the lease that elects who writes. `main` connects
//! once; `source::kubernetes` and everything that writes objects share the client.
//!
//! Nothing here knows what the objects mean.

pub mod capabilities;
pub mod lease;
pub mod rbac;
pub mod trust_bundle;

pub(crate) mod answer;
mod backoff;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
pub(crate) mod testing;

use std::time::Duration;

use kube::{Client, Config};
use tokio::time::{Instant, sleep, timeout};

pub(crate) use backoff::Backoff;
use capabilities::{Capabilities, DiscoverError};

/// How long one question may take to be answered.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);
/// How long an API server is waited for at the start. After that the kubelet starts the operator anew, and says so.
const REACHED_WITHIN: Duration = Duration::from_secs(120);

/// A connection to a server, and what it offers.
#[derive(Clone)]
pub struct Server {
    /// The client; cheap to clone.
    pub client: Client,
    /// What the server offers.
    pub capabilities: Capabilities,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither in a pod nor told of a server.
    #[error("kubernetes: {0}; run in a pod with a service account, or name a kubeconfig with KUBECONFIG")]
    Config(String),
    /// The server does not answer, or not as needed.
    #[error("kubernetes: no API server after {} s: {problem}", REACHED_WITHIN.as_secs())]
    Unreachable {
        /// The last problem.
        problem: String,
    },
    /// The server lacks what cannot be done without.
    #[error("kubernetes: {0}")]
    Unfit(String),
}

/// Connects as the pod's service account, or as KUBECONFIG says, and asks what the server offers; each thing that is
/// missing there is logged once, with what that means.
///
/// # Errors
/// When it is not known where the server is, when it cannot be reached for two minutes, or when it is too old.
pub async fn connect() -> Result<Server, ConnectError> {
    let config = Config::infer().await.map_err(|error| {
        let problem = chain(&error);
        ConnectError::Config(problem)
    })?;
    let url = config.cluster_url.to_string();
    let client = Client::try_from(config).map_err(|error| ConnectError::Config(reason(&error)))?;
    let capabilities = reach(&client).await?;
    tracing::info!(server = url, version = %capabilities.version, "kubernetes: connected");
    for line in capabilities.degraded() {
        tracing::warn!(version = %capabilities.version, "kubernetes: {line}");
    }
    Ok(Server { client, capabilities })
}

/// Asks what the server offers until it answers.
async fn reach(client: &Client) -> Result<Capabilities, ConnectError> {
    let deadline = Instant::now() + REACHED_WITHIN;
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    let mut said = false;
    loop {
        let problem = match timeout(ANSWER, Capabilities::discover(client)).await {
            Ok(Ok(capabilities)) => return Ok(capabilities),
            Ok(Err(DiscoverError::Unfit(problem))) => return Err(ConnectError::Unfit(problem)),
            Ok(Err(DiscoverError::Kube(error))) => reason(&error),
            Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
        };
        let pause = backoff.next();
        if Instant::now() + pause > deadline {
            return Err(ConnectError::Unreachable { problem });
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(
                problem,
                "kubernetes: the API server cannot be reached yet; trying again"
            );
        }
        sleep(pause).await;
    }
}

/// A failure in words for a log line or a status: what the server says, or what happened on the way, once.
pub(crate) fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => format!("{} {}", status.code, status.reason),
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        other => chain(other),
    }
}

/// The code with which the server answered; `None` when it did not.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// An error with its causes, each only where the one before does not say it already.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::testing::{Answer, Script, status};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_late_is_waited_for() {
        let script = Script::new(|call, asked| match call {
            0..3 => status(503, "ServiceUnavailable", "etcd is away"),
            _ => testing::offers("33", &["v1"], asked),
        });
        let capabilities = reach(&script.client()).await.unwrap();
        assert_eq!(capabilities.version.minor, 33);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_comes_is_given_up_with_the_last_problem() {
        let start = Instant::now();
        let script = Script::new(|_, _| status(503, "ServiceUnavailable", "etcd is away"));
        let error = reach(&script.client()).await.unwrap_err().to_string();
        assert!(
            error.contains("etcd is away") && error.contains("120 s"),
            "{error}"
        );
        assert!(start.elapsed() <= REACHED_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_given_up_too() {
        let script = Script::new(|_, _| Answer::Never);
        let error = reach(&script.client()).await.unwrap_err().to_string();
        assert!(error.contains("no answer within"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_too_old_is_refused_at_once() {
        let script = Script::new(|_, asked| testing::offers("15", &["v1alpha1"], asked));
        let error = reach(&script.client()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unfit(_)), "{error}");
    }

    #[test]
    fn a_failure_is_told_once_and_in_the_servers_words() {
        let status = serde_json::from_value(
            json!({"code": 403, "reason": "Forbidden", "message": "pods is forbidden"}),
        );
        assert_eq!(
            reason(&kube::Error::Api(status.unwrap())),
            "403 Forbidden: pods is forbidden"
        );
        let io = kube::Error::ReadEvents(std::io::Error::other("reset"));
        assert_eq!(reason(&io), "Error reading events stream: reset");
    }
}
