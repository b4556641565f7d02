//! What is legal and probably not meant: looked for in a world as it is now, so that status and admission say the same
//! of an object. Pure functions; nothing here decides whether an object is accepted.

use std::collections::BTreeMap;

use api::Protocol;
use crds::PeerAuthentication;
use crds::peer_authentication::MtlsMode;

use super::host::{Export, ObjectName, ServiceName};
use super::joined::Joint;
use super::policy::Policy;
use super::rules::{ActionTemplate, Delegation, HttpTemplate, Rules, delegate};
use super::{Pod, Service, SourceObject, World};
use crate::compile::declared;

/// Pods that one policy is looked up for. More would cost what a large namespace has, for each of its policies.
const MAX_PODS: usize = 1000;

/// Pairs of blocks that are compared for one object. All of a large one, at each look, would cost too much.
pub(super) const MAX_COMPARED: usize = 50_000;

type Labels = BTreeMap<String, String>;

/// Subsets of a DestinationRule that select nothing now, or never can. A Service without endpoints is nothing odd.
pub(super) fn subsets(world: &World, policy: &Policy) -> Vec<String> {
    let Some(service) = policy.target.service().and_then(|name| world.service(name)) else {
        return Vec::new();
    };
    let pods: Vec<&Pod> = endpoints(world, &service.name).collect();
    let mut found = Vec::new();
    for (i, subset) in policy.subsets.iter().enumerate() {
        let field = format!("spec.subsets[{i}].labels");
        if let Some((key, value)) = contradiction(service, &subset.labels) {
            found.push(format!(
                "{field}: subset `{}` can never select a pod, because the selector of Service `{}` demands `{key}: {value}`",
                subset.name, service.name.name
            ));
        } else if !pods.is_empty() && !pods.iter().any(|pod| selects(&subset.labels, &pod.labels)) {
            found.push(format!(
                "{field}: subset `{}` selects none of the {} of Service `{}` now; traffic for it has nowhere to go",
                subset.name,
                count(pods.len(), "endpoint", "endpoints"),
                service.name.name
            ));
        }
    }
    found
}

/// Subsets that a VirtualService names and that some of its clients do not have, because what defines them is not for all.
pub(super) fn limited_subsets(world: &World, rules: &Rules) -> Vec<String> {
    let lacking = |policy: &Policy| match (&policy.selector, &policy.export) {
        (Some(_), _) => Some("that its workloadSelector does not select".to_owned()),
        (None, Export::To(namespaces)) if !policy.export.covers(&rules.export) => {
            Some(match namespaces.len() {
                0 => "of every namespace".to_owned(),
                _ => format!(
                    "outside {}",
                    Vec::from_iter(namespaces.iter().cloned()).join(", ")
                ),
            })
        }
        (None, Export::All | Export::To(_)) => None,
    };
    let found = rules.references.iter().filter_map(|reference| {
        let name = reference.target.subset.as_ref()?;
        let mut all = world.governing(&reference.target.service);
        let mut limited = None;
        // One that is for all of them is enough.
        all.try_for_each(|(object, policy)| {
            if policy.subsets.iter().any(|subset| subset.name == *name) {
                let lacking = lacking(policy)?;
                limited.get_or_insert((object, lacking));
            }
            Some(())
        })?;
        let (object, lacking) = limited?;
        Some(format!(
            "{}.subset: `{name}` is defined by {object}, which is not for clients {lacking}, so these have no such subset \
             and their traffic for it has nowhere to go; define it for them too",
            reference.field
        ))
    });
    found.collect()
}

/// Hosts of a VirtualService whose ports are all declared as something that its kind of rules never sees.
pub(super) fn protocols(world: &World, rules: &Rules) -> Vec<String> {
    let (for_requests, remedy): (bool, _) = match (rules.http.is_empty(), rules.tcp.is_empty()) {
        (false, true) => (true, "use spec.tcp, or declare the port as http"),
        (true, false) => (false, "use spec.http, or declare the port as tcp or tls"),
        _ => return Vec::new(),
    };
    let (carries, section) = match for_requests {
        true => ("carries HTTP", "spec.http"),
        false => ("carries anything but HTTP", "spec.tls and spec.tcp"),
    };
    let hosts = rules.hosts.iter().enumerate();
    let found = hosts.filter_map(|(i, (host, target))| {
        let service = world.service(target.service()?)?;
        let unseen = |port: &super::ServicePort| {
            let declared = declared(&port.name, port.app_protocol.as_deref());
            match declared {
                Some(Protocol::Tcp | Protocol::Tls) => for_requests,
                Some(_) => !for_requests,
                None => false,
            }
        };
        (!service.ports.is_empty() && service.ports.iter().all(unseen)).then(|| {
            format!(
                "spec.hosts[{i}]: no port of `{host}` {carries} by its name or appProtocol ({}), so the rules in \
                 {section} see nothing of it; {remedy}",
                service.port_list()
            )
        })
    });
    found.collect()
}

