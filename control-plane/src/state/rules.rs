//! A VirtualService as far as it can be made ready without knowing proxy and port: hosts resolved, expressions compiled,
//! headers and durations in the contract's own types. Made once when the object changes; `compile::route` makes a
//! proxy's rules from it by filtering and filling in ports.
//!
//! Whatever `crds::check` let through and the contract cannot carry is refused here, never dropped.

mod cors;
pub(crate) mod delegate;
mod fault;
mod http;
mod l4;
mod retry;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{
    Cors, DirectResponse, Fault, Fraction, HeaderChanges, HttpMatch, Invalid, Redirect, Retry, Rewrite,
};
use crds::VirtualServiceSpec;

use super::Proxy;
use super::host::{Export, Host, ObjectName, ServiceName};

/// The rules of one VirtualService.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rules {
    /// The hosts it steers: as written, and what each is.
    pub(crate) hosts: Vec<(String, Host)>,
    /// The clients it is for.
    pub(crate) export: Export,
    /// For requests, in order.
    pub(crate) http: Vec<HttpTemplate>,
    /// For connections, in order: those of `tls`, then those of `tcp`.
    pub(crate) tcp: Vec<TcpTemplate>,
    /// How many of them are of `tls`.
    pub(crate) tls: usize,
    /// Every target that a rule names, each once, with the field that names it first.
    pub(crate) references: Vec<Reference>,
}

/// A rule for requests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HttpTemplate {
    pub(crate) name: String,
    /// Any of these; empty for every request.
    pub(crate) blocks: Vec<(Filter, HttpMatch)>,
    pub(crate) action: ActionTemplate,
    pub(crate) request_headers: HeaderChanges,
    pub(crate) response_headers: HeaderChanges,
    pub(crate) cors: Option<Box<Cors>>,
}

/// What a rule does with a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ActionTemplate {
    Forward(Box<ForwardTemplate>),
    /// With `to_own_port`, the port is the one the request came to.
    Redirect {
        redirect: Redirect,
        to_own_port: bool,
    },
    Direct(DirectResponse),
    Delegate(Box<Delegation>),
}

/// Another VirtualService that decides, and what is so where its rules leave it out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delegation {
    pub(crate) to: ObjectName,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<Retry>,
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) fault: Option<Fault>,
    pub(crate) mirrors: Vec<MirrorTemplate>,
}

/// Where requests are sent, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ForwardTemplate {
    pub(crate) shares: Vec<Share>,
    /// Zero for none, where that is said.
    pub(crate) timeout: Option<Duration>,
    /// `None` where nothing is said.
    pub(crate) retry: Option<Retry>,
    pub(crate) rewrite: Option<Rewrite>,
    /// Empty for none, where that is said.
    pub(crate) fault: Option<Fault>,
    /// Also those that get no share.
    pub(crate) mirrors: Vec<MirrorTemplate>,
}

/// A target that gets copies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MirrorTemplate {
    /// The field that names it, seen from the rule.
    pub(crate) field: String,
    pub(crate) target: Target,
    pub(crate) share: Fraction,
}

/// A rule for connections.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TcpTemplate {
    /// Any of these, each with its server names; empty for every connection.
    pub(crate) blocks: Vec<(Filter, Vec<String>)>,
    pub(crate) shares: Vec<Share>,
}

/// One target and its share. The weights of a rule have a sum above 0 that fits 32 bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Share {
    pub(crate) target: Target,
    pub(crate) weight: u32,
    pub(crate) request_headers: HeaderChanges,
    pub(crate) response_headers: HeaderChanges,
}

/// A Service, or a subset of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Target {
    pub(crate) service: ServiceName,
    pub(crate) port: Option<u16>,
    pub(crate) subset: Option<String>,
}

/// A target and the field that names it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) field: String,
    pub(crate) target: Target,
}

/// Conditions on the client and the port, which are known when a proxy's rules are made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Filter {
    pub(crate) port: Option<u16>,
    pub(crate) source_namespace: Option<String>,
    pub(crate) source_labels: BTreeMap<String, String>,
}

