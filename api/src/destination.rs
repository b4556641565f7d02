//! What stands behind an address that an application dialled.

use crate::endpoints::Endpoint;
use crate::invalid::{Invalid, Under, required};
use crate::proto;
use crate::protocol::Protocol;

/// What stands behind a dialled address. Resource name: the address, `ip:port` or `[ip6]:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A Service address: traffic follows the Route of this name.
    Route(String),
    /// One pod's address: traffic goes to that pod and no other.
    Workload(Box<Workload>),
    /// Outside the mesh: bytes are passed on to the dialled address.
    Passthrough,
    /// Not allowed, and why.
    Refuse(String),
}

/// One pod, dialled by its own address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The pod.
    pub endpoint: Endpoint,
    /// What its port is declared to speak; `None` to look at the first bytes.
    pub protocol: Option<Protocol>,
    /// The Cluster whose settings apply.
    pub cluster: String,
}

impl TryFrom<proto::Destination> for Destination {
    type Error = Invalid;

    fn try_from(proto::Destination { target }: proto::Destination) -> Result<Self, Invalid> {
        use proto::destination::Target;
        match required("target", target)? {
            Target::Route(name) if name.is_empty() => Err(Invalid::new("route", "is empty")),
            Target::Route(name) => Ok(Self::Route(name)),
            Target::Workload(workload) => {
                Ok(Self::Workload(Box::new(workload.try_into().under("workload")?)))
            }
            Target::Passthrough(proto::Passthrough {}) => Ok(Self::Passthrough),
            Target::Refuse(proto::Refuse { reason }) => Ok(Self::Refuse(reason)),
        }
    }
}

impl From<Destination> for proto::Destination {
    fn from(destination: Destination) -> Self {
        use proto::destination::Target;
        let target = match destination {
            Destination::Route(name) => Target::Route(name),
            Destination::Workload(workload) => Target::Workload((*workload).into()),
            Destination::Passthrough => Target::Passthrough(proto::Passthrough {}),
            Destination::Refuse(reason) => Target::Refuse(proto::Refuse { reason }),
        };
        Self { target: Some(target) }
    }
}

impl TryFrom<proto::Workload> for Workload {
    type Error = Invalid;

    fn try_from(pb: proto::Workload) -> Result<Self, Invalid> {
        let protocol = Protocol::from_proto(pb.protocol());
        let proto::Workload {
            endpoint,
            protocol: _,
            cluster,
        } = pb;
        if cluster.is_empty() {
            return Err(Invalid::new("cluster", "is empty"));
        }
        Ok(Self {
            endpoint: required("endpoint", endpoint)?.try_into().under("endpoint")?,
            protocol,
            cluster,
        })
    }
}

impl From<Workload> for proto::Workload {
    fn from(
        Workload {
            endpoint,
            protocol,
            cluster,
        }: Workload,
    ) -> Self {
        Self {
            endpoint: Some(endpoint.into()),
            protocol: Protocol::to_proto(protocol),
            cluster,
        }
    }
}