/// Rules that are delegated to and that no request can reach, and an object for delegation that nobody uses.
pub(super) fn delegations(world: &World, object: &ObjectName, rules: &Rules) -> Vec<String> {
    let mut found = Vec::new();
    if rules.hosts.is_empty() && world.index.delegating.linked(object).next().is_none() {
        found.push(
            "spec.hosts: is empty, and no VirtualService delegates to this one (yet), so it has no effect"
                .to_owned(),
        );
    }
    let mut compared = 0;
    for Joint {
        rule: i,
        delegation,
        leaf,
    } in world.joints(&object.namespace, rules)
    {
        let Ok((to, theirs)) = leaf else { continue };
        for (j, leaf) in theirs.http.iter().enumerate() {
            // An object is looked at again at each change, so a large one is looked at in part.
            compared += rules.http[i].blocks.len().max(1) * leaf.blocks.len().max(1);
            if compared > MAX_COMPARED {
                return found;
            }
            let Err(field) = delegate::join(&rules.http[i], delegation, leaf) else {
                continue;
            };
            let why = match field {
                delegate::REWRITE | delegate::PREFIX_REWRITE => format!(
                    "the path in the match here is narrower than the prefix that {field} there replaces; match the same \
                     prefix here, or leave uri to the rule there"
                ),
                field => format!("its match cannot hold together with the one here: see {field}"),
            };
            found.push(format!(
                "spec.http[{i}].delegate: no request reaches spec.http[{j}] of {to}, because {why}"
            ));
        }
        found.extend(beside_answer(i, delegation, &to, theirs));
    }
    found
}

/// What a delegating rule says of requests that are sent on, where a rule at the other end answers them.
fn beside_answer(i: usize, delegation: &Delegation, to: &SourceObject, theirs: &Rules) -> Option<String> {
    let answer = |rule: &HttpTemplate| match &rule.action {
        ActionTemplate::Redirect { .. } => Some("redirect"),
        ActionTemplate::Direct(_) => Some("directResponse"),
        ActionTemplate::Forward(_) | ActionTemplate::Delegate(_) => None,
    };
    let Delegation {
        to: _,
        timeout,
        retry,
        rewrite,
        fault,
        mirrors,
    } = delegation;
    let given = [
        ("timeout", timeout.is_some()),
        ("retries", retry.is_some()),
        ("rewrite", rewrite.is_some()),
        ("fault", fault.is_some()),
        ("mirrors", !mirrors.is_empty()),
    ];
    let given: Vec<_> = given
        .iter()
        .filter(|(_, given)| *given)
        .map(|(f, _)| *f)
        .collect();
    let (j, answer) = theirs
        .http
        .iter()
        .enumerate()
        .find_map(|(j, rule)| Some((j, answer(rule)?)))?;
    (!given.is_empty()).then(|| {
        format!(
            "spec.http[{i}]: {} here has no effect on the requests of spec.http[{j}] of {to}, because {answer} answers them",
            given.join(", ")
        )
    })
}

/// A host of a VirtualService at whose addresses nothing is left to decide.
pub(super) fn chosen_before(world: &World, field: &str, host: &str, service: &ServiceName) -> Option<String> {
    let headless = world.service(service)?.addresses.is_empty();
    headless.then(|| {
        format!(
            "{field}: `{host}` is headless: its clients choose a pod themselves and are not steered to another one; give \
             the rules to a Service that has a cluster address"
        )
    })
}

