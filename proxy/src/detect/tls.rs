//! Reads what a ClientHello says in the clear: the name the client wants and the protocols it offers.
//!
//! Called by the inbound side to tell a peer of the mesh from an app's own TLS, and by the outbound side to route an
//! app's TLS by name. It terminates nothing and checks no signature. The message may be spread over several records
//! of any size. Nothing is allocated; a message longer than [`LONGEST_HELLO`] is not read to its end.

use api::MeshProtocol;

use super::alpn::MeshOffer;

/// Record type of the handshake.
pub(super) const HANDSHAKE: u8 = 0x16;
/// Handshake message type.
pub(super) const CLIENT_HELLO: u8 = 1;
/// RFC 8446, 5.1: what a plaintext record may hold.
pub(super) const LONGEST_RECORD: usize = 1 << 14;

/// Post-quantum key shares and session tickets make for some kilobytes; more than this nobody sends.
pub const LONGEST_HELLO: usize = 16 * 1024;

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST: u8 = 0;
const LONGEST_NAME: usize = 253;

/// What a ClientHello says in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host the client wants, if it names one that can be a host name.
    pub sni: Option<ServerName>,
    /// Which protocols of the mesh it offers.
    pub mesh: MeshOffer,
}

/// A host name in lower case, without a dot at its end.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerName {
    bytes: [u8; LONGEST_NAME],
    length: u8,
}

/// Why there is no [`ClientHello`] yet, or never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientHelloError {
    /// The bytes so far are the start of one.
    #[error("the ClientHello is not complete yet")]
    NeedMore,
    /// They are not, and no more bytes will help.
    #[error("not a ClientHello: {0}")]
    Invalid(&'static str),
}

use ClientHelloError::{Invalid, NeedMore};

/// Parses all bytes received so far.
pub fn client_hello(bytes: &[u8]) -> Result<ClientHello, ClientHelloError> {
    let mut message = Message {
        bytes,
        record_left: 0,
        limit: 4,
    };
    if message.u8()? != CLIENT_HELLO {
        return Err(Invalid("another handshake message comes first"));
    }
    let length = message.number(3)?;
    if length > LONGEST_HELLO {
        return Err(Invalid("it is too long"));
    }
    message.limit = length;

    message.skip(2 + 32)?; // version, random
    let session = message.number(1)?;
    message.skip(session)?;
    let ciphers = message.number(2)?;
    message.skip(ciphers)?;
    let compressions = message.number(1)?;
    message.skip(compressions)?;

    let mut hello = ClientHello::default();
    if message.limit > 0 {
        let extensions = message.number(2)?;
        if extensions != message.limit {
            return Err(Invalid("its extensions do not fill it"));
        }
        extensions_of(&mut message, &mut hello)?;
    }
    Ok(hello)
}

pub(super) fn record_length_is_possible(length: u16) -> bool {
    (1..=LONGEST_RECORD).contains(&usize::from(length))
}

fn extensions_of(message: &mut Message<'_>, hello: &mut ClientHello) -> Result<(), ClientHelloError> {
    let (mut named, mut offered) = (false, false);
    while message.limit > 0 {
        let kind = message.u16()?;
        let length = message.number(2)?;
        let rest = message
            .limit
            .checked_sub(length)
            .ok_or(Invalid("an extension is longer than the message"))?;
        message.limit = length;
        match kind {
            // Twice the same would leave open which of them the server believes.
            EXTENSION_SERVER_NAME if std::mem::replace(&mut named, true) => {
                return Err(Invalid("it names its server twice"));
            }
            EXTENSION_ALPN if std::mem::replace(&mut offered, true) => {
                return Err(Invalid("it offers its protocols twice"));
            }
            EXTENSION_SERVER_NAME => hello.sni = server_name(message)?,
            EXTENSION_ALPN => hello.mesh = protocols(message)?,
            _ => message.skip(length)?,
        }
        if message.limit > 0 {
            return Err(Invalid("an extension is longer than its content"));
        }
        message.limit = rest;
    }
    Ok(())
}

fn server_name(message: &mut Message<'_>) -> Result<Option<ServerName>, ClientHelloError> {
    if message.number(2)? != message.limit {
        return Err(Invalid("its list of server names does not fill the extension"));
    }
    let (mut found, mut named) = (None, false);
    while message.limit > 0 {
        let kind = message.u8()?;
        let length = message.number(2)?;
        if kind == NAME_TYPE_HOST && std::mem::replace(&mut named, true) {
            return Err(Invalid("it names its server twice"));
        }
        if kind == NAME_TYPE_HOST && length <= LONGEST_NAME + 1 {
            let mut name = [0; LONGEST_NAME + 1];
            message.read(&mut name[..length])?;
            found = ServerName::new(&name[..length]);
        } else {
            message.skip(length)?;
        }
    }
    Ok(found)
}

