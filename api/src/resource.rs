//! One resource on the stream: name, version, and content or its absence.

use std::fmt;
use std::num::NonZeroU64;

use prost::Message as _;

use crate::invalid::{Invalid, Under, required};
use crate::{Cluster, Destination, Endpoints, Inbound, Kind, ResourceName, Route, TrustBundle, proto};

/// Hash of a resource's content: equal content has an equal version, whichever operator made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(NonZeroU64);

impl Version {
    /// The version as carried on the wire.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// A version from the wire; 0 means none.
    #[must_use]
    pub fn from_wire(version: u64) -> Option<Self> {
        NonZeroU64::new(version).map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A named, versioned resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Kind and name.
    pub name: ResourceName,
    /// Hash of the content.
    pub version: Version,
    /// The content.
    pub body: Body,
}

/// The content of a resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// The operator has no such resource (any more), and why.
    Absent(String),
    /// See [`Destination`].
    Destination(Destination),
    /// See [`Route`].
    Route(Box<Route>),
    /// See [`Cluster`].
    Cluster(Box<Cluster>),
    /// See [`Endpoints`].
    Endpoints(Endpoints),
    /// See [`Inbound`].
    Inbound(Inbound),
    /// See [`TrustBundle`].
    TrustBundle(TrustBundle),
}

impl Body {
    /// The kind this content belongs to; `None` for absence, which has no kind of its own.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Absent(_) => None,
            Self::Destination(_) => Some(Kind::Destination),
            Self::Route(_) => Some(Kind::Route),
            Self::Cluster(_) => Some(Kind::Cluster),
            Self::Endpoints(_) => Some(Kind::Endpoints),
            Self::Inbound(_) => Some(Kind::Inbound),
            Self::TrustBundle(_) => Some(Kind::TrustBundle),
        }
    }
}

impl Resource {
    /// A resource with the version of its content.
    #[must_use]
    pub fn new(name: ResourceName, body: Body) -> Self {
        let version = version_of(&name, &to_proto_body(body.clone()));
        Self { name, version, body }
    }
}

/// XXH3 (64 bits) over the encoded name and content. Maps are encoded in key order, so equal content is equal bytes.
fn version_of(name: &ResourceName, body: &proto::resource::Body) -> Version {
    let unversioned = proto::Resource {
        name: Some(name.clone().into()),
        version: 0,
        body: Some(body.clone()),
    };
    let hash = xxhash_rust::xxh3::xxh3_64(&unversioned.encode_to_vec());
    Version(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN))
}

fn to_proto_body(body: Body) -> proto::resource::Body {
    use proto::resource::Body as Pb;
    match body {
        Body::Absent(reason) => Pb::Absent(proto::Absent { reason }),
        Body::Destination(d) => Pb::Destination(d.into()),
        Body::Route(r) => Pb::Route((*r).into()),
        Body::Cluster(c) => Pb::Cluster((*c).into()),
        Body::Endpoints(e) => Pb::Endpoints(e.into()),
        Body::Inbound(i) => Pb::Inbound(i.into()),
        Body::TrustBundle(t) => Pb::TrustBundle(t.into()),
    }
}

impl TryFrom<proto::Resource> for Resource {
    type Error = Invalid;

    fn try_from(pb: proto::Resource) -> Result<Self, Invalid> {
        use proto::resource::Body as Pb;
        let proto::Resource { name, version, body } = pb;
        let name = ResourceName::try_from(name).under("name")?;
        let version = Version::from_wire(version)
            .ok_or_else(|| Invalid::new("version", "is 0, which is no version"))?;
        let body = match required("body", body)? {
            Pb::Absent(proto::Absent { reason }) => Body::Absent(reason),
            Pb::Destination(d) => Body::Destination(d.try_into().under("destination")?),
            Pb::Route(r) => Body::Route(Box::new(r.try_into().under("route")?)),
            Pb::Cluster(c) => Body::Cluster(Box::new(c.try_into().under("cluster")?)),
            Pb::Endpoints(e) => Body::Endpoints(e.try_into().under("endpoints")?),
            Pb::Inbound(i) => Body::Inbound(i.try_into().under("inbound")?),
            Pb::TrustBundle(t) => Body::TrustBundle(t.try_into().under("trust_bundle")?),
        };
        match body.kind() {
            Some(kind) if kind != name.kind => Err(Invalid::new(
                "body",
                format!(
                    "holds a {} under the name of a {}",
                    kind.as_str(),
                    name.kind.as_str()
                ),
            )),
            _ => Ok(Self { name, version, body }),
        }
    }
}

impl From<Resource> for proto::Resource {
    fn from(Resource { name, version, body }: Resource) -> Self {
        Self {
            name: Some(name.into()),
            version: version.get(),
            body: Some(to_proto_body(body)),
        }
    }
}
