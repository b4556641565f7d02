//! How one proxy routes traffic to one port of a Service: the VirtualService that steers it, seen from this client and
//! this port, or the default to all endpoints.
//!
//! Several VirtualServices for one host are one after the other, the oldest first. With rules for requests they decide about
//! all requests: none that matches means 404, also when no rule is for this client or port. A connection that none of its rules takes goes where it would have gone without them, as
//! in Istio: rules for one port leave the others of a Service open.

use std::collections::BTreeMap;

use api::{
    Action, Body, DirectResponse, Forward, HeaderChanges, HttpRule, Mirror, Retry, Route, Split, TcpRule,
    WeightedCluster,
};

use http::StatusCode;

use super::declared::declared;
use super::name::{read_service_port, service_port, subset};
use super::{From, Outcome};
use crate::state::SourceObject;
use crate::state::rules::delegate;
use crate::state::rules::{
    ActionTemplate, ForwardTemplate, HttpTemplate, MirrorTemplate, Rules, Share, Target, TcpTemplate,
};
use crate::state::{Dependency, Joint, Proxy, ServiceName, World};

pub(super) fn route(world: &World, proxy: &Proxy, name: &str, from: &mut From) -> Outcome {
    let (host, number) = read_service_port(name)?;
    from.depend(Dependency::service(&host));
    let service = world
        .service(&host)
        .ok_or_else(|| format!("there is no Service {host}"))?;
    let port = service.port(number).ok_or_else(|| {
        let ports = service.port_list();
        format!("{number} is not a port of {host}: it has {ports}")
    })?;
    let mut route = Route {
        host: host.to_string(),
        port: number,
        protocol: declared(&port.name, port.app_protocol.as_deref()),
        http: vec![default_http(&host, number)],
        tcp: vec![default_tcp(&host, number)],
    };
    let deciding = world.steering(&host, &proxy.namespace);
    from.looked_at(proxy, &deciding);
    // One after the other, so that the rules of an older object go first.
    let mut http = Vec::new();
    let mut tcp = Vec::new();
    for (object, rules) in &deciding.objects {
        let view = View {
            ports: ports(world, rules, number, from),
            object,
            proxy,
            port: number,
        };
        let mut joints = world.joints(&object.namespace, rules).into_iter();
        for rule in &rules.http {
            match &rule.action {
                ActionTemplate::Delegate(_) => {
                    let joint = joints.next();
                    http.extend(
                        joint
                            .into_iter()
                            .flat_map(|joint| delegated(world, &view, rule, joint, from)),
                    );
                }
                ActionTemplate::Forward(_) | ActionTemplate::Redirect { .. } | ActionTemplate::Direct(_) => {
                    http.extend(view.http(rule));
                }
            }
        }
        tcp.extend(rules.tcp.iter().filter_map(|rule| view.tcp(rule)));
        from.source(object.clone());
    }
    if deciding.objects.iter().any(|(_, rules)| !rules.http.is_empty()) {
        route.http = http;
    }
    tcp.append(&mut route.tcp);
    route.tcp = tcp;
    Ok(Body::Route(Box::new(route)))
}

/// The rules of the object that one rule delegates to.
fn delegated(
    world: &World,
    root: &View<'_>,
    rule: &HttpTemplate,
    joint: Joint<'_>,
    from: &mut From,
) -> Vec<HttpRule> {
    let delegation = joint.delegation;
    let (object, rules) = match joint.leaf {
        Ok(there) => there,
        Err(why) => {
            // These requests are for that object to decide about. Without it, no other rule may take them.
            let to = &delegation.to;
            let text = format!("VirtualService {to}, which decides about this, {why}\n");
            let answer = DirectResponse {
                status: StatusCode::SERVICE_UNAVAILABLE,
                body: text.into(),
            };
            return root.rule(rule, Action::Direct(answer)).into_iter().collect();
        }
    };
    let mut ports = ports(world, rules, root.port, from);
    ports.extend(&root.ports);
    from.source(object.clone());
    let view = View {
        ports,
        object: &object,
        ..*root
    };
    let joined = |leaf| view.http(&delegate::join(rule, delegation, leaf).ok()?);
    rules.http.iter().filter_map(joined).collect()
}

fn default_http(host: &ServiceName, port: u16) -> HttpRule {
    HttpRule {
        name: String::new(),
        source: None,
        matches: Vec::new(),
        action: Action::Forward(Box::new(Forward {
            split: Split::to(service_port(host, port)),
            timeout: None,
            retry: Retry::default(),
            rewrite: None,
            fault: None,
            mirrors: Vec::new(),
        })),
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        cors: None,
    }
}

