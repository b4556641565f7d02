//! Which protocol a connection speaks, judged by its first bytes.
//!
//! Called by the inbound and outbound sides while they fill the prefix of an [`crate::io::Io`]; they own the waiting
//! and its time limit. A verdict other than [`Detected::NeedMore`] is final: more bytes never change it. Nothing here
//! allocates, and no bytes can make it panic.
//!
//! Protocols in which the server speaks first have no first bytes to judge; for those there is what a Service declares,
//! and the caller's time limit.

pub mod alpn;
pub mod tls;

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detected {
    /// Not enough bytes to tell. Never returned for [`MOST_BYTES`] or more.
    NeedMore,
    /// A request line of HTTP/1.
    Http1,
    /// The preface of HTTP/2 with prior knowledge.
    Http2,
    /// A TLS record which carries the start of a ClientHello.
    Tls,
    /// None of these.
    Opaque,
}

/// So many bytes always suffice for a verdict. A request line without an end by then is not looked at any further.
pub const MOST_BYTES: usize = 8192;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LONGEST_METHOD: usize = 32;

/// Methods that no line-based protocol also uses as a command with a path behind it.
const WELL_KNOWN_METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

/// Judges all bytes received so far.
pub fn detect(bytes: &[u8]) -> Detected {
    let bytes = bytes.get(..MOST_BYTES).unwrap_or(bytes);
    if bytes.starts_with(PREFACE) {
        return Detected::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Detected::NeedMore;
    }
    let verdict = match bytes.first() {
        Some(&tls::HANDSHAKE) => tls_record(bytes),
        _ => request_line(bytes),
    };
    match verdict {
        Detected::NeedMore if bytes.len() >= MOST_BYTES => Detected::Opaque,
        verdict => verdict,
    }
}

/// Record type, version 3.x, a length that is neither zero nor too great, and the first byte of a ClientHello.
fn tls_record(bytes: &[u8]) -> Detected {
    let wrong = bytes.get(1).is_some_and(|major| *major != 3)
        || bytes.get(2).is_some_and(|minor| *minor > 4)
        || bytes
            .get(3)
            .is_some_and(|high| usize::from(*high) > tls::LONGEST_RECORD >> 8)
        || bytes.get(3..5).is_some_and(|length| {
            !tls::record_length_is_possible(u16::from_be_bytes([length[0], length[1]]))
        })
        || bytes.get(5).is_some_and(|kind| *kind != tls::CLIENT_HELLO);
    match (wrong, bytes.len()) {
        (true, _) => Detected::Opaque,
        (false, ..6) => Detected::NeedMore,
        (false, _) => Detected::Tls,
    }
}

/// `method SP target SP "HTTP/1."`. A well-known method with a path behind it is enough. Anything else is believed
/// only with the version, because `GET x` is also Redis, `OPTIONS *` also RTSP, and `CONNECT {` also NATS.
fn request_line(bytes: &[u8]) -> Detected {
    let method_end = match bytes
        .iter()
        .take(LONGEST_METHOD + 1)
        .position(|byte| !is_token(*byte))
    {
        Some(end) if end > 0 && bytes[end] == b' ' => end,
        Some(_) => return Detected::Opaque,
        None if bytes.len() > LONGEST_METHOD => return Detected::Opaque,
        None => return Detected::NeedMore,
    };
    let (method, rest) = (&bytes[..method_end], &bytes[method_end + 1..]);
    if rest.first() == Some(&b'/') && WELL_KNOWN_METHODS.contains(&method) {
        return Detected::Http1;
    }
    let version = match rest.iter().position(|byte| *byte <= b' ' || *byte == 0x7f) {
        Some(end) if end > 0 && rest[end] == b' ' => &rest[end + 1..],
        Some(_) => return Detected::Opaque,
        None => return Detected::NeedMore,
    };
    const VERSION: &[u8] = b"HTTP/1.";
    if version.starts_with(VERSION) {
        Detected::Http1
    } else if VERSION.starts_with(version) {
        Detected::NeedMore
    } else {
        Detected::Opaque
    }
}