/// A PeerAuthentication that selects no pod now, or demands mutual TLS where no proxy can hold to it.
pub(super) fn reach(world: &World, namespace: &str, policy: &PeerAuthentication) -> Vec<String> {
    // In the root namespace it is for the whole mesh, whatever is in it.
    if namespace == api::names::ROOT_NAMESPACE {
        return Vec::new();
    }
    let labels = policy.spec.selector.as_ref().map(|s| &s.match_labels);
    let selected = |pod: &&Pod| labels.is_none_or(|labels| selects(labels, &pod.labels));
    let pods: Vec<&Pod> = world.pods_in(namespace).take(MAX_PODS).filter(selected).collect();
    let has_selector = labels.is_some_and(|labels| !labels.is_empty());
    if pods.is_empty() {
        let text = format!("spec.selector: selects none of the pods of namespace `{namespace}` now");
        return has_selector.then_some(text).into_iter().collect();
    }
    if policy.spec.mtls.as_ref().and_then(|mtls| mtls.mode) != Some(MtlsMode::Strict) {
        return Vec::new();
    }
    let mut open: Vec<&Pod> = pods
        .iter()
        .copied()
        .filter(|pod| !pod.injected && !pod.addresses.is_empty())
        .collect();
    open.sort_by(|a, b| a.name.cmp(&b.name));
    let Some(first) = open.first() else {
        return Vec::new();
    };
    let text = format!(
        "spec.mtls: {} of {} that it is for has no proxy, so nothing enforces it there: such as `{}`",
        open.len(),
        count(pods.len(), "pod", "pods"),
        first.name.name
    );
    vec![text]
}

/// The pods behind a Service, each once.
fn endpoints<'a>(world: &'a World, service: &ServiceName) -> impl Iterator<Item = &'a Pod> + use<'a> {
    let entries = world.slices_of(service).flat_map(|slice| &slice.entries);
    let pods = entries.filter_map(|entry| match &entry.pod {
        Some(name) => world.pod(name),
        None => world.pod_at(entry.address),
    });
    let pods: BTreeMap<_, _> = pods.map(|pod| (&pod.name, pod)).collect();
    pods.into_values()
}

/// The part of a Service's selector that no pod with these labels meets.
fn contradiction<'a>(service: &'a Service, labels: &Labels) -> Option<(&'a String, &'a String)> {
    let mut selector = service.selector.iter().flatten();
    selector.find(|(key, value)| labels.get(*key).is_some_and(|own| own != *value))
}

fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use crate::state::testing::*;

    fn warnings(yaml: &[String], name: &str) -> Vec<String> {
        state(&world(&yaml.concat()), name).warnings
    }

    fn rule(subsets: &str) -> String {
        destination_rule("reviews", &format!("  host: reviews\n  subsets: {subsets}"))
    }

    #[test]
    fn a_subset_that_selects_nothing_is_told() {
        let empty = [shop(), service("idle", "10.0.0.7", &[("http", 80)])].concat();
        for (subsets, says) in [
            ("[{name: v1, labels: {version: v1}}]", None),
            ("[{name: all}]", None),
            (
                "[{name: v1, labels: {version: v1}}, {name: v9, labels: {version: v9}}]",
                Some(
                    "spec.subsets[1].labels: subset `v9` selects none of the 2 endpoints of Service `reviews` now; \
                     traffic for it has nowhere to go",
                ),
            ),
            (
                "[{name: x, labels: {app: other}}]",
                Some(
                    "spec.subsets[0].labels: subset `x` can never select a pod, because the selector of Service \
                     `reviews` demands `app: reviews`",
                ),
            ),
        ] {
            let found = warnings(&[empty.clone(), rule(subsets)], "reviews");
            assert_eq!(found, Vec::from_iter(says), "{subsets}");
        }
        let none = destination_rule(
            "idle",
            "  host: idle\n  subsets: [{name: v9, labels: {version: v9}}]",
        );
        assert_eq!(
            warnings(&[empty, none], "idle"),
            [""; 0],
            "nothing runs yet, so nothing is missing"
        );
    }

    #[test]
    fn a_subset_that_some_clients_lack_is_told() {
        let steering = |export: &str| {
            virtual_service(
                "r",
                &format!(
                    "  {export}\n  hosts: [reviews]\n  http:\n  - route: [{{destination: {{host: reviews, subset: v1}}}}]"
                ),
            )
        };
        let defined = |name: &str, limit: &str| {
            destination_rule(
                name,
                &format!("  host: reviews\n  {limit}\n  subsets: [{{name: v1, labels: {{version: v1}}}}]"),
            )
        };
        let selects = "workloadSelector: {matchLabels: {app: web}}";
        for (export, limits, lacking) in [
            ("", vec![""], None),
            ("", vec!["exportTo: ['.']"], Some("outside shop")),
            ("exportTo: ['.']", vec!["exportTo: ['.']"], None),
            (
                "",
                vec![selects],
                Some("that its workloadSelector does not select"),
            ),
            ("", vec![selects, ""], None),
        ] {
            let rules = limits
                .iter()
                .enumerate()
                .map(|(i, limit)| defined(&format!("d{i}"), limit));
            let found = warnings(&[shop(), steering(export), rules.collect()], "r");
            let says = lacking.map(|lacking| {
                format!(
                    "spec.http[0].route[0].destination.subset: `v1` is defined by DestinationRule shop/d0, which is not \
                     for clients {lacking}, so these have no such subset and their traffic for it has nowhere to go; \
                     define it for them too"
                )
            });
            assert_eq!(found, Vec::from_iter(says), "{export} {limits:?}");
        }
    }

    #[test]
    fn rules_for_requests_on_ports_without_requests_are_told() {
        let ports = |ports| service("db", "10.0.0.8", ports);
        let http = virtual_service(
            "db",
            "  hosts: [db]\n  http:\n  - route: [{destination: {host: db, port: {number: 1}}}]",
        );
        let tcp = "  hosts: [db]\n  tcp:\n  - route: [{destination: {host: db, port: {number: 1}}}]";
        let tcp = virtual_service("db", tcp);
        for (ports, rules, told) in [
            (ports(&[("postgres", 1)]), &http, true),
            (ports(&[("tcp", 1), ("tls-x", 2)]), &http, true),
            (ports(&[("postgres", 1), ("http", 2)]), &http, false),
            (ports(&[("something", 1)]), &http, false),
            (ports(&[("postgres", 1)]), &tcp, false),
            (ports(&[("http", 1), ("grpc-x", 2)]), &tcp, true),
            (ports(&[("http", 1), ("postgres", 2)]), &tcp, false),
            (ports(&[("something", 1)]), &tcp, false),
        ] {
            let found = warnings(&[ports.clone(), rules.clone()], "db");
            assert_eq!(!found.is_empty(), told, "{ports}{rules}{found:?}");
            assert!(
                found
                    .iter()
                    .all(|w| w.starts_with("spec.hosts[0]: no port of `db`")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn rules_for_a_headless_service_are_told() {
        let rules = virtual_service(
            "r",
            "  hosts: [reviews]\n  http:\n  - directResponse: {status: 200}",
        );
        let headless = shop().replace("clusterIP: 10.0.0.1", "clusterIP: None");
        assert_eq!(warnings(&[shop(), rules.clone()], "r"), [""; 0]);
        let found = warnings(&[headless, rules], "r");
        assert!(
            found.len() == 1 && found[0].starts_with("spec.hosts[0]: `reviews` is headless: "),
            "{found:?}"
        );
    }

    #[test]
    fn a_policy_that_reaches_no_pod_or_protects_none_is_told() {
        let bare = pod("bare", "legacy", "v1", "10.1.0.77").replace(", hauberk.dev/injected: 'true'", "");
        let policy = |spec: &str| object("PeerAuthentication", "shop", "p", spec);
        let strict = "  mtls: {mode: STRICT}";
        let of = |app: &str, mode: &str| {
            format!("  selector: {{matchLabels: {{app: {app}}}}}\n  mtls: {{mode: {mode}}}")
        };
        for (spec, says) in [
            (of("reviews", "STRICT"), None),
            (of("legacy", "PERMISSIVE"), None),
            (
                of("nobody", "STRICT"),
                Some("spec.selector: selects none of the pods of namespace `shop` now"),
            ),
            (
                of("legacy", "STRICT"),
                Some(
                    "spec.mtls: 1 of 1 pod that it is for has no proxy, so nothing enforces it there: such as `bare`",
                ),
            ),
            (
                strict.to_owned(),
                Some(
                    "spec.mtls: 1 of 4 pods that it is for has no proxy, so nothing enforces it there: such as `bare`",
                ),
            ),
        ] {
            let found = warnings(&[shop(), bare.clone(), policy(&spec)], "p");
            assert_eq!(found, Vec::from_iter(says), "{spec}");
        }
    }
}
