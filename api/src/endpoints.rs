//! The addresses behind one port of a Service.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::invalid::{Invalid, each, positive};
use crate::spiffe::SpiffeId;
use crate::{limits, proto};

/// The addresses behind one port of a Service. Resource name: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// Those ready to serve; each address once.
    pub endpoints: Vec<Endpoint>,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Relative share of traffic, at least 1.
    pub weight: u32,
    /// Identity expected there; `None` when the pod is outside the mesh.
    pub identity: Option<SpiffeId>,
    /// The labels that subsets select on.
    pub labels: BTreeMap<String, String>,
    /// Topology zone; may be empty.
    pub zone: String,
    /// Name of the pod, for logs and metrics; may be empty.
    pub pod: String,
    /// Where it is, and labels of its pod, as labels: those that the locality rules of its clusters go by.
    pub topology: BTreeMap<String, String>,
}

impl TryFrom<proto::Endpoints> for Endpoints {
    type Error = Invalid;

    fn try_from(proto::Endpoints { endpoints }: proto::Endpoints) -> Result<Self, Invalid> {
        if endpoints.len() > limits::MAX_ENDPOINTS {
            return Err(Invalid::new(
                "endpoints",
                format!(
                    "{} are more than the {} allowed",
                    endpoints.len(),
                    limits::MAX_ENDPOINTS
                ),
            ));
        }
        let endpoints: Vec<Endpoint> = each("endpoints", endpoints)?;
        let mut seen = std::collections::HashSet::with_capacity(endpoints.len());
        for (i, endpoint) in endpoints.iter().enumerate() {
            if !seen.insert(endpoint.address) {
                return Err(Invalid::new(
                    format!("endpoints[{i}].address"),
                    format!("{} is listed twice", endpoint.address),
                ));
            }
        }
        Ok(Self { endpoints })
    }
}

impl From<Endpoints> for proto::Endpoints {
    fn from(Endpoints { endpoints }: Endpoints) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::Endpoint> for Endpoint {
    type Error = Invalid;

    fn try_from(pb: proto::Endpoint) -> Result<Self, Invalid> {
        let proto::Endpoint {
            address,
            weight,
            identity,
            labels,
            zone,
            pod,
            topology,
        } = pb;
        let address = address
            .parse()
            .map_err(|_| Invalid::new("address", format!("{address:?} is not of the form ip:port")))?;
        let identity = if identity.is_empty() {
            None
        } else {
            Some(identity.parse()?)
        };
        Ok(Self {
            address,
            weight: positive("weight", weight)?,
            identity,
            labels,
            zone,
            pod,
            topology,
        })
    }
}

impl From<Endpoint> for proto::Endpoint {
    fn from(
        Endpoint {
            address,
            weight,
            identity,
            labels,
            zone,
            pod,
            topology,
        }: Endpoint,
    ) -> Self {
        let identity = identity.map(|id| id.as_str().to_owned()).unwrap_or_default();
        Self {
            address: address.to_string(),
            weight,
            identity,
            labels,
            zone,
            pod,
            topology,
        }
    }
}