/// A byte that may stand in a method (RFC 9110, `tchar`).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_protocol_is_told_by_its_first_bytes() {
        use Detected::{Http1, Http2, NeedMore, Opaque, Tls};
        let cases: &[(&[u8], Detected)] = &[
            (b"", NeedMore),
            // HTTP/1
            (b"GET /", Http1),
            (b"GET / HTTP/1.1\r\n", Http1),
            (b"DELETE /items/7", Http1),
            (b"GET http://example.org/ HTTP/1.1\r\n", Http1),
            (b"CONNECT example.org:443 HTTP/1.1\r\n", Http1),
            (b"OPTIONS * HTTP/1.1\r\n", Http1),
            (b"PROPFIND /dav HTTP/1.1\r\n", Http1),
            (b"M-SEARCH * HTTP/1.1\r\n", Http1),
            (b"X-ODD_method! /a%20b?c=\xc3\xa9 HTTP/1.0\r\n", Http1),
            (b"PRI * HTTP/1.1\r\n", Http1),
            (b"GET", NeedMore),
            (b"GET ", NeedMore),
            (b"PROPFIND /dav HTTP/1", NeedMore),
            (b"GET http://example.org/", NeedMore),
            // HTTP/2
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04", Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", NeedMore),
            (b"P", NeedMore),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Opaque),
            // TLS
            (b"\x16\x03\x01\x02\x00\x01", Tls),
            (b"\x16\x03\x03\x00\x01\x01", Tls),
            (b"\x16\x03\x01\x02\x00", NeedMore),
            (b"\x16", NeedMore),
            (b"\x16\x02", Opaque),
            (b"\x16\x03\x05", Opaque),
            (b"\x16\x03\x01\x00\x00", Opaque),
            (b"\x16\x03\x01\x40\x01", Opaque),
            (b"\x16\x03\x01\x41", Opaque),
            (b"\x16\x03\x01\x02\x00\x02", Opaque),
            (b"\x15\x03\x01\x00\x02\x02", Opaque),
            // others
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Opaque), // PostgreSQL: SSLRequest
            (b"*3\r\n$3\r\nSET\r\n", Opaque),              // Redis
            (b"GET key\r\n", Opaque),                      // Redis, inline
            (b"PING\r\n", Opaque),
            (b"get key\r\n", Opaque), // memcached
            (b"set key 0 0 5\r\nvalue\r\n", Opaque),
            (b"EHLO mail.example.org\r\n", Opaque),
            (b"220 mail.example.org ESMTP\r\n", Opaque),
            (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Opaque),
            (b"\x4a\x00\x00\x00\x0a8.0.36\x00", Opaque), // MySQL greeting
            (b"\x3a\x00\x00\x00\xa7\x41\x00\x00", Opaque), // MongoDB
            (b"AMQP\x00\x00\x09\x01", Opaque),
            (b"CONNECT {\"verbose\":false}\r\n", Opaque), // NATS
            (b"OPTIONS rtsp://example.org/ RTSP/1.0\r\n", Opaque),
            (b"OPTIONS * RTSP/1.0\r\n", Opaque),
            (b"INVITE sip:a@example.org SIP/2.0\r\n", Opaque),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Opaque),
            (b"GET  HTTP/1.1\r\n", Opaque),
            (b"\r\nGET / HTTP/1.1\r\n", Opaque),
            (b" GET / HTTP/1.1\r\n", Opaque),
        ];
        for (bytes, expected) in cases {
            assert_eq!(detect(bytes), *expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn an_endless_method_or_target_is_given_up() {
        assert_eq!(detect(&[b'A'; LONGEST_METHOD]), Detected::NeedMore);
        assert_eq!(detect(&[b'A'; LONGEST_METHOD + 1]), Detected::Opaque);
        let mut endless = b"BREW ".to_vec();
        endless.resize(MOST_BYTES - 1, b'x');
        assert_eq!(detect(&endless), Detected::NeedMore);
        endless.push(b'x');
        assert_eq!(detect(&endless), Detected::Opaque);
        endless.extend(b" HTTP/1.1\r\n");
        assert_eq!(detect(&endless), Detected::Opaque);
    }

    /// Bytes that get far into one of the parsers, or into none.
    fn first_bytes() -> impl Strategy<Value = Vec<u8>> {
        let start = prop_oneof![
            Just(b"".to_vec()),
            Just(b"GET ".to_vec()),
            Just(b"BREW /pot HTTP/1.".to_vec()),
            Just(PREFACE.to_vec()),
            Just(b"\x16\x03\x01\x02\x00\x01".to_vec()),
        ];
        let printable = proptest::collection::vec(prop_oneof![Just(b' '), Just(b'/'), b'A'..=b'Z'], 0..40);
        let other = proptest::collection::vec(any::<u8>(), 0..40);
        (start, any::<prop::sample::Index>(), prop_oneof![printable, other]).prop_map(|(start, cut, tail)| {
            let cut = cut.index(start.len() + 1);
            [&start[..cut], &tail[..]].concat()
        })
    }

    proptest! {
        #[test]
        fn a_verdict_on_a_prefix_is_the_verdict_on_the_whole(bytes in first_bytes()) {
            let verdicts: Vec<Detected> = (0..=bytes.len()).map(|end| detect(&bytes[..end])).collect();
            if let Some(first) = verdicts.iter().position(|verdict| *verdict != Detected::NeedMore) {
                prop_assert!(verdicts[first..].iter().all(|verdict| *verdict == verdicts[first]), "{verdicts:?}");
            }
        }

        #[test]
        fn enough_bytes_always_have_a_verdict(seed in proptest::collection::vec(any::<u8>(), 1..64)) {
            let bytes: Vec<u8> = seed.iter().copied().cycle().take(MOST_BYTES).collect();
            prop_assert_ne!(detect(&bytes), Detected::NeedMore);
        }
    }
}
