//! The roots that peers are verified against.

use bytes::Bytes;

use crate::invalid::Invalid;
use crate::proto;

/// Trust anchors of one trust domain. During a rotation it holds the old and the new root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    /// The trust domain these roots speak for.
    pub trust_domain: String,
    /// X.509 certificates, DER; at least one.
    pub roots: Vec<Bytes>,
}

impl TryFrom<proto::TrustBundle> for TrustBundle {
    type Error = Invalid;

    fn try_from(proto::TrustBundle { trust_domain, roots }: proto::TrustBundle) -> Result<Self, Invalid> {
        if trust_domain.is_empty() {
            return Err(Invalid::new("trust_domain", "is empty"));
        }
        if roots.is_empty() {
            return Err(Invalid::new(
                "roots",
                "is empty: without a root no peer can be verified",
            ));
        }
        Ok(Self {
            trust_domain,
            roots: roots.into_iter().map(Bytes::from).collect(),
        })
    }
}

impl From<TrustBundle> for proto::TrustBundle {
    fn from(TrustBundle { trust_domain, roots }: TrustBundle) -> Self {
        Self {
            trust_domain,
            roots: roots.into_iter().map(Vec::from).collect(),
        }
    }
}
