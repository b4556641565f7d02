//! What an API server offers, where versions differ in what matters here. Asked once, when connecting; what is missing
//! is done without, and said in one log line each.
//!
//! Hauberk is written for Kubernetes 1.29 and later. Older servers work with what they have.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::Client;

/// The oldest minor version (of 1.x) that Hauberk is written for.
pub const WRITTEN_FOR: u32 = 29;

/// What a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Its version.
    pub version: Version,
    /// Where it has EndpointSlices.
    pub endpoint_slices: EndpointSlices,
    /// Whether an init container may go on running beside the others (`restartPolicy: Always`), which lets a proxy start
    /// before the application's containers and end after them.
    pub restartable_init: bool,
    /// Whether it has `policy/v1` (PodDisruptionBudget), or only `v1beta1`.
    pub policy_v1: bool,
    /// Whether it enforces the rules in the custom resources' schemas (`x-kubernetes-validations`).
    pub schema_rules: bool,
}

/// The version of a server, such as 1.33.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1.
    pub major: u32,
    /// 33.
    pub minor: u32,
}

/// The API version at which EndpointSlices are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointSlices {
    /// `discovery.k8s.io/v1`, since 1.21.
    V1,
    /// `discovery.k8s.io/v1beta1`, before.
    V1Beta1,
}

/// Why it is not known what a server offers.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// It did not answer.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// It lacks what cannot be done without.
    #[error("{0}")]
    Unfit(String),
}

impl Capabilities {
    /// Asks a server.
    ///
    /// # Errors
    /// When it does not answer, or has no EndpointSlices at all.
    pub async fn discover(client: &Client) -> Result<Self, DiscoverError> {
        let info = client.apiserver_version().await?;
        let version = Version::read(&info.major, &info.minor).ok_or_else(|| {
            let (major, minor) = (&info.major, &info.minor);
            DiscoverError::Unfit(format!("the server's version {major:?}.{minor:?} cannot be read"))
        })?;
        let slices = versions(client, "discovery.k8s.io").await?;
        let has = |versions: &[String], wanted: &str| versions.iter().any(|version| version == wanted);
        let endpoint_slices = if has(&slices, "v1") {
            EndpointSlices::V1
        } else if has(&slices, "v1beta1") {
            EndpointSlices::V1Beta1
        } else {
            return Err(DiscoverError::Unfit(format!(
                "Kubernetes {version} has no EndpointSlices (discovery.k8s.io/v1 or v1beta1), which endpoints are read \
                 from: use 1.{WRITTEN_FOR} or later"
            )));
        };
        Ok(Self {
            version,
            endpoint_slices,
            restartable_init: version.has(29),
            policy_v1: has(&versions(client, "policy").await?, "v1"),
            schema_rules: version.has(25),
        })
    }

    /// What is missing, and what that means; one line each.
    #[must_use]
    pub fn degraded(&self) -> Vec<String> {
        let Self {
            version,
            endpoint_slices,
            restartable_init,
            policy_v1,
            schema_rules,
        } = self;
        let mut lines = Vec::new();
        if !version.has(WRITTEN_FOR) {
            lines.push(format!(
                "version {version} is older than 1.{WRITTEN_FOR}, which Hauberk is written for; what is missing there \
                 follows"
            ));
        }
        if *endpoint_slices == EndpointSlices::V1Beta1 {
            lines.push(
                "EndpointSlices are read at discovery.k8s.io/v1beta1: pods that are going away leave their Services at \
                 once instead of being drained, and there are no topology hints"
                    .to_owned(),
            );
        }
        if !restartable_init {
            lines.push(
                "no init container can go on running: proxies are injected as the first ordinary container, the others \
                 wait for it to start, and it ends when the containers of a Job have ended"
                    .to_owned(),
            );
        }
        if !policy_v1 {
            lines.push("PodDisruptionBudgets are read and written at policy/v1beta1".to_owned());
        }
        if !schema_rules {
            lines.push(
                "the rules in the custom resources' schemas are not enforced by the server; the operator checks them \
                 itself, and says so in the object's status"
                    .to_owned(),
            );
        }
        lines
    }
}

impl Version {
    /// Some distributions write `1` and `27+`.
    fn read(major: &str, minor: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        Some(Self {
            major: number(major)?,
            minor: number(minor)?,
        })
    }

    /// Whether it is 1.`minor` or later.
    fn has(self, minor: u32) -> bool {
        self >= Self { major: 1, minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The versions of an API group; none when the server does not have it.
async fn versions(client: &Client, group: &str) -> kube::Result<Vec<String>> {
    let request = http::Request::get(format!("/apis/{group}")).body(Vec::new());
    match client
        .request::<APIGroup>(request.map_err(kube::Error::HttpError)?)
        .await
    {
        Ok(group) => Ok(group.versions.into_iter().map(|v| v.version).collect()),
        Err(error) if super::code(&error) == Some(404) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::testing::{Script, offers, status};

    async fn discover(
        minor: &'static str,
        slices: &'static [&'static str],
    ) -> Result<Capabilities, DiscoverError> {
        let script = Script::new(move |_, asked| offers(minor, slices, asked));
        Capabilities::discover(&script.client()).await
    }

    #[tokio::test]
    async fn what_is_missing_follows_the_version_and_is_said_line_by_line() {
        for (minor, slices, at, lines) in [
            ("33", &["v1"][..], EndpointSlices::V1, 0),
            ("29+", &["v1"], EndpointSlices::V1, 0),
            ("28", &["v1"], EndpointSlices::V1, 2),
            ("24", &["v1", "v1beta1"], EndpointSlices::V1, 3),
            ("20", &["v1beta1"], EndpointSlices::V1Beta1, 5),
        ] {
            let found = discover(minor, slices).await.unwrap();
            assert_eq!(
                (found.endpoint_slices, found.degraded().len()),
                (at, lines),
                "1.{minor}: {:?}",
                found.degraded()
            );
            assert_eq!(found.restartable_init, found.version.minor >= 29);
        }
    }

    #[tokio::test]
    async fn without_endpoint_slices_nothing_can_be_done() {
        let error = discover("15", &[]).await.unwrap_err();
        assert!(
            matches!(&error, DiscoverError::Unfit(text) if text.contains("1.29")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_group_that_is_missing_is_no_failure_and_a_failure_is_not_a_missing_group() {
        let script = Script::new(|call, asked| match call {
            0 => offers("33", &["v1"], asked),
            _ => status(500, "InternalError", "no"),
        });
        let error = Capabilities::discover(&script.client()).await.unwrap_err();
        assert!(matches!(error, DiscoverError::Kube(_)), "{error}");
    }

    #[test]
    fn versions_of_distributions_are_read() {
        assert_eq!(Version::read("1", "27+"), Some(Version { major: 1, minor: 27 }));
        assert_eq!(Version::read("", "27"), None);
        assert!(Version { major: 2, minor: 0 }.has(29));
    }
}
