//! SPIFFE identities: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::fmt;
use std::str::FromStr;

use crate::invalid::Invalid;

/// The identity of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: String,
    trust_domain_end: usize,
    namespace_end: usize,
}

const SCHEME: &str = "spiffe://";
const MAX_LEN: usize = 2048;

impl SpiffeId {
    /// Builds an identity from its three parts.
    ///
    /// # Errors
    /// When a part is empty or has a character that Kubernetes names do not have.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, Invalid> {
        format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The whole URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..self.trust_domain_end]
    }

    /// The Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.uri[self.trust_domain_end + "/ns/".len()..self.namespace_end]
    }

    /// The Kubernetes service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.uri[self.namespace_end + "/sa/".len()..]
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
}

impl FromStr for SpiffeId {
    type Err = Invalid;

    fn from_str(uri: &str) -> Result<Self, Invalid> {
        let wrong = || {
            let shown: String = uri.chars().take(200).collect();
            Invalid::new(
                "identity",
                format!(
                    "{shown:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
                ),
            )
        };
        if uri.len() > MAX_LEN {
            return Err(wrong());
        }
        let rest = uri.strip_prefix(SCHEME).ok_or_else(wrong)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(wrong());
        };
        if !is_name(domain) || !is_name(namespace) || !is_name(account) {
            return Err(wrong());
        }
        let trust_domain_end = SCHEME.len() + domain.len();
        let namespace_end = trust_domain_end + "/ns/".len() + namespace.len();
        Ok(Self {
            uri: uri.to_owned(),
            trust_domain_end,
            namespace_end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_as_they_went_in() {
        let id = SpiffeId::new("cluster.local", "shop", "reviews").unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/reviews");
        assert_eq!(
            (id.trust_domain(), id.namespace(), id.service_account()),
            ("cluster.local", "shop", "reviews")
        );
    }

    #[test]
    fn other_shapes_are_refused() {
        for bad in [
            "",
            "spiffe://",
            "spiffe://d/ns/a/sa/",
            "spiffe://d/ns//sa/b",
            "spiffe://d/ns/a/sa/b/c",
            "https://d/ns/a/sa/b",
            "spiffe://d/ns/a b/sa/c",
            "spiffe://D/ns/a/sa/b",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }
}