impl Filter {
    /// Whether the block is for this proxy's traffic to this port.
    pub(crate) fn holds(&self, proxy: &Proxy, port: u16) -> bool {
        self.port.is_none_or(|p| p == port)
            && self
                .source_namespace
                .as_ref()
                .is_none_or(|ns| *ns == proxy.namespace)
            && self
                .source_labels
                .iter()
                .all(|(key, value)| proxy.labels.get(key) == Some(value))
    }

    fn new(
        port: Option<u32>,
        source_namespace: Option<&String>,
        source_labels: &BTreeMap<String, String>,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            port: port.map(|p| port_number("port", p)).transpose()?,
            source_namespace: source_namespace.filter(|ns| !ns.is_empty()).cloned(),
            source_labels: source_labels.clone(),
        })
    }
}

impl Rules {
    /// Makes the rules of a VirtualService in `namespace` ready, or says which fields cannot be.
    pub(crate) fn new(spec: &VirtualServiceSpec, namespace: &str) -> Result<Self, Vec<Invalid>> {
        let VirtualServiceSpec {
            hosts,
            gateways,
            http,
            tls,
            tcp,
            export_to,
        } = spec;
        refuse(&[("spec.gateways", only_gateways(gateways))]).map_err(|e| vec![e])?;
        let mut problems = Vec::new();
        let mut references = References::default();
        let mut keep = |field: &str, i: usize, error: Invalid| {
            problems.push(error.under(&format!("spec.{field}[{i}]")));
        };
        let mut requests = Vec::with_capacity(http.len());
        for (i, rule) in http.iter().enumerate() {
            match http::template(rule, namespace) {
                Ok(template) => {
                    references.add_http(i, &template);
                    requests.push(template);
                }
                Err(error) => keep("http", i, error),
            }
        }
        let mut connections = Vec::with_capacity(tls.len() + tcp.len());
        for (i, rule) in tls.iter().enumerate() {
            match l4::tls_template(rule, namespace) {
                Ok(template) => {
                    references.add("tls", i, &template.shares);
                    connections.push(template);
                }
                Err(error) => keep("tls", i, error),
            }
        }
        for (i, rule) in tcp.iter().enumerate() {
            match l4::tcp_template(rule, namespace) {
                Ok(template) => {
                    references.add("tcp", i, &template.shares);
                    connections.push(template);
                }
                Err(error) => keep("tcp", i, error),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            hosts: hosts
                .iter()
                .map(|h| (h.clone(), Host::resolve(h, namespace)))
                .collect(),
            export: Export::new(export_to, namespace),
            http: requests,
            tcp: connections,
            tls: tls.len(),
            references: references.list,
        })
    }

    /// The Services that it names, as hosts or as targets; one may come twice.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        let targets = self.references.iter().map(|r| &r.target.service);
        self.steered().chain(targets)
    }

    /// The Services that it names as its hosts; one may come twice.
    pub(crate) fn steered(&self) -> impl Iterator<Item = &ServiceName> {
        self.hosts.iter().filter_map(|(_, host)| host.service())
    }

    /// Whether it steers Services that it does not name: those below a wildcard, or those of objects that delegate to it.
    pub(crate) fn steers_others(&self) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|(_, host)| matches!(host, Host::Below(_)))
    }

    /// The VirtualServices that it delegates to, each with the number of the rule that does.
    pub(crate) fn delegations(&self) -> impl Iterator<Item = (usize, &Delegation)> {
        self.http
            .iter()
            .enumerate()
            .filter_map(|(i, rule)| match &rule.action {
                ActionTemplate::Delegate(delegation) => Some((i, &**delegation)),
                ActionTemplate::Forward(_) | ActionTemplate::Redirect { .. } | ActionTemplate::Direct(_) => {
                    None
                }
            })
    }

    /// Whether a rule looks at the client's labels.
    pub(crate) fn looks_at_labels(&self) -> bool {
        self.filters().any(|filter| !filter.source_labels.is_empty())
    }

    /// Whether a rule looks at the client's namespace.
    pub(crate) fn looks_at_namespaces(&self) -> bool {
        self.filters().any(|filter| filter.source_namespace.is_some())
    }

    fn filters(&self) -> impl Iterator<Item = &Filter> {
        let http = self
            .http
            .iter()
            .flat_map(|rule| &rule.blocks)
            .map(|(filter, _)| filter);
        let tcp = self
            .tcp
            .iter()
            .flat_map(|rule| &rule.blocks)
            .map(|(filter, _)| filter);
        http.chain(tcp)
    }
}

