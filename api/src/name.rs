//! Names of resources on the stream, and references to the user's objects behind them.

use std::fmt;

use crate::invalid::{Invalid, required};
use crate::{limits, proto};

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// What stands behind a dialled address.
    Destination,
    /// How traffic to a service port is routed.
    Route,
    /// How traffic is sent to a set of endpoints.
    Cluster,
    /// The addresses behind a service port.
    Endpoints,
    /// What to do with traffic that arrives for the pod.
    Inbound,
    /// Roots that peers are verified against.
    TrustBundle,
}

impl Kind {
    /// The kind as shown in logs, metrics and views.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Route => "route",
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Inbound => "inbound",
            Self::TrustBundle => "trust_bundle",
        }
    }

    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Destination,
        Self::Route,
        Self::Cluster,
        Self::Endpoints,
        Self::Inbound,
        Self::TrustBundle,
    ];
}

impl From<Kind> for proto::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Destination => Self::Destination,
            Kind::Route => Self::Route,
            Kind::Cluster => Self::Cluster,
            Kind::Endpoints => Self::Endpoints,
            Kind::Inbound => Self::Inbound,
            Kind::TrustBundle => Self::TrustBundle,
        }
    }
}

/// A resource's kind and name. `Display` gives `kind/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName {
    /// Kind of the resource.
    pub kind: Kind,
    /// Name within the kind.
    pub name: String,
}

impl ResourceName {
    /// A name of a kind.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

impl TryFrom<proto::ResourceName> for ResourceName {
    type Error = Invalid;

    fn try_from(pb: proto::ResourceName) -> Result<Self, Invalid> {
        let kind = match pb.kind() {
            proto::Kind::Destination => Kind::Destination,
            proto::Kind::Route => Kind::Route,
            proto::Kind::Cluster => Kind::Cluster,
            proto::Kind::Endpoints => Kind::Endpoints,
            proto::Kind::Inbound => Kind::Inbound,
            proto::Kind::TrustBundle => Kind::TrustBundle,
            proto::Kind::Unspecified => {
                return Err(Invalid::new(
                    "kind",
                    format!("{} is not a kind this build knows", pb.kind),
                ));
            }
        };
        let proto::ResourceName { kind: _, name } = pb;
        if name.is_empty() || name.len() > limits::MAX_NAME_LEN {
            return Err(Invalid::new(
                "name",
                format!("must have 1 to {} bytes", limits::MAX_NAME_LEN),
            ));
        }
        Ok(Self { kind, name })
    }
}

impl TryFrom<Option<proto::ResourceName>> for ResourceName {
    type Error = Invalid;

    fn try_from(pb: Option<proto::ResourceName>) -> Result<Self, Invalid> {
        Self::try_from(required("name", pb)?)
    }
}

impl From<ResourceName> for proto::ResourceName {
    fn from(ResourceName { kind, name }: ResourceName) -> Self {
        Self {
            kind: proto::Kind::from(kind).into(),
            name,
        }
    }
}

/// The user's object that a piece of configuration comes from. `Display` gives `Kind namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Kubernetes kind.
    pub kind: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl From<proto::ObjectRef> for ObjectRef {
    fn from(
        proto::ObjectRef {
            kind,
            namespace,
            name,
        }: proto::ObjectRef,
    ) -> Self {
        Self {
            kind,
            namespace,
            name,
        }
    }
}

impl From<ObjectRef> for proto::ObjectRef {
    fn from(
        ObjectRef {
            kind,
            namespace,
            name,
        }: ObjectRef,
    ) -> Self {
        Self {
            kind,
            namespace,
            name,
        }
    }
}
