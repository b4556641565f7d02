//! From the world to what one proxy gets under one name: a pure function, with what it was made from.
//!
//! Names: a Destination is `ip:port`; a Route and Endpoints are `host:port` with the Service's full name; a Cluster is
//! `host:port` or `host:port|subset`; Inbound is `self`. A name that nothing stands behind is `Absent` with the reason,
//! and depends on what would have to appear.

mod aspects;
mod cluster;
mod declared;
mod destination;
mod endpoints;
mod inbound;
mod name;
mod route;

use std::collections::BTreeSet;

use api::{Body, Kind, Resource, ResourceName};

use crate::state::SourceObject;
use crate::state::{Deciding, Dependency, ObjectName, Proxy, World};

pub use aspects::Aspects;
pub(crate) use declared::declared;
pub use name::WORKLOAD_CLUSTER;

/// A compiled resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// What the proxy gets.
    pub resource: Resource,
    /// The same for every proxy that agrees in these.
    pub aspects: Aspects,
    /// Compile again when one of these is touched.
    pub depends: Vec<Dependency>,
    /// The user's objects that shaped it.
    pub sources: Vec<SourceObject>,
}

/// Compiles what `proxy` gets under `name`. The trust bundle is the authority's, not the world's: here it is absent.
#[must_use]
pub fn compile(world: &World, proxy: &Proxy, name: &ResourceName) -> Compiled {
    let mut from = From::default();
    let body = match name.kind {
        Kind::Destination => destination::destination(world, &name.name, &mut from),
        Kind::Route => route::route(world, proxy, &name.name, &mut from),
        Kind::Cluster => cluster::cluster(world, proxy, &name.name, &mut from),
        Kind::Endpoints => endpoints::endpoints(world, proxy, &name.name, &mut from),
        Kind::Inbound => inbound::inbound(world, proxy, &name.name, &mut from),
        Kind::TrustBundle => Err("the trust bundle is kept by the certificate authority".to_owned()),
    };
    Compiled {
        resource: Resource::new(name.clone(), body.unwrap_or_else(Body::Absent)),
        aspects: from.aspects,
        depends: from.depends.into_iter().collect(),
        sources: from.sources.into_iter().collect(),
    }
}

/// A body, or why there is none.
type Outcome = Result<Body, String>;

/// What a resource is made from, collected on the way.
#[derive(Debug, Default)]
struct From {
    aspects: Aspects,
    depends: BTreeSet<Dependency>,
    sources: BTreeSet<SourceObject>,
}

impl From {
    fn depend(&mut self, on: Dependency) {
        self.depends.insert(on);
    }

    /// Takes note of what of a client decided.
    fn looked_at<T>(&mut self, proxy: &Proxy, deciding: &Deciding<'_, T>) {
        self.aspects.namespace |= deciding.by_namespace;
        if deciding.by_labels {
            self.aspects.labels = true;
            self.depend(Dependency::pod(&ObjectName::new(&proxy.namespace, &proxy.pod)));
        }
    }

    fn source(&mut self, object: SourceObject) {
        self.sources.insert(object);
    }
}

#[cfg(test)]
mod tests;
