//! Where an object of ours means something else than Istio's of the same words, on purpose: the list of the guide,
//! `docs/guide/moving.md`, field by field. What is refused is not here; that is [`crate::check`].

use crate::Object;
use crate::destination_rule::tls::{ClientTls, TlsMode};
use crate::destination_rule::{DestinationRule, LoadBalancer, TrafficPolicy};
use crate::virtual_service::{HttpRoute, VirtualService};

/// Each field that means something else, and what.
pub(super) fn of(object: &Object) -> Vec<(String, String)> {
    match object {
        Object::VirtualService(object) => virtual_service(object),
        Object::DestinationRule(object) => destination_rule(object),
        Object::PeerAuthentication(object) => root(
            object.metadata.namespace.as_deref(),
            object.spec.selector.is_none(),
        ),
        Object::Service(_) | Object::Pod(_) | Object::Namespace(_) | Object::EndpointSlice(_) => vec![],
    }
}

fn virtual_service(object: &VirtualService) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let rules = || object.spec.http.iter().enumerate();
    let by_default = |rule: &HttpRoute| {
        let off = |attempts: Option<u32>| attempts == Some(0);
        let retries = rule.retries.as_ref();
        !rule.route.is_empty() && retries.is_none_or(|r| r.retry_on.is_none() && !off(r.attempts))
    };
    // Once an object, or there would be little else to read.
    if let Some((n, _)) = rules().find(|(_, rule)| by_default(rule)) {
        let message = "without retryOn only what provably was not processed is sent again: not UNAVAILABLE, CANCELLED or \
                       503; list them in retryOn where sending twice does no harm";
        found.push((format!("spec.http[{n}].retries"), message.to_owned()));
    }
    for (n, rule) in rules() {
        if rule.fault.is_none() {
            continue;
        }
        for (field, set) in [
            ("timeout", rule.timeout.is_some()),
            ("retries", rule.retries.is_some()),
        ] {
            if set {
                let message = format!(
                    "holds beside the fault of the rule too, where Istio leaves it out: a delay counts into it; remove {field} to have it without"
                );
                found.push((format!("spec.http[{n}].{field}"), message));
            }
        }
    }
    found
}

fn destination_rule(object: &DestinationRule) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let spec = &object.spec;
    let top = spec
        .traffic_policy
        .iter()
        .map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let subsets = spec.subsets.iter().enumerate().filter_map(|(n, subset)| {
        let policy = subset.traffic_policy.as_ref()?;
        Some((format!("spec.subsets[{n}].trafficPolicy"), policy))
    });
    // A subset has the blocks of the object's policy where it leaves them out.
    let inherited = spec
        .traffic_policy
        .as_ref()
        .and_then(|policy| policy.load_balancer.as_ref());
    for (at, policy) in top.chain(subsets) {
        traffic_policy(&at, policy, inherited, &mut found);
    }
    if spec.workload_selector.is_some() {
        let message = "clients that it does not select have the objects of the next namespace (the service's, the root's), which \
                       it hides from them in Istio";
        found.push(("spec.workloadSelector".to_owned(), message.to_owned()));
    }
    let namespace = object.metadata.namespace.as_deref();
    found.extend(root(namespace, true));
    found
}

fn traffic_policy(
    at: &str,
    policy: &TrafficPolicy,
    inherited: Option<&LoadBalancer>,
    found: &mut Vec<(String, String)>,
) {
    let ports = policy.port_level_settings.iter().enumerate().map(|(n, port)| {
        let at = format!("{at}.portLevelSettings[{n}]");
        let balancer = port.load_balancer.as_ref();
        (
            at,
            balancer,
            &port.outlier_detection,
            &port.connection_pool,
            &port.tls,
        )
    });
    let own = (
        at.to_owned(),
        policy.load_balancer.as_ref().or(inherited),
        &policy.outlier_detection,
        &policy.connection_pool,
        &policy.tls,
    );
    for (at, balancer, outlier, pool, tls) in std::iter::once(own).chain(ports) {
        if let Some(outlier) = outlier {
            if balancer.is_none_or(|balancer| balancer.locality_lb_setting.is_none()) {
                let message = "ejects endpoints and does nothing else: it switches on no failover between localities; write \
                               loadBalancer: {localityLbSetting: {}} beside it to have that";
                found.push((format!("{at}.outlierDetection"), message.to_owned()));
            }
            if outlier.interval.is_some() {
                let message = "endpoints are ejected at once and not at the end of an interval; it says how fast earlier \
                               ejections are forgotten";
                found.push((format!("{at}.outlierDetection.interval"), message.to_owned()));
            }
        }
        let max = pool.as_ref().and_then(|pool| pool.tcp.as_ref()?.max_connections);
        if max.is_some() {
            let message = "is never exceeded: it holds over all endpoints and workers of a client's proxy, and requests wait for a \
                           connection; in Istio every worker has one at least";
            found.push((
                format!("{at}.connectionPool.tcp.maxConnections"),
                message.to_owned(),
            ));
        }
        let http = pool.as_ref().and_then(|pool| pool.http.as_ref());
        if http.is_some_and(|http| http.max_retries.is_some()) {
            let message = "holds beside the retry budget, which is always on: 20 percent of the requests under way, and at \
                           least three (retryBudget changes it)";
            found.push((format!("{at}.connectionPool.http.maxRetries"), message.to_owned()));
        }
        let by_sni = |tls: &&ClientTls| {
            tls.mode == Some(TlsMode::Simple)
                && tls.sni.is_some()
                && tls.subject_alt_names.is_empty()
                && tls.insecure_skip_verify != Some(true)
        };
        if tls.as_ref().filter(by_sni).is_some() {
            let message = "the server's certificate must have this name; list its names in subjectAltNames where it has others";
            found.push((format!("{at}.tls.sni"), message.to_owned()));
        }
    }
}

/// What holds for the whole mesh stands in another namespace.
fn root(namespace: Option<&str>, is_for_all: bool) -> Vec<(String, String)> {
    if namespace != Some("istio-system") || !is_for_all {
        return vec![];
    }
    let ours = crate::ROOT_NAMESPACE;
    let message = format!("holds for this namespace alone; what is for the whole mesh stands in {ours}");
    vec![("metadata.namespace".to_owned(), message)]
}
