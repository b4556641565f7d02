//! Which protocols of the mesh a TLS client offers, recognised by [`super::tls`] before the handshake. A peer that offers
//! none of them is not of this mesh, and its TLS belongs to the application.

use api::MeshProtocol;

/// Which of them a client offers. Empty for a client that is not of this mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshOffer(u8);

impl MeshOffer {
    /// Whether none is offered.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is offered.
    pub fn contains(self, protocol: MeshProtocol) -> bool {
        self.0 & Self::bit(protocol) != 0
    }

    /// Adds one to the offer.
    pub fn insert(&mut self, protocol: MeshProtocol) {
        self.0 |= Self::bit(protocol);
    }

    fn bit(protocol: MeshProtocol) -> u8 {
        match protocol {
            MeshProtocol::Http1 => 1,
            MeshProtocol::Http2 => 2,
            MeshProtocol::Http1OverHttp2 => 4,
            MeshProtocol::Tcp => 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_holds_what_was_put_in() {
        for protocol in MeshProtocol::ALL {
            let mut offer = MeshOffer::default();
            assert!(offer.is_empty());
            offer.insert(protocol);
            assert!(!offer.is_empty());
            for other in MeshProtocol::ALL {
                assert_eq!(offer.contains(other), other == protocol);
            }
        }
    }
}