fn protocols(message: &mut Message<'_>) -> Result<MeshOffer, ClientHelloError> {
    if message.number(2)? != message.limit {
        return Err(Invalid("its list of protocols does not fill the extension"));
    }
    let mut offer = MeshOffer::default();
    while message.limit > 0 {
        let length = message.number(1)?;
        let mut name = [0; u8::MAX as usize];
        message.read(&mut name[..length])?;
        if let Some(protocol) = MeshProtocol::from_alpn(&name[..length]) {
            offer.insert(protocol);
        }
    }
    Ok(offer)
}

/// The bytes of a handshake message, as they stand in one record or several.
struct Message<'a> {
    /// What was received and not read yet, with the heads of records in between.
    bytes: &'a [u8],
    /// How many of them belong to the record that has begun.
    record_left: usize,
    /// How many bytes of the message may still be read: what encloses the current part allows no more.
    limit: usize,
}

impl Message<'_> {
    fn u8(&mut self) -> Result<u8, ClientHelloError> {
        let mut byte = [0];
        self.read(&mut byte)?;
        Ok(byte[0])
    }

    fn u16(&mut self) -> Result<u16, ClientHelloError> {
        let mut bytes = [0; 2];
        self.read(&mut bytes)?;
        Ok(u16::from_be_bytes(bytes))
    }

    /// A big-endian number of one to three bytes.
    fn number(&mut self, bytes: usize) -> Result<usize, ClientHelloError> {
        (0..bytes).try_fold(0, |number, _| Ok(number << 8 | usize::from(self.u8()?)))
    }

    fn read(&mut self, mut into: &mut [u8]) -> Result<(), ClientHelloError> {
        self.take(into.len(), |piece| {
            let (now, later) = std::mem::take(&mut into).split_at_mut(piece.len());
            now.copy_from_slice(piece);
            into = later;
        })
    }

    fn skip(&mut self, count: usize) -> Result<(), ClientHelloError> {
        self.take(count, |_| ())
    }

    /// Takes `count` bytes of the message, in pieces that lie within one record.
    fn take(&mut self, count: usize, mut piece: impl FnMut(&[u8])) -> Result<(), ClientHelloError> {
        self.limit = self
            .limit
            .checked_sub(count)
            .ok_or(Invalid("a part is longer than what encloses it"))?;
        let mut missing = count;
        while missing > 0 {
            if self.record_left == 0 {
                self.begin_record()?;
            }
            let now = missing.min(self.record_left).min(self.bytes.len());
            if now == 0 {
                return Err(NeedMore);
            }
            let (head, tail) = self.bytes.split_at(now);
            piece(head);
            self.bytes = tail;
            self.record_left -= now;
            missing -= now;
        }
        Ok(())
    }

    fn begin_record(&mut self) -> Result<(), ClientHelloError> {
        let wrong = self.bytes.first().is_some_and(|kind| *kind != HANDSHAKE)
            || self.bytes.get(1).is_some_and(|major| *major != 3);
        if wrong {
            return Err(Invalid("a record in it is not of the handshake"));
        }
        let (head, tail) = self.bytes.split_at_checked(5).ok_or(NeedMore)?;
        let length = u16::from_be_bytes([head[3], head[4]]);
        if !record_length_is_possible(length) {
            return Err(Invalid("a record in it has an impossible length"));
        }
        self.record_left = usize::from(length);
        self.bytes = tail;
        Ok(())
    }
}

impl ServerName {
    /// `None` for what cannot be a host name; such a client is not refused, it just names nobody.
    fn new(name: &[u8]) -> Option<Self> {
        let name = name.strip_suffix(b".").unwrap_or(name);
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let empty_label = name.split(|byte| *byte == b'.').any(<[u8]>::is_empty);
        if empty_label || name.len() > LONGEST_NAME || !name.iter().all(legal) {
            return None;
        }
        let mut bytes = [0; LONGEST_NAME];
        bytes[..name.len()].copy_from_slice(name);
        bytes.make_ascii_lowercase();
        Some(Self {
            bytes,
            length: u8::try_from(name.len()).ok()?,
        })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        // Only ASCII was let in, so the fallback is never taken.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl std::fmt::Debug for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Detected, detect};
    use proptest::prelude::*;
    use std::sync::{Arc, OnceLock};

    /// The first flight of a real client.
    fn real_hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        static CONFIG: OnceLock<rustls::ClientConfig> = OnceLock::new();
        let config = CONFIG.get_or_init(|| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth()
        });
        let mut config = config.clone();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message cut into records of at most `size` bytes.
    fn in_records_of(size: usize, hello: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in hello[5..].chunks(size) {
            bytes.extend([HANDSHAKE, 3, 1]);
            bytes.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
            bytes.extend(piece);
        }
        bytes
    }

    #[test]
    fn the_hello_of_a_real_client_is_read_in_one_record_and_in_many() {
        let hello = real_hello(
            "Reviews.Shop.svc",
            &[b"h2", MeshProtocol::Tcp.alpn(), b"http/1.1"],
        );
        for bytes in [
            hello.clone(),
            in_records_of(1, &hello),
            in_records_of(7, &hello),
            in_records_of(100, &hello),
        ] {
            assert_eq!(detect(&bytes), Detected::Tls);
            let parsed = client_hello(&bytes).unwrap();
            assert_eq!(
                parsed.sni.as_ref().map(ServerName::as_str),
                Some("reviews.shop.svc")
            );
            for protocol in MeshProtocol::ALL {
                assert_eq!(parsed.mesh.contains(protocol), protocol == MeshProtocol::Tcp);
            }
        }
    }

