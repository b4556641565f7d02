//! Where each kind is served. Used by `feed`.

use crds::Kind;

use crate::kubernetes::capabilities::EndpointSlices;

/// A collection on the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) url: &'static str,
    /// Whether these are EndpointSlices of `v1beta1`.
    pub(super) old_slices: bool,
}

/// Whether every server has it.
pub(super) fn is_core(kind: Kind) -> bool {
    matches!(kind, Kind::Service | Kind::Pod | Kind::Namespace)
}

/// Where a kind may be served, the likeliest first.
pub(super) fn places(kind: Kind, slices: EndpointSlices) -> Vec<Place> {
    let at = |url| Place {
        url,
        old_slices: false,
    };
    match kind {
        Kind::Service => vec![at("/api/v1/services")],
        Kind::Pod => vec![at("/api/v1/pods")],
        Kind::Namespace => vec![at("/api/v1/namespaces")],
        Kind::EndpointSlice => {
            let new = at("/apis/discovery.k8s.io/v1/endpointslices");
            let old = Place {
                url: "/apis/discovery.k8s.io/v1beta1/endpointslices",
                old_slices: true,
            };
            match slices {
                EndpointSlices::V1 => vec![new, old],
                EndpointSlices::V1Beta1 => vec![old, new],
            }
        }
        Kind::VirtualService => vec![at("/apis/hauberk.dev/v1alpha1/virtualservices")],
        Kind::DestinationRule => vec![at("/apis/hauberk.dev/v1alpha1/destinationrules")],
        Kind::PeerAuthentication => vec![at("/apis/hauberk.dev/v1alpha1/peerauthentications")],
    }
}
