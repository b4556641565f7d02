//! From the world to what one proxy gets under one name: a pure function, with what it was made from.

use api::{Body, ObjectRef, Resource, ResourceName};

use crate::state::{Dependency, Proxy, World};

/// A compiled resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// What the proxy gets.
    pub resource: Resource,
    /// Compile again when one of these is touched.
    pub depends: Vec<Dependency>,
    /// The user's objects that shaped it.
    pub sources: Vec<ObjectRef>,
}

/// Compiles what `proxy` gets under `name`.
#[must_use]
pub fn compile(_world: &World, _proxy: &Proxy, name: &ResourceName) -> Compiled {
    let body = Body::Absent(format!("nothing is known of {name}"));
    Compiled {
        resource: Resource::new(name.clone(), body),
        depends: Vec::new(),
        sources: Vec::new(),
    }
}
