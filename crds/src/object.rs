//! The objects the mesh is built from, whichever source they come from, and what each is called.

use std::fmt;

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;

use crate::{
    destination_rule::DestinationRule, peer_authentication::PeerAuthentication,
    virtual_service::VirtualService,
};

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A service, with its name and ports.
    Service(Box<Service>),
    /// A pod.
    Pod(Box<Pod>),
    /// A namespace, with its labels.
    Namespace(Box<Namespace>),
    /// The addresses of a service.
    EndpointSlice(Box<EndpointSlice>),
    /// Where traffic goes.
    VirtualService(Box<VirtualService>),
    /// How it is handled there.
    DestinationRule(Box<DestinationRule>),
    /// Who may come in.
    PeerAuthentication(Box<PeerAuthentication>),
}

/// The kinds of [`Object`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1 Service.
    Service,
    /// v1 Pod.
    Pod,
    /// v1 Namespace.
    Namespace,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// hauberk.dev VirtualService.
    VirtualService,
    /// hauberk.dev DestinationRule.
    DestinationRule,
    /// hauberk.dev PeerAuthentication.
    PeerAuthentication,
}

/// What an object is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a namespace itself.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Object {
    /// What it is called.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(object) => ObjectKey::of(Kind::Service, &**object),
            Self::Pod(object) => ObjectKey::of(Kind::Pod, &**object),
            Self::Namespace(object) => ObjectKey::of(Kind::Namespace, &**object),
            Self::EndpointSlice(object) => ObjectKey::of(Kind::EndpointSlice, &**object),
            Self::VirtualService(object) => ObjectKey::of(Kind::VirtualService, &**object),
            Self::DestinationRule(object) => ObjectKey::of(Kind::DestinationRule, &**object),
            Self::PeerAuthentication(object) => ObjectKey::of(Kind::PeerAuthentication, &**object),
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Service(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::VirtualService(object) => &object.metadata,
            Self::DestinationRule(object) => &object.metadata,
            Self::PeerAuthentication(object) => &object.metadata,
        }
    }
}

impl ObjectKey {
    /// The key of an object of this kind.
    pub fn of(kind: Kind, object: &impl Resource) -> Self {
        let ObjectMeta { name, namespace, .. } = object.meta();
        Self {
            kind,
            namespace: namespace.clone().unwrap_or_default(),
            name: name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            namespace,
            name,
        } = self;
        match namespace.as_str() {
            "" => write!(f, "{kind} {name}"),
            namespace => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Service,
        Self::Pod,
        Self::Namespace,
        Self::EndpointSlice,
        Self::VirtualService,
        Self::DestinationRule,
        Self::PeerAuthentication,
    ];

    /// Its name in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
            Self::EndpointSlice => "EndpointSlice",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::PeerAuthentication => "PeerAuthentication",
        }
    }

    /// The `apiVersion` it is read at.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Pod | Self::Namespace => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::VirtualService | Self::DestinationRule | Self::PeerAuthentication => crate::API_VERSION,
        }
    }

    /// Whether objects of this kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
