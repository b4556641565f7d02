//! One resource as the store holds it: what arrived, what is active, what was rejected. Only the store uses it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use api::{Body, Kind, ResourceName, Version};

/// The content of a resource, shared between what arrived, what is active and what requests see.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Absent(Arc<str>),
    Destination(Arc<api::Destination>),
    Route(Arc<api::Route>),
    Cluster(Arc<api::Cluster>),
    Endpoints(Arc<api::Endpoints>),
    Inbound(Arc<api::Inbound>),
    TrustBundle(Arc<api::TrustBundle>),
}

impl Content {
    /// The resources that this one names: it is active only once they are.
    pub(super) fn needs(&self) -> BTreeSet<ResourceName> {
        match self {
            Self::Destination(destination) => match &**destination {
                api::Destination::Route(route) => BTreeSet::from([ResourceName::new(Kind::Route, route)]),
                api::Destination::Workload(workload) => {
                    BTreeSet::from([ResourceName::new(Kind::Cluster, &workload.cluster)])
                }
                api::Destination::Passthrough | api::Destination::Refuse(_) => BTreeSet::new(),
            },
            Self::Route(route) => route
                .clusters()
                .into_iter()
                .map(|name| ResourceName::new(Kind::Cluster, name))
                .collect(),
            Self::Cluster(cluster) => {
                BTreeSet::from([ResourceName::new(Kind::Endpoints, &cluster.endpoints)])
            }
            Self::Absent(_) | Self::Endpoints(_) | Self::Inbound(_) | Self::TrustBundle(_) => BTreeSet::new(),
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }
}

impl From<Body> for Content {
    fn from(body: Body) -> Self {
        match body {
            Body::Absent(reason) if reason.is_empty() => Self::Absent("the operator gives no reason".into()),
            Body::Absent(reason) => Self::Absent(reason.into()),
            Body::Destination(it) => Self::Destination(Arc::new(it)),
            Body::Route(it) => Self::Route(Arc::from(it)),
            Body::Cluster(it) => Self::Cluster(Arc::from(it)),
            Body::Endpoints(it) => Self::Endpoints(Arc::new(it)),
            Body::Inbound(it) => Self::Inbound(Arc::new(it)),
            Body::TrustBundle(it) => Self::TrustBundle(Arc::new(it)),
        }
    }
}

/// A content with its version.
#[derive(Debug, Clone)]
pub(super) struct Versioned {
    pub(super) version: Version,
    pub(super) content: Content,
}

/// What was refused last, until something newer is taken.
#[derive(Debug, Clone)]
pub(super) struct Rejected {
    pub(super) version: u64,
    pub(super) reason: Arc<str>,
}

/// A resource that somebody needs.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Wanted for itself, whether or not something names it.
    pub(super) root: bool,
    /// The resources that name it, in what arrived or in what is active.
    pub(super) dependents: BTreeSet<ResourceName>,
    /// The resources it names, in what arrived or in what is active.
    pub(super) needs: BTreeSet<ResourceName>,
    /// Arrived and valid, but something it names has not arrived.
    pub(super) parked: Option<Versioned>,
    /// What requests see.
    pub(super) active: Option<Versioned>,
    pub(super) rejected: Option<Rejected>,
    pub(super) applied: Option<SystemTime>,
}

impl Held {
    /// The version that the operator need not send again.
    pub(super) fn known(&self) -> Option<Version> {
        self.parked.as_ref().or(self.active.as_ref()).map(|v| v.version)
    }

    /// What it names now, over what arrived and what is active.
    pub(super) fn named(&self) -> BTreeSet<ResourceName> {
        self.parked
            .iter()
            .chain(&self.active)
            .flat_map(|v| v.content.needs())
            .collect()
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.root || !self.dependents.is_empty()
    }
}

/// Order in which resources become active: what is named before what names it.
pub(super) fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::TrustBundle | Kind::Inbound | Kind::Endpoints => 0,
        Kind::Cluster => 1,
        Kind::Route => 2,
        Kind::Destination => 3,
    }
}