fn default_tcp(host: &ServiceName, port: u16) -> TcpRule {
    TcpRule {
        name: String::new(),
        source: None,
        sni: Vec::new(),
        split: Split::to(service_port(host, port)),
    }
}

/// The ports of targets that name none: a Service's only port, else the one that was dialled.
fn ports<'a>(
    world: &World,
    rules: &'a Rules,
    dialled: u16,
    from: &mut From,
) -> BTreeMap<&'a ServiceName, u16> {
    let without = rules
        .references
        .iter()
        .map(|r| &r.target)
        .filter(|target| target.port.is_none());
    let port = |target: &'a Target| {
        from.depend(Dependency::service(&target.service));
        let ports = world
            .service(&target.service)
            .map(|s| s.ports.as_slice())
            .unwrap_or_default();
        let port = match ports {
            [only] => only.number,
            _ => dialled,
        };
        (&target.service, port)
    };
    without.map(port).collect()
}

/// The rules of one object as one proxy sees them on one port.
struct View<'a> {
    object: &'a SourceObject,
    proxy: &'a Proxy,
    port: u16,
    ports: BTreeMap<&'a ServiceName, u16>,
}

impl View<'_> {
    /// The rule, unless each of its blocks is for other clients or ports.
    fn http(&self, rule: &HttpTemplate) -> Option<HttpRule> {
        self.rule(rule, self.action(&rule.action)?)
    }

    fn rule(&self, rule: &HttpTemplate, action: Action) -> Option<HttpRule> {
        let here = rule
            .blocks
            .iter()
            .filter(|(filter, _)| filter.holds(self.proxy, self.port));
        let matches: Vec<_> = here.map(|(_, condition)| condition.clone()).collect();
        if matches.is_empty() && !rule.blocks.is_empty() {
            return None;
        }
        Some(HttpRule {
            name: rule.name.clone(),
            source: Some(self.object.into()),
            matches,
            action,
            request_headers: rule.request_headers.clone(),
            response_headers: rule.response_headers.clone(),
            cors: rule.cors.clone(),
        })
    }

    fn tcp(&self, rule: &TcpTemplate) -> Option<TcpRule> {
        let here = rule
            .blocks
            .iter()
            .filter(|(filter, _)| filter.holds(self.proxy, self.port));
        let blocks: Vec<_> = here.collect();
        if blocks.is_empty() && !rule.blocks.is_empty() {
            return None;
        }
        Some(TcpRule {
            name: String::new(),
            source: Some(self.object.into()),
            sni: blocks
                .into_iter()
                .flat_map(|(_, sni)| sni.iter().cloned())
                .collect(),
            split: self.split(&rule.shares),
        })
    }

    /// `None` for a delegation, which is not one rule but those of another object.
    fn action(&self, action: &ActionTemplate) -> Option<Action> {
        Some(match action {
            ActionTemplate::Forward(forward) => {
                let ForwardTemplate {
                    shares,
                    timeout,
                    retry,
                    rewrite,
                    fault,
                    mirrors,
                } = &**forward;
                let mirror = |mirror: &MirrorTemplate| Mirror {
                    cluster: self.cluster(&mirror.target),
                    share: mirror.share,
                };
                let copied = mirrors.iter().filter(|mirror| !mirror.share.is_nothing());
                Action::Forward(Box::new(Forward {
                    split: self.split(shares),
                    timeout: timeout.filter(|timeout| !timeout.is_zero()),
                    retry: retry.clone().unwrap_or_default(),
                    rewrite: rewrite.clone(),
                    fault: fault
                        .clone()
                        .filter(|fault| fault.delay.is_some() || fault.abort.is_some()),
                    mirrors: copied.map(mirror).collect(),
                }))
            }
            ActionTemplate::Redirect {
                redirect,
                to_own_port,
            } => {
                let mut redirect = redirect.clone();
                if *to_own_port {
                    redirect.port = Some(self.port);
                }
                Action::Redirect(redirect)
            }
            ActionTemplate::Direct(direct) => Action::Direct(direct.clone()),
            ActionTemplate::Delegate(_) => return None,
        })
    }

    fn split(&self, shares: &[Share]) -> Split {
        let share = |share: &Share| WeightedCluster {
            cluster: self.cluster(&share.target),
            weight: share.weight,
            request_headers: share.request_headers.clone(),
            response_headers: share.response_headers.clone(),
        };
        Split::new(shares.iter().map(share).collect())
            .expect("the sum of weights was checked with the object")
    }

    fn cluster(&self, target: &Target) -> String {
        let port = target
            .port
            .or_else(|| self.ports.get(&target.service).copied())
            .unwrap_or(self.port);
        subset(&target.service, port, target.subset.as_deref())
    }
}
