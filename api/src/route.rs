//! How traffic to one port of a Service is routed: rules in order, first match wins.

mod action;
mod cors;
mod headers;
mod matching;

use crate::invalid::{Invalid, Under, each, port, required};
use crate::name::ObjectRef;
use crate::protocol::Protocol;
use crate::{limits, proto};

pub use action::{
    Action, DirectResponse, Fault, FaultAbort, FaultDelay, Forward, Fraction, Mirror, Redirect, RegexRewrite,
    Retry, RetryCondition, Rewrite, Split, WeightedCluster,
};
pub use cors::Cors;
pub use headers::HeaderChanges;
pub use matching::{HttpMatch, NamedMatch, Pattern, StringMatch};

/// How traffic to one port of a Service is routed. Resource name: `host:port`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Full name of the Service.
    pub host: String,
    /// Port of the Service.
    pub port: u16,
    /// What the port is declared to speak; `None` to look at the first bytes.
    pub protocol: Option<Protocol>,
    /// For requests; the first that matches decides, and none means 404.
    pub http: Vec<HttpRule>,
    /// For connections; the first that matches decides, and none means the connection is refused.
    pub tcp: Vec<TcpRule>,
}

/// One rule for requests.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRule {
    /// For logs and metrics; may be empty.
    pub name: String,
    /// The object it comes from; `None` for what every Service has by default.
    pub source: Option<ObjectRef>,
    /// Any of these; empty for every request.
    pub matches: Vec<HttpMatch>,
    /// What to do.
    pub action: Action,
    /// Applied to the request before it is sent.
    pub request_headers: HeaderChanges,
    /// Applied to the response.
    pub response_headers: HeaderChanges,
    /// What browsers of other origins are told, whatever the action is.
    pub cors: Option<Box<Cors>>,
}

/// One rule for connections that carry no visible requests.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpRule {
    /// For logs and metrics; may be empty.
    pub name: String,
    /// The object it comes from; `None` for what every Service has by default.
    pub source: Option<ObjectRef>,
    /// TLS server names, exact or `*.suffix`, in lower case; empty for any bytes.
    pub sni: Vec<String>,
    /// Where connections go.
    pub split: Split,
}

impl Route {
    /// Every cluster that a rule names, each once, in order of first mention.
    #[must_use]
    pub fn clusters(&self) -> Vec<&str> {
        let http = self.http.iter().filter_map(|rule| match &rule.action {
            Action::Forward(forward) => Some(&**forward),
            Action::Redirect(_) | Action::Direct(_) => None,
        });
        let http = http.flat_map(|forward| {
            let mirrors = forward.mirrors.iter().map(|mirror| mirror.cluster.as_str());
            named(&forward.split).chain(mirrors)
        });
        let tcp = self.tcp.iter().flat_map(|rule| named(&rule.split));
        let mut seen = std::collections::HashSet::new();
        http.chain(tcp).filter(|name| seen.insert(*name)).collect()
    }
}

fn named(split: &Split) -> impl Iterator<Item = &str> {
    split.clusters().iter().map(|share| share.cluster.as_str())
}

impl TryFrom<proto::Route> for Route {
    type Error = Invalid;

    fn try_from(pb: proto::Route) -> Result<Self, Invalid> {
        let protocol = Protocol::from_proto(pb.protocol());
        let proto::Route {
            host,
            port: number,
            protocol: _,
            http,
            tcp,
        } = pb;
        if host.is_empty() {
            return Err(Invalid::new("host", "is empty"));
        }
        if http.len() > limits::MAX_HTTP_RULES {
            return Err(Invalid::new(
                "http",
                format!(
                    "{} rules are more than the {} allowed",
                    http.len(),
                    limits::MAX_HTTP_RULES
                ),
            ));
        }
        Ok(Self {
            host,
            port: port("port", number)?,
            protocol,
            http: each("http", http)?,
            tcp: each("tcp", tcp)?,
        })
    }
}

impl From<Route> for proto::Route {
    fn from(
        Route {
            host,
            port,
            protocol,
            http,
            tcp,
        }: Route,
    ) -> Self {
        Self {
            host,
            port: port.into(),
            protocol: Protocol::to_proto(protocol),
            http: http.into_iter().map(Into::into).collect(),
            tcp: tcp.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::HttpRule> for HttpRule {
    type Error = Invalid;

    fn try_from(pb: proto::HttpRule) -> Result<Self, Invalid> {
        let proto::HttpRule {
            name,
            source,
            matches,
            request_headers,
            response_headers,
            action,
            cors,
        } = pb;
        Ok(Self {
            name,
            source: source.map(Into::into),
            matches: each("matches", matches)?,
            action: required("action", action)?.try_into()?,
            request_headers: HeaderChanges::from_optional(request_headers).under("request_headers")?,
            response_headers: HeaderChanges::from_optional(response_headers).under("response_headers")?,
            cors: cors.map(Cors::try_from).transpose().under("cors")?.map(Box::new),
        })
    }
}

impl From<HttpRule> for proto::HttpRule {
    fn from(rule: HttpRule) -> Self {
        let HttpRule {
            name,
            source,
            matches,
            action,
            request_headers,
            response_headers,
            cors,
        } = rule;
        Self {
            name,
            source: source.map(Into::into),
            matches: matches.into_iter().map(Into::into).collect(),
            action: Some(action.into()),
            request_headers: request_headers.into_optional(),
            response_headers: response_headers.into_optional(),
            cors: cors.map(|cors| (*cors).into()),
        }
    }
}

fn is_sni(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_'))
}

impl TryFrom<proto::TcpRule> for TcpRule {
    type Error = Invalid;

    fn try_from(pb: proto::TcpRule) -> Result<Self, Invalid> {
        let proto::TcpRule {
            name,
            source,
            sni,
            clusters,
        } = pb;
        if let Some(i) = sni.iter().position(|s| !is_sni(s)) {
            return Err(Invalid::new(
                format!("sni[{i}]"),
                format!(
                    "{:?} is not a server name: use `name` or `*.suffix`, in lower case",
                    sni[i]
                ),
            ));
        }
        Ok(Self {
            name,
            source: source.map(Into::into),
            sni,
            split: Split::new(each("clusters", clusters)?)?,
        })
    }
}

impl From<TcpRule> for proto::TcpRule {
    fn from(
        TcpRule {
            name,
            source,
            sni,
            split,
        }: TcpRule,
    ) -> Self {
        Self {
            name,
            source: source.map(Into::into),
            sni,
            clusters: split.into_proto(),
        }
    }
}
