//! The part of `hauberk check` that is about pods: roots, proxies, objects.

use std::collections::{BTreeMap, BTreeSet};

use api::names::ROOT_NAMESPACE;

use super::installation::certificates;
use super::{Finding, count, fail, of, ok, warn};
use crate::facts::{Installation, Pod};
use crate::status::{self, Mesh};
use crate::table::some;

/// Every check that is about pods.
pub(super) fn check(facts: &Installation) -> Vec<Finding> {
    let mut findings = vec![bundles(facts), restarts(facts)];
    if let Ok(replicas) = &facts.replicas {
        let mesh = status::join(replicas, None);
        findings.extend([proxies(facts, &mesh), versions(&mesh), objects(&mesh)]);
    }
    findings
}

/// Without its ConfigMap a pod with a proxy does not start.
fn bundles(facts: &Installation) -> Finding {
    const CHECK: &str = "trust bundles";
    const REMEDY: &str =
        "the operator that holds the lease writes them within a minute; its log says why it does not";
    of(CHECK, &facts.bundles, |bundles| {
        let Some(own) = bundles
            .get(ROOT_NAMESPACE)
            .map(|pem| certificates(pem))
            .filter(|own| !own.is_empty())
        else {
            return fail(CHECK, format!("there is none in {ROOT_NAMESPACE}"), REMEDY);
        };
        let mut wanted: BTreeSet<&str> = facts.namespaces.iter().flatten().map(String::as_str).collect();
        let meshed = facts.pods.iter().flatten().filter(|pod| pod.injected);
        wanted.extend(meshed.map(|pod| pod.namespace.as_str()));
        let lacking = wanted.iter().filter(|name| !bundles.contains_key(**name));
        let lacking: Vec<_> = lacking.map(|name| (*name).to_owned()).collect();
        if !lacking.is_empty() {
            return fail(CHECK, format!("missing in {}", some(lacking.into_iter())), REMEDY);
        }
        let other = bundles
            .iter()
            .filter(|(name, pem)| wanted.contains(name.as_str()) && certificates(pem) != own);
        let other: Vec<_> = other.map(|(name, _)| name.clone()).collect();
        if other.is_empty() {
            let namespaces = count(wanted.len(), "namespace", "namespaces");
            ok(
                CHECK,
                format!(
                    "in {namespaces} with proxies, with {}",
                    count(own.len(), "root", "roots")
                ),
            )
        } else {
            fail(
                CHECK,
                format!("with other roots in {}", some(other.into_iter())),
                REMEDY,
            )
        }
    })
}

/// Pods that were there before their namespace was labelled.
fn restarts(facts: &Installation) -> Finding {
    const CHECK: &str = "injection";
    of(CHECK, &facts.pods, |pods| {
        let mut by_namespace: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.injected && !pod.exempt) {
            by_namespace.entry(&pod.namespace).or_default().push(pod);
        }
        if by_namespace.is_empty() {
            let injected = pods.iter().filter(|pod| pod.injected).count();
            return ok(CHECK, format!("{} with a proxy", count(injected, "pod", "pods")));
        }
        let says = by_namespace
            .iter()
            .map(|(namespace, pods)| format!("{} in {namespace}", count(pods.len(), "pod", "pods")));
        let says = format!(
            "without a proxy, though their namespace asks for it: {}",
            some(says)
        );
        let first = by_namespace.keys().next().unwrap_or(&"");
        let remedy = format!("kubectl rollout restart deployment,statefulset,daemonset --namespace {first}");
        warn(CHECK, says, remedy)
    })
}

