//! Everything the operator asks of the API server, in one table. The chart's roles are made from it (`tests/charts`), so
//! that the operator may do what it does and nothing else. The API servers of the tests hold every request to it.

use api::names::{AUTHORITY_SECRET, ISSUER_SECRET, OPERATOR, TRUST_BUNDLE_CONFIG_MAP};

/// Where a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In every namespace, or outside of them.
    Cluster,
    /// In the mesh's root namespace alone.
    Root,
}

/// One kind of call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// API group; the core group's name is empty.
    pub group: &'static str,
    /// Resources, as in URLs, with their subresource.
    pub resources: &'static [&'static str],
    /// What is done with them.
    pub verbs: &'static [&'static str],
    /// Where.
    pub scope: Scope,
    /// The only objects it is done with; any where there are none.
    pub names: &'static [&'static str],
    /// What for.
    pub why: &'static str,
}

const fn call(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    scope: Scope,
    names: &'static [&'static str],
    why: &'static str,
) -> Call {
    Call {
        group,
        resources,
        verbs,
        scope,
        names,
        why,
    }
}

const WATCH: &[&str] = &["list", "watch"];

/// Every call.
#[rustfmt::skip]
pub const CALLS: &[Call] = &[
    call("", &["services", "pods", "namespaces"], WATCH, Scope::Cluster, &[],
        "what traffic is routed to, and who may have which identity"),
    call("discovery.k8s.io", &["endpointslices"], WATCH, Scope::Cluster, &[],
        "which pods stand behind a Service"),
    call(crds::GROUP, &["virtualservices", "destinationrules", "peerauthentications"], WATCH, Scope::Cluster, &[],
        "what users want"),
    call(crds::GROUP, &["virtualservices/status", "destinationrules/status", "peerauthentications/status"],
        &["patch"], Scope::Cluster, &[],
        "what became of it"),
    call("", &["events"], &["create", "patch"], Scope::Cluster, &[],
        "rejections, where users look for them"),
    call("events.k8s.io", &["events"], &["create", "patch"], Scope::Cluster, &[],
        "the same, by the newer API"),
    call("authentication.k8s.io", &["tokenreviews"], &["create"], Scope::Cluster, &[],
        "whose token a proxy shows"),
    // A name cannot limit `create`: an object that is being made has none in the URL.
    call("", &["configmaps"], &["create"], Scope::Cluster, &[],
        "the trust bundle in each namespace with proxies"),
    call("", &["configmaps"], &["get", "patch", "update"], Scope::Cluster, &[TRUST_BUNDLE_CONFIG_MAP],
        "the same, when roots change"),
    call("admissionregistration.k8s.io", &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        &["get", "patch"], Scope::Cluster, &[OPERATOR],
        "the root by which the API server knows the webhook"),
    call("coordination.k8s.io", &["leases"], &["create"], Scope::Root, &[],
        "which operator writes"),
    call("coordination.k8s.io", &["leases"], &["get", "update"], Scope::Root, &[OPERATOR],
        "the same"),
    call("", &["secrets"], &["create"], Scope::Root, &[],
        "the authority's roots and keys, made once"),
    call("", &["secrets"], &["get", "update"], Scope::Root, &[AUTHORITY_SECRET],
        "the same, when roots are rotated"),
    call("", &["secrets"], &["get"], Scope::Root, &[ISSUER_SECRET],
        "an intermediate of the user's own"),
];

/// Panics when the table does not have this request: on a real cluster it would be refused.
#[cfg(test)]
pub(crate) fn hold(method: &http::Method, path: &str, query: &str) {
    if let Err(missing) = permits(method, path, query) {
        panic!("the operator has no right to {method} {path}: {missing}");
    }
}

