//! Where copies of requests go.

use super::Fraction;
use crate::invalid::Invalid;
use crate::proto;

/// A cluster that gets copies of requests; its answers are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Name of the Cluster resource.
    pub cluster: String,
    /// Which share of the requests.
    pub share: Fraction,
}

impl TryFrom<proto::Mirror> for Mirror {
    type Error = Invalid;

    fn try_from(proto::Mirror { cluster, millionths }: proto::Mirror) -> Result<Self, Invalid> {
        if cluster.is_empty() {
            return Err(Invalid::new("cluster", "is empty"));
        }
        Ok(Self {
            cluster,
            share: Fraction::from_wire("millionths", millionths)?,
        })
    }
}

impl From<Mirror> for proto::Mirror {
    fn from(Mirror { cluster, share }: Mirror) -> Self {
        Self {
            cluster,
            millionths: share.to_wire(),
        }
    }
}
