//! `HAUBERK_PROBES`: a JSON object of probes under `container/kind`. Read by the settings when the proxy starts; what
//! cannot be honoured is an error that names the probe and the field, and the proxy does not start.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::http::{Get, Scheme};
use super::{Probe, Probes, What};

const KINDS: [&str; 3] = ["startup", "readiness", "liveness"];

/// A probe as the injector writes it. The names and defaults are those of the pod's own field.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    kind: Kind,
    port: NonZeroU16,
    timeout_seconds: Option<NonZeroU32>,
    host: Option<String>,
    scheme: Option<Scheme>,
    path: Option<String>,
    headers: Option<Vec<Header>>,
    service: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Http,
    Tcp,
    Grpc,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
    #[serde(default)]
    value: String,
}

impl FromStr for Probes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|e| format!("no JSON object of probes: {e}"))?;
        let probes = all.into_iter().map(|(name, value)| {
            let probe = named(&name)
                .and_then(|()| serde_json::from_value::<Written>(value).map_err(|e| e.to_string()))
                .and_then(Probe::try_from)
                .map_err(|problem| format!("probe {name:?}: {problem}"))?;
            Ok((name, Arc::new(probe)))
        });
        probes.collect::<Result<_, String>>().map(Self)
    }
}

fn named(name: &str) -> Result<(), String> {
    match name.split_once('/') {
        Some((container, kind)) if !container.is_empty() && KINDS.contains(&kind) => Ok(()),
        _ => Err(format!(
            "the name must be a container's, then / and one of {}",
            KINDS.join(", ")
        )),
    }
}

impl TryFrom<Written> for Probe {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written {
            kind,
            port,
            timeout_seconds,
            host,
            scheme,
            path,
            headers,
            service,
        } = written;
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (host, path, service) = (filled(host), filled(path), filled(service));
        let headers = headers.unwrap_or_default();
        let only = |used: bool, field: &str, of: &str| match used {
            true => Err(format!("{field} is for a probe of kind {of}")),
            false => Ok(()),
        };
        if kind != Kind::Http {
            only(scheme.is_some(), "scheme", "http")?;
            only(path.is_some(), "path", "http")?;
            only(!headers.is_empty(), "headers", "http")?;
        }
        if kind != Kind::Grpc {
            only(service.is_some(), "service", "grpc")?;
        } else {
            only(host.is_some(), "host", "http or tcp")?;
        }
        let what = match kind {
            Kind::Http => What::Http(Get::new(
                scheme.unwrap_or_default(),
                path.as_deref().unwrap_or("/"),
                headers.iter().map(|h| (h.name.as_str(), h.value.as_str())),
            )?),
            Kind::Tcp => What::Tcp,
            Kind::Grpc => What::Grpc {
                service: service.unwrap_or_default(),
            },
        };
        Ok(Self {
            what,
            port: port.get(),
            host,
            timeout: Duration::from_secs(timeout_seconds.map_or(1, |s| s.get().into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        text.parse::<Probes>().expect_err(text)
    }

    #[test]
    fn every_kind_is_read_with_the_defaults_of_a_pod() {
        let Probes(probes) = r#"{
            "web/startup": {"kind": "tcp", "port": 8080, "host": "localhost"},
            "web/readiness": {"kind": "http", "port": 8080, "scheme": "HTTPS", "path": "/ready?full=1",
                "headers": [{"name": "Host", "value": "shop"}, {"name": "X-A", "value": ""}], "timeoutSeconds": 7},
            "side/liveness": {"kind": "grpc", "port": 9000, "service": "shop.Cart", "host": "", "headers": null}
        }"#
        .parse()
        .unwrap();
        let tcp = &probes["web/startup"];
        assert!(matches!(tcp.what, What::Tcp));
        assert_eq!(
            (tcp.port, tcp.host.as_deref(), tcp.timeout),
            (8080, Some("localhost"), Duration::from_secs(1))
        );
        assert!(matches!(probes["web/readiness"].what, What::Http(_)));
        assert_eq!(probes["web/readiness"].timeout, Duration::from_secs(7));
        assert!(matches!(&probes["side/liveness"].what, What::Grpc { service } if service == "shop.Cart"));
        assert!("{}".parse::<Probes>().unwrap().0.is_empty());
    }

    #[test]
    fn what_the_injector_writes_is_read() {
        let Probes(probes) = r#"{"app/liveness":{"kind":"grpc","port":50051,"service":"live","timeoutSeconds":1},
            "app/readiness":{"kind":"http","port":8080,"scheme":"HTTPS","path":"/ready","headers":[
            {"name":"Host","value":"web.example"},{"name":"X-Note","value":"a \"quoted\" text"}],"timeoutSeconds":3},
            "app/startup":{"kind":"http","port":8080,"scheme":"HTTP","path":"/up?cost=\u00241&q=\u0024(HAUBERK_POD)",
            "timeoutSeconds":1},"db/readiness":{"kind":"tcp","port":5432,"timeoutSeconds":1}}"#
            .parse()
            .unwrap();
        assert_eq!(probes.len(), 4);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (text, parts) in [
            ("", vec!["no JSON object of probes"]),
            ("[]", vec!["no JSON object of probes"]),
            (
                r#"{"web": {"kind": "tcp", "port": 1}}"#,
                vec!["\"web\"", "readiness"],
            ),
            (
                r#"{"web/ready": {"kind": "tcp", "port": 1}}"#,
                vec!["\"web/ready\"", "liveness"],
            ),
            (
                r#"{"a/liveness": {"kind": "exec", "port": 1}}"#,
                vec!["\"a/liveness\"", "exec", "grpc"],
            ),
            (r#"{"a/liveness": {"kind": "tcp"}}"#, vec!["missing field `port`"]),
            (
                r#"{"a/liveness": {"kind": "tcp", "port": 0}}"#,
                vec!["a/liveness"],
            ),
            (
                r#"{"a/liveness": {"kind": "tcp", "port": "http"}}"#,
                vec!["a/liveness", "http"],
            ),
            (
                r#"{"a/liveness": {"kind": "tcp", "port": 1, "path": "/x"}}"#,
                vec!["path is for", "http"],
            ),
            (
                r#"{"a/liveness": {"kind": "http", "port": 1, "service": "x"}}"#,
                vec!["service is for", "grpc"],
            ),
            (
                r#"{"a/liveness": {"kind": "http", "port": 1, "scheme": "ftp"}}"#,
                vec!["ftp", "https"],
            ),
            (
                r#"{"a/liveness": {"kind": "http", "port": 1, "colour": "red"}}"#,
                vec!["colour"],
            ),
            (
                r#"{"a/liveness": {"kind": "http", "port": 1, "headers": [{"name": "a b", "value": ""}]}}"#,
                vec!["header", "a b"],
            ),
        ] {
            let problem = problem(text);
            assert!(
                parts.iter().all(|part| problem.contains(part)),
                "{text}: {problem}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}", path in ".{0,40}") {
            let _ = text.parse::<Probes>();
            let probe = serde_json::json!({"a/liveness": {"kind": "http", "port": 1, "path": path}});
            proptest::prop_assert!(probe.to_string().parse::<Probes>().is_ok());
        }
    }
}