/// Whether the table has this request: its HTTP method, its path and its query.
///
/// # Errors
/// What is missing, in the words of RBAC.
#[cfg(test)]
pub(crate) fn permits(method: &http::Method, path: &str, query: &str) -> Result<(), String> {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", _version, rest @ ..] => ("", rest),
        ["apis", group, _version, rest @ ..] => (*group, rest),
        // What the server is and offers may be read by everybody who is known to it.
        _ => return Ok(()),
    };
    let (namespace, rest) = match rest {
        [] => return Ok(()),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        rest => (None, rest),
    };
    let (resource, name) = match rest {
        [resource] => ((*resource).to_owned(), None),
        [resource, name] => ((*resource).to_owned(), Some(*name)),
        [resource, name, below @ ..] => (format!("{resource}/{}", below.join("/")), Some(*name)),
        [] => return Ok(()),
    };
    let watched = query
        .split('&')
        .any(|pair| pair == "watch=true" || pair == "watch=1");
    let verb = match (method.as_str(), name) {
        ("GET", None) if watched => "watch",
        ("GET", None) => "list",
        ("GET", Some(_)) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        (other, _) => return Err(format!("{other} is no method of the API")),
    };
    let found = CALLS.iter().any(|call| {
        call.group == group
            && call.resources.contains(&resource.as_str())
            && call.verbs.contains(&verb)
            && (call.scope == Scope::Cluster || namespace == Some(api::names::ROOT_NAMESPACE))
            && (call.names.is_empty() || name.is_some_and(|name| call.names.contains(&name)))
    });
    let place = namespace.map_or("outside of namespaces or in all".to_owned(), |n| {
        format!("in {n}")
    });
    if found {
        Ok(())
    } else {
        let name = name.unwrap_or("any");
        Err(format!(
            "{verb} {resource} of the group {group:?}, name {name}, {place}: not in CALLS"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::Method;

    use super::*;

    #[test]
    fn requests_are_found_in_the_table_or_missed() {
        for (method, path, query, expected) in [
            (Method::GET, "/api/v1/pods", "watch=true", true),
            (Method::GET, "/api/v1/namespaces", "limit=500", true),
            (Method::GET, "/api/v1/namespaces/shop", "", false),
            (Method::GET, "/api/v1/namespaces/shop/pods/web-0", "", false),
            (Method::GET, "/api/v1/secrets", "", false),
            (
                Method::GET,
                "/api/v1/namespaces/hauberk-system/secrets/hauberk-authority",
                "",
                true,
            ),
            (
                Method::GET,
                "/api/v1/namespaces/hauberk-system/secrets/other",
                "",
                false,
            ),
            (
                Method::GET,
                "/api/v1/namespaces/shop/secrets/hauberk-authority",
                "",
                false,
            ),
            (
                Method::PUT,
                "/api/v1/namespaces/hauberk-system/secrets/hauberk-issuer",
                "",
                false,
            ),
            (
                Method::POST,
                "/api/v1/namespaces/hauberk-system/secrets",
                "",
                true,
            ),
            (
                Method::PATCH,
                "/apis/hauberk.dev/v1alpha1/namespaces/shop/virtualservices/reviews/status",
                "",
                true,
            ),
            (
                Method::PATCH,
                "/apis/hauberk.dev/v1alpha1/namespaces/shop/virtualservices/reviews",
                "",
                false,
            ),
            (
                Method::POST,
                "/apis/authentication.k8s.io/v1/tokenreviews",
                "",
                true,
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/shop/configmaps/hauberk-trust-bundle",
                "",
                false,
            ),
            (Method::GET, "/version", "", true),
            (Method::GET, "/apis/discovery.k8s.io/v1", "", true),
        ] {
            let found = permits(&method, path, query);
            assert_eq!(found.is_ok(), expected, "{method} {path}: {found:?}");
        }
    }

    #[test]
    fn nothing_is_said_twice_and_nothing_may_be_deleted() {
        let mut seen = BTreeSet::new();
        for call in CALLS {
            for (resource, verb) in call
                .resources
                .iter()
                .flat_map(|r| call.verbs.iter().map(move |v| (r, v)))
            {
                assert!(
                    seen.insert((call.group, *resource, *verb, call.scope, call.names)),
                    "{resource} {verb}"
                );
                assert!(
                    !verb.contains('*') && !resource.contains('*') && *verb != "delete",
                    "{resource} {verb}"
                );
            }
        }
    }
}
