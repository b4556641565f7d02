//! What an installation says about the proxies it injects. The operator and `hauberk inject` read it from the chart's
//! values; annotations of a pod change some of it for that pod (see [`crate::ANNOTATIONS`]).

use std::fmt;
use std::str::FromStr;

use api::{Networks, Ports, names};
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;
use crate::values::{LogFilter, Time, optional_text, text};

/// What the proxies of an installation are like. Every field has a default, so an empty object is an installation as it
/// comes; an unknown field is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Image of the proxy, with its tag or digest. The program must be on the image's path as `hauberk-proxy`.
    pub image: String,
    /// When the image is pulled; without it as the cluster does by itself.
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets that the image is pulled with; they must be in the namespace of the pod.
    pub image_pull_secrets: Vec<String>,
    /// Where proxies find the operator, as `https://host:port`.
    pub operator: String,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Filter of the proxies' log.
    #[serde(with = "text")]
    pub log: LogFilter,
    /// Form of the proxies' log.
    pub log_format: LogFormat,
    /// The proxies' access log.
    pub access_log: AccessLog,
    /// Whether the cluster knows native sidecar containers (init containers that go on, Kubernetes 1.29).
    pub native: bool,
    /// What proxies ask for and may use.
    pub resources: Resources,
    /// After a proxy was told to stop, how long it accepts connections.
    #[serde(with = "text")]
    pub drain_delay: Time,
    /// After that, how long open connections may go on.
    #[serde(with = "text")]
    pub drain_timeout: Time,
    /// Ports elsewhere that every pod calls without its proxy.
    #[serde(with = "text")]
    pub skip_outbound_ports: Ports,
    /// Ports of every pod that bypass its proxy.
    #[serde(with = "text")]
    pub skip_inbound_ports: Ports,
    /// Networks that every pod calls without its proxy.
    #[serde(with = "text")]
    pub skip_outbound_cidrs: Networks,
    /// Networks whose calls bypass every pod's proxy.
    #[serde(with = "text")]
    pub skip_inbound_cidrs: Networks,
}

/// What proxies ask for and may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Resources {
    /// What is set aside for a proxy.
    pub requests: Amounts,
    /// What a proxy may use at most.
    pub limits: Amounts,
}

/// An amount of each kind; none where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Amounts {
    /// CPU in cores.
    #[serde(with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Memory in bytes.
    #[serde(with = "optional_text", skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Whenever a container starts.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Not at all: the node must have it.
    Never,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines of words.
    Text,
    /// One JSON object a line.
    Json,
}

/// The access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// None.
    Off,
    /// One line of words a request.
    Text,
    /// One JSON object a request.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image: concat!("hauberk-proxy:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            operator: names::OPERATOR_URL.to_owned(),
            trust_domain: names::TRUST_DOMAIN.to_owned(),
            log: "info".parse().expect("info is a level"),
            log_format: LogFormat::Text,
            access_log: AccessLog::Off,
            native: false,
            resources: Resources::default(),
            drain_delay: Time::seconds(5),
            drain_timeout: Time::seconds(20),
            skip_outbound_ports: Ports::default(),
            skip_inbound_ports: Ports::default(),
            skip_outbound_cidrs: Networks::default(),
            skip_inbound_cidrs: Networks::default(),
        }
    }
}

impl Default for Resources {
    /// 50 thousandths of a core and 32 MiB are set aside; memory is limited to 256 MiB, and CPU is not limited, because a
    /// proxy that is held back slows every request of its pod down.
    fn default() -> Self {
        let amount = |text: &str| Some(text.parse().expect("an amount"));
        Self {
            requests: Amounts {
                cpu: amount("50m"),
                memory: amount("32Mi"),
            },
            limits: Amounts {
                cpu: None,
                memory: amount("256Mi"),
            },
        }
    }
}

impl PullPolicy {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for AccessLog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!(
                "{text:?} is no form of the access log: write off, text or json"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_an_installation_as_it_comes() {
        let read: Config = serde_json::from_str("{}").unwrap();
        assert_eq!(read, Config::default());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config = Config {
            image_pull_policy: Some(PullPolicy::Never),
            skip_inbound_ports: "22,8000-8010".parse().unwrap(),
            skip_outbound_cidrs: "10.0.0.0/8".parse().unwrap(),
            native: true,
            ..Config::default()
        };
        let written = serde_json::to_string(&config).unwrap();
        assert!(
            written.contains(r#""skipInboundPorts":"22,8000-8010""#),
            "{written}"
        );
        assert_eq!(serde_json::from_str::<Config>(&written).unwrap(), config);
    }

    #[test]
    fn numbers_of_a_template_are_taken_as_what_they_look_like() {
        let text =
            r#"{"skipOutboundPorts": 5432, "resources": {"requests": {"cpu": 1}, "limits": {"memory": ""}}}"#;
        let read: Config = serde_json::from_str(text).unwrap();
        assert!(read.skip_outbound_ports.contains(5432));
        assert_eq!(read.resources.requests.cpu, Some("1".parse().unwrap()));
        assert_eq!(read.resources.limits, Amounts::default());
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for (text, says) in [
            (r#"{"colour": "red"}"#, "colour"),
            (r#"{"drainDelay": "soon"}"#, "250ms"),
            (r#"{"skipOutboundPorts": "http"}"#, "8000-8010"),
            (r#"{"resources": {"limits": {"memory": "lots"}}}"#, "64Mi"),
            (r#"{"log": "loud"}"#, "warn"),
        ] {
            let error = serde_json::from_str::<Config>(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