#[derive(Default)]
struct References {
    list: Vec<Reference>,
    seen: BTreeSet<Target>,
}

impl References {
    fn add_http(&mut self, rule: usize, template: &HttpTemplate) {
        let mirrors = match &template.action {
            ActionTemplate::Forward(forward) => {
                self.add("http", rule, &forward.shares);
                &forward.mirrors
            }
            ActionTemplate::Delegate(delegation) => &delegation.mirrors,
            ActionTemplate::Redirect { .. } | ActionTemplate::Direct(_) => return,
        };
        for MirrorTemplate { field, target, share } in mirrors {
            if share.is_nothing() {
                continue;
            }
            self.add_one(target, || format!("spec.http[{rule}].{field}"));
        }
    }

    fn add(&mut self, kind: &str, rule: usize, shares: &[Share]) {
        for (i, share) in shares.iter().enumerate() {
            self.add_one(&share.target, || {
                format!("spec.{kind}[{rule}].route[{i}].destination")
            });
        }
    }

    fn add_one(&mut self, target: &Target, field: impl FnOnce() -> String) {
        if self.seen.insert(target.clone()) {
            self.list.push(Reference {
                field: field(),
                target: target.clone(),
            });
        }
    }
}

/// Whether it is for gateways, of which there are none yet; no gateway named means the mesh.
fn only_gateways(gateways: &[String]) -> bool {
    gateways.iter().any(|g| g != "mesh")
}

fn port_number(field: &str, number: u32) -> Result<u16, Invalid> {
    u16::try_from(number)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| Invalid::new(field, format!("{number} is not a port: use 1 to 65535")))
}

fn target(to: &crds::virtual_service::Destination, namespace: &str) -> Result<Target, Invalid> {
    let crds::virtual_service::Destination { host, subset, port } = to;
    let service = ServiceName::resolve(host, namespace).ok_or_else(|| {
        Invalid::new(
            "host",
            format!("`{host}` is not a Service of this cluster: traffic can only be sent to one"),
        )
    })?;
    Ok(Target {
        service,
        port: port.map(|p| port_number("port.number", p.number)).transpose()?,
        subset: subset.clone().filter(|s| !s.is_empty()),
    })
}

/// The weight of share `index` of `count`: a single one gets everything, of several one without a weight gets nothing.
fn weight(weight: Option<i32>, count: usize) -> Result<u32, Invalid> {
    if count == 1 {
        return Ok(1);
    }
    let weight = weight.unwrap_or(0);
    u32::try_from(weight).map_err(|_| Invalid::new("weight", format!("{weight} is negative: use 0 or more")))
}

/// Holds what `Split::new` demands, so that making the split later cannot fail.
fn check_sum(shares: &[Share]) -> Result<(), Invalid> {
    if shares.is_empty() {
        return Err(Invalid::new("route", "is empty: name at least one destination"));
    }
    match u32::try_from(shares.iter().map(|s| u64::from(s.weight)).sum::<u64>()) {
        Ok(0) => Err(Invalid::new(
            "route",
            "has weights with the sum 0: no destination would get traffic",
        )),
        Ok(_) => Ok(()),
        Err(_) => Err(Invalid::new(
            "route",
            "has weights with a sum above 32 bits: use smaller ones",
        )),
    }
}

/// The fields that the contract has no place for. `crds::check` refuses them first, with better words.
pub(crate) fn refuse(fields: &[(&str, bool)]) -> Result<(), Invalid> {
    match fields.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(Invalid::new(*field, "is not supported yet: leave it out")),
        None => Ok(()),
    }
}

/// Durations travel in whole milliseconds; what is shorter than one must not become 0, which means off.
pub(crate) fn whole_ms(duration: Duration) -> Duration {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