/// Pods whose proxy runs and is connected to no operator.
fn proxies(facts: &Installation, mesh: &Mesh) -> Finding {
    const CHECK: &str = "proxies";
    of(CHECK, &facts.pods, |pods| {
        let connected: BTreeSet<(&str, &str)> = mesh
            .proxies
            .iter()
            .map(|p| (p.namespace.as_str(), p.pod.as_str()))
            .collect();
        let lonely = pods.iter().filter(|pod| {
            pod.injected && pod.running && !connected.contains(&(pod.namespace.as_str(), pod.name.as_str()))
        });
        let lonely: Vec<_> = lonely
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .collect();
        if lonely.is_empty() {
            ok(
                CHECK,
                format!("{} connected", count(connected.len(), "proxy is", "proxies are")),
            )
        } else if !mesh.silent.is_empty() {
            let says = format!(
                "not connected to the operators that could be asked: {}",
                some(lonely.into_iter())
            );
            warn(CHECK, says, "see the check `health` first")
        } else {
            let pod = lonely[0].replacen('/', " ", 1);
            let says = format!(
                "connected to no operator, so they go on with what they know: {}",
                some(lonely.into_iter())
            );
            warn(
                CHECK,
                says,
                format!("kubectl logs --container hauberk-proxy --namespace {pod}"),
            )
        }
    })
}

fn versions(mesh: &Mesh) -> Finding {
    const CHECK: &str = "versions";
    let own = env!("CARGO_PKG_VERSION");
    let mut other: BTreeMap<&str, usize> = BTreeMap::new();
    for proxy in mesh.proxies.iter().filter(|proxy| proxy.version != own) {
        *other.entry(&proxy.version).or_default() += 1;
    }
    if other.is_empty() {
        return ok(
            CHECK,
            format!("all proxies are of version {own}, as this program"),
        );
    }
    let says = other
        .iter()
        .map(|(version, n)| format!("{} of {version}", count(*n, "proxy", "proxies")));
    warn(
        CHECK,
        format!("not of version {own}, as this program: {}", some(says)),
        "restart these pods when it suits: a proxy works with an operator that is one version newer",
    )
}

fn objects(mesh: &Mesh) -> Finding {
    const CHECK: &str = "objects";
    let rejected = mesh.objects.iter().filter(|object| !object.accepted);
    let rejected = rejected.map(|o| format!("{} {}/{}", o.kind, o.namespace, o.name));
    let unreadable = mesh
        .unreadable
        .iter()
        .map(|o| format!("{} {}/{}", o.kind, o.namespace, o.name));
    let bad: BTreeSet<_> = rejected.chain(unreadable).collect();
    if !bad.is_empty() {
        let says = format!(
            "not accepted: {}",
            some(bad.into_iter().collect::<Vec<_>>().into_iter())
        );
        return warn(CHECK, says, "hauberk status says why");
    }
    let refused = mesh.proxies.iter().filter(|proxy| proxy.refused > 0);
    let refused: Vec<_> = refused
        .map(|proxy| format!("{}/{}", proxy.namespace, proxy.pod))
        .collect();
    if !refused.is_empty() || !mesh.unsendable.is_empty() {
        let says = format!(
            "accepted, but {} could not apply what they got, and {} cannot be sent",
            count(refused.len(), "proxy", "proxies"),
            count(mesh.unsendable.len(), "resource", "resources")
        );
        return warn(CHECK, says, "hauberk status says why");
    }
    ok(
        CHECK,
        format!(
            "{} accepted",
            count(mesh.objects.len(), "object is", "objects are")
        ),
    )
}

/// Replicas of a test, as they would be of a mesh with these proxies.
#[cfg(test)]
pub(super) fn replica(pod: &str, proxies: &[(&str, &str, &str)]) -> crate::facts::Replica {
    use crate::facts::{Health, Proxy, Replica, Status};
    let proxies = proxies.iter().map(|(namespace, pod, version)| Proxy {
        namespace: (*namespace).to_owned(),
        pod: (*pod).to_owned(),
        proxy_version: (*version).to_owned(),
        ..Proxy::default()
    });
    Replica {
        pod: pod.to_owned(),
        health: Ok(Health {
            status: "ok".to_owned(),
            dependencies: Vec::new(),
        }),
        status: Ok(Status {
            proxies: proxies.collect(),
            ..Status::default()
        }),
    }
}
