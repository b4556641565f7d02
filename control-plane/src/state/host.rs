//! Names of objects and Services, and the hosts that users write for them. Used wherever an object names a Service.
//!
//! A short name is one of the namespace it is written in, `a.b` is Service `a` of namespace `b`, and a full name is
//! itself. What is none of these, such as `api.example.com`, is a host outside the mesh. Wildcards are refused before.

use std::fmt;

use api::names::SERVICE_SUFFIX;

/// A Service by namespace and name. `Display` gives its full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ServiceName {
    /// A Service of a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The Service of a full name, `name.namespace.svc.cluster.local`.
    #[must_use]
    pub fn from_full(host: &str) -> Option<Self> {
        let short = host.strip_suffix(SERVICE_SUFFIX)?.strip_suffix('.')?;
        let (name, namespace) = short.split_once('.')?;
        let ok = !name.is_empty() && !namespace.is_empty() && !namespace.contains('.');
        ok.then(|| Self::new(namespace, name))
    }

    /// The Service that `host` means when it is written in `namespace`; `None` for a host outside the mesh.
    #[must_use]
    pub fn resolve(host: &str, namespace: &str) -> Option<Self> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if let Some(full) = Self::from_full(&host) {
            return Some(full);
        }
        let mut parts = host.split('.');
        let name = parts.next().filter(|p| !p.is_empty())?;
        match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => Some(Self::new(namespace, name)),
            (Some(other), None, _) | (Some(other), Some("svc"), None) if !other.is_empty() => {
                Some(Self::new(other, name))
            }
            _ => None,
        }
    }
}

/// A namespaced object by name. `Display` gives `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// An object of a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{SERVICE_SUFFIX}", self.name, self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_resolve_in_the_namespace_they_are_written_in() {
        let shop = |name| Some(ServiceName::new("shop", name));
        for (host, expected) in [
            ("reviews", shop("reviews")),
            ("Reviews.", shop("reviews")),
            ("reviews.other", Some(ServiceName::new("other", "reviews"))),
            ("reviews.other.svc", Some(ServiceName::new("other", "reviews"))),
            (
                "reviews.other.svc.cluster.local",
                Some(ServiceName::new("other", "reviews")),
            ),
            ("api.example.com", None),
            ("a.b.svc.cluster", None),
            ("a.b.c.svc.cluster.local", None),
            ("", None),
            (".", None),
            ("a..svc", None),
        ] {
            assert_eq!(ServiceName::resolve(host, "shop"), expected, "{host:?}");
        }
    }

    #[test]
    fn a_full_name_reads_back() {
        let name = ServiceName::new("shop", "reviews");
        assert_eq!(ServiceName::from_full(&name.to_string()), Some(name));
        assert_eq!(ServiceName::from_full("reviews.shop"), None);
        assert_eq!(ServiceName::from_full(".shop.svc.cluster.local"), None);
    }
}
