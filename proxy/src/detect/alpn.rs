//! The names under which two proxies of the mesh agree, in the TLS handshake, on what they will speak.
//!
//! Offered by the outbound side, recognised by [`super::tls`] before the handshake and chosen by the inbound side in
//! it. A peer that offers none of them is not of this mesh, and its TLS belongs to the app.

/// What two proxies speak inside their TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeshProtocol {
    /// HTTP/1.1, as the app spoke it.
    Http1,
    /// HTTP/2, as the app spoke it.
    Http2,
    /// Requests the app made in HTTP/1.1, carried in HTTP/2 so that they share a connection.
    Http1OverHttp2,
    /// Bytes.
    Tcp,
}

impl MeshProtocol {
    /// All of them, the more specific first.
    pub const ALL: [Self; 4] = [Self::Http1OverHttp2, Self::Http2, Self::Http1, Self::Tcp];

    /// Its name in the handshake.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"hauberk/h1",
            Self::Http2 => b"hauberk/h2",
            Self::Http1OverHttp2 => b"hauberk/h1-over-h2",
            Self::Tcp => b"hauberk/tcp",
        }
    }

    /// By its name in the handshake; `None` for every other name.
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

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
    fn every_name_leads_back_to_its_protocol_and_no_other_name_does() {
        for protocol in MeshProtocol::ALL {
            assert_eq!(MeshProtocol::named(protocol.name()), Some(protocol));
        }
        for other in [&b"h2"[..], b"http/1.1", b"hauberk/", b"hauberk/h3", b""] {
            assert_eq!(MeshProtocol::named(other), None);
        }
    }

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
