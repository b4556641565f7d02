//! An object as a folder keeps it. Kubernetes' own kinds are most of what there is, and as values they are many times
//! larger than as text, for each of their fields has a place whether it is used or not. They are kept packed, and made into
//! values again when they go on.

use std::sync::Arc;

use crds::Object;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An object, as small as may be. Equal objects are equal here.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kept {
    Service(Packed),
    Pod(Packed),
    Namespace(Packed),
    EndpointSlice(Packed),
    /// One of ours: few, and looked into when they come anew.
    Ours(Arc<Object>),
}

/// JSON.
type Packed = Arc<[u8]>;

impl From<Object> for Kept {
    fn from(object: Object) -> Self {
        match &object {
            Object::Service(object) => Self::Service(pack(object)),
            Object::Pod(object) => Self::Pod(pack(object)),
            Object::Namespace(object) => Self::Namespace(pack(object)),
            Object::EndpointSlice(object) => Self::EndpointSlice(pack(object)),
            Object::VirtualService(_) | Object::DestinationRule(_) | Object::PeerAuthentication(_) => {
                Self::Ours(Arc::new(object))
            }
        }
    }
}

impl Kept {
    pub(super) fn object(&self) -> Object {
        match self {
            Self::Service(packed) => Object::Service(unpack(packed)),
            Self::Pod(packed) => Object::Pod(unpack(packed)),
            Self::Namespace(packed) => Object::Namespace(unpack(packed)),
            Self::EndpointSlice(packed) => Object::EndpointSlice(unpack(packed)),
            Self::Ours(object) => Object::clone(object),
        }
    }
}

fn pack(object: &impl Serialize) -> Packed {
    let json = serde_json::to_vec(object);
    json.expect("an object that was read can be written").into()
}

fn unpack<T: DeserializeOwned>(packed: &Packed) -> T {
    serde_json::from_slice(packed).expect("it was packed here")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing::{objects, shop};

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let all = shop()
            + "
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: shop, creationTimestamp: '2026-01-02T03:04:05Z', annotations: {a: b}}
spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}], resources: {limits: {cpu: 100m}}}]}
status: {podIP: 10.0.0.1, containerStatuses: [{name: c, image: i, imageID: x, ready: true, restartCount: 0}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {a: b}}
";
        for object in objects(&all) {
            let kept = Kept::from(object.clone());
            assert_eq!(kept.object(), object);
            assert_eq!(Kept::from(kept.object()), kept);
        }
    }
}