    #[test]
    fn a_client_that_dials_an_address_names_nobody_and_offers_nothing_of_the_mesh() {
        let parsed = client_hello(&real_hello("192.0.2.1", &[b"h2"])).unwrap();
        assert_eq!(parsed, ClientHello::default());
    }

    #[test]
    fn every_true_prefix_of_a_hello_needs_more() {
        let hello = real_hello("example.org", &[b"hauberk/h2"]);
        for bytes in [hello.clone(), in_records_of(50, &hello)] {
            for end in 0..bytes.len() {
                assert_eq!(
                    client_hello(&bytes[..end]),
                    Err(NeedMore),
                    "{end} of {}",
                    bytes.len()
                );
            }
        }
    }

    /// A ClientHello with just these extensions.
    fn hello_with(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let mut record = vec![HANDSHAKE, 3, 1];
        record.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
        record.extend([CLIENT_HELLO, 0]);
        record.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        record.extend(body);
        record
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        let length = u8::try_from(name.len()).unwrap();
        let mut extension = vec![0, 0, 0, length + 5, 0, length + 3, 0, 0, length];
        extension.extend(name);
        extension
    }

    #[test]
    fn names_that_cannot_be_hosts_are_passed_over() {
        for (name, expected) in [
            (&b"a.example.org"[..], Some("a.example.org")),
            (b"A.Example.ORG.", Some("a.example.org")),
            (b"with space", None),
            (b"caf\xc3\xa9.org", None),
            (b"nul\0.org", None),
            (b"", None),
            (b".", None),
            (b"a..", None),
            (b"a..example.org", None),
        ] {
            let parsed = client_hello(&hello_with(&sni(name))).unwrap();
            assert_eq!(parsed.sni.as_ref().map(ServerName::as_str), expected, "{name:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let alpn = b"\0\x10\0\x05\0\x03\x02h2";
        for (bytes, said) in [
            (hello_with(&[sni(b"a"), sni(b"b")].concat()), "twice"),
            (hello_with(b"\0\0\0\x0a\0\x08\0\0\x01a\0\0\x01b"), "twice"),
            (hello_with(&[&alpn[..], alpn].concat()), "twice"),
            (hello_with(b"\0\x10\0\x09\0\x03\x02h2"), "longer than the message"),
            (hello_with(b"\0\x10\0\x05\0\x02\x02h2"), "does not fill"),
            (
                hello_with(b"\0\x10\0\x05\0\x03\x09h2"),
                "longer than what encloses it",
            ),
            (
                hello_with(b"\0\0\0\x05\0\x03\0\0\x09"),
                "longer than what encloses it",
            ),
            (
                b"\x16\x03\x01\0\x04\x02\0\0\0".to_vec(),
                "another handshake message",
            ),
            (b"\x16\x03\x01\0\x04\x01\xff\xff\xff".to_vec(), "too long"),
            (b"\x17\x03\x01".to_vec(), "not of the handshake"),
            (b"\x16\x03\x01\0\0".to_vec(), "impossible length"),
            (b"GET / HTTP/1.1".to_vec(), "not of the handshake"),
        ] {
            let error = client_hello(&bytes).unwrap_err();
            assert!(
                matches!(error, Invalid(_)) && error.to_string().contains(said),
                "{bytes:x?}: {error}"
            );
        }
    }

    #[test]
    fn a_hello_without_extensions_says_nothing() {
        let mut bytes = hello_with(&[]);
        assert_eq!(client_hello(&bytes), Ok(ClientHello::default()));
        bytes.truncate(bytes.len() - 2);
        bytes[4] -= 2;
        bytes[8] -= 2;
        assert_eq!(client_hello(&bytes), Ok(ClientHello::default()));
    }

    proptest! {
        // Each case parses every prefix of a hello.
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn no_bytes_make_the_parser_panic_or_change_its_mind(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            size in 1usize..300,
        ) {
            static HELLO: OnceLock<Vec<u8>> = OnceLock::new();
            let hello = HELLO.get_or_init(|| real_hello("example.org", &[b"hauberk/h1", b"h2"]));
            let mut bytes = in_records_of(size, hello);
            for (index, value) in flips {
                let index = index.index(bytes.len());
                bytes[index] = value;
            }
            let mut settled = None;
            for end in 0..=bytes.len() {
                let verdict = client_hello(&bytes[..end]);
                match &settled {
                    Some(settled) => prop_assert_eq!(&verdict, settled),
                    None if verdict != Err(NeedMore) => settled = Some(verdict),
                    None => {}
                }
            }
        }

    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = client_hello(&bytes);
            let _ = client_hello(&[&b"\x16\x03\x01\x01\x90\x01\0\x01\x8c"[..], &bytes].concat());
        }
    }
}
