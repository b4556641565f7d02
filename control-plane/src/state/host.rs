//! Names of objects and Services, and the hosts that users write for them. Used wherever an object names a Service.
//!
//! A short name is one of the namespace it is written in, `a.b` is Service `a` of namespace `b`, and a full name is
//! itself. What is none of these, such as `api.example.com`, is a host outside the mesh. `*.shop.svc.cluster.local` and `*`
//! are wildcards: they are written in full, and mean what is below them, wherever they are written.

use std::collections::BTreeSet;
use std::fmt;
use std::iter;

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

    /// Whether its full name ends so. Asked of every Service there is, so the name is not put together.
    fn ends_with(&self, suffix: &str) -> bool {
        let mut rest = suffix;
        for part in [SERVICE_SUFFIX, ".", &self.namespace, ".", &self.name] {
            if rest.len() <= part.len() {
                return part.ends_with(rest);
            }
            match rest.strip_suffix(part) {
                Some(before) => rest = before,
                None => return false,
            }
        }
        false
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

/// A host that an object is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Host {
    /// One Service.
    Service(ServiceName),
    /// Every name that ends so, as `.shop.svc.cluster.local`; empty for all names.
    Below(String),
    /// A name outside the cluster.
    Outside(String),
}

impl Host {
    /// What `host` means when it is written in `namespace`.
    pub(crate) fn resolve(host: &str, namespace: &str) -> Self {
        if let Some(suffix) = host.strip_prefix('*') {
            return Self::Below(suffix.to_ascii_lowercase());
        }
        match ServiceName::resolve(host, namespace) {
            Some(service) => Self::Service(service),
            None => Self::Outside(host.to_ascii_lowercase()),
        }
    }

    /// The hosts that a Service is meant by, the most specific first.
    pub(crate) fn of(service: &ServiceName) -> impl Iterator<Item = Self> {
        let full = service.to_string();
        let dots: Vec<usize> = full.match_indices('.').map(|(at, _)| at).collect();
        let below = dots.into_iter().map(move |at| Self::Below(full[at..].to_owned()));
        iter::once(Self::Service(service.clone()))
            .chain(below)
            .chain(iter::once(Self::Below(String::new())))
    }

    /// Whether this Service is meant.
    pub(crate) fn covers(&self, service: &ServiceName) -> bool {
        match self {
            Self::Service(name) => name == service,
            Self::Below(suffix) => service.ends_with(suffix),
            Self::Outside(_) => false,
        }
    }

    /// The namespace whose Services are meant, where it is a wildcard for just these.
    pub(super) fn of_namespace(&self) -> Option<&str> {
        let Self::Below(suffix) = self else { return None };
        let namespace = suffix
            .strip_suffix(SERVICE_SUFFIX)?
            .strip_suffix('.')?
            .strip_prefix('.')?;
        (!namespace.is_empty() && !namespace.contains('.')).then_some(namespace)
    }

    /// The one Service that is meant.
    pub(crate) fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service(name) => Some(name),
            Self::Below(_) | Self::Outside(_) => None,
        }
    }
}

/// The namespaces whose clients an object is for (`exportTo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Export {
    All,
    To(BTreeSet<String>),
}

impl Export {
    /// `exportTo` of an object in `namespace`: none is all, `.` is its own, `~` is nobody.
    pub(crate) fn new(export_to: &[String], namespace: &str) -> Self {
        if export_to.is_empty() || export_to.iter().any(|to| to == "*") {
            return Self::All;
        }
        let named = export_to.iter().filter(|to| *to != "~");
        let own = |to: &String| {
            if to == "." {
                namespace.to_owned()
            } else {
                to.clone()
            }
        };
        Self::To(named.map(own).collect())
    }

    /// Whether there are clients that do not see the object.
    pub(crate) fn is_limited(&self) -> bool {
        matches!(self, Self::To(_))
    }

    /// Whether some client sees both this object and another.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (Self::All, Self::To(some)) | (Self::To(some), Self::All) => !some.is_empty(),
            (Self::To(some), Self::To(others)) => !some.is_disjoint(others),
        }
    }

    /// Whether every client that sees the other object sees this one.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::To(_), Self::All) => false,
            (Self::To(some), Self::To(others)) => some.is_superset(others),
        }
    }

    /// Whether clients of `namespace` see the object.
    pub(crate) fn sees(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::To(namespaces) => namespaces.contains(namespace),
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
    fn wildcards_mean_what_is_below_them_and_the_longest_is_the_most_specific() {
        let reviews = ServiceName::new("shop", "reviews");
        let hosts: Vec<_> = Host::of(&reviews).collect();
        let below = |suffix: &str| Host::Below(suffix.to_owned());
        let expected = [
            Host::Service(reviews.clone()),
            below(".shop.svc.cluster.local"),
            below(".svc.cluster.local"),
            below(".cluster.local"),
            below(".local"),
            below(""),
        ];
        assert_eq!(hosts, expected);
        assert!(hosts.iter().all(|host| host.covers(&reviews)));
        for (written, covers) in [
            ("*.shop.svc.cluster.local", true),
            ("*", true),
            ("*.other.svc.cluster.local", false),
            ("*.example.com", false),
            ("*.svc.cluster.local", true),
            ("*local", true),
            ("*op.svc.cluster.local", true),
            ("*ws.shop.svc.cluster.local", true),
            ("*reviews.shop.svc.cluster.local", true),
            ("*.reviews.shop.svc.cluster.local", false),
            ("*x.shop.svc.cluster.local", false),
            ("reviews", true),
            ("reviews.other", false),
            ("api.example.com", false),
        ] {
            assert_eq!(
                Host::resolve(written, "shop").covers(&reviews),
                covers,
                "{written}"
            );
        }
    }

    #[test]
    fn the_wildcard_of_a_namespace_is_told_from_others() {
        for (written, namespace) in [
            ("*.shop.svc.cluster.local", Some("shop")),
            ("*shop.svc.cluster.local", None),
            ("*.svc.cluster.local", None),
            ("*.a.shop.svc.cluster.local", None),
            ("*.shop", None),
            ("*", None),
        ] {
            assert_eq!(Host::resolve(written, "x").of_namespace(), namespace, "{written}");
        }
    }

    #[test]
    fn an_object_is_seen_where_it_is_exported_to() {
        for (export_to, own, other, third) in [
            (&[][..], true, true, true),
            (&["*"], true, true, true),
            (&["."], true, false, false),
            (&["other"], false, true, false),
            (&[".", "other"], true, true, false),
            (&["~"], false, false, false),
        ] {
            let export_to: Vec<String> = export_to.iter().map(|to: &&str| (*to).to_owned()).collect();
            let export = Export::new(&export_to, "shop");
            let seen = ["shop", "other", "third"].map(|namespace| export.sees(namespace));
            assert_eq!(seen, [own, other, third], "{export_to:?}");
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
