//! What must hold for whatever the network brings: one check for each reader of untrusted bytes. A check returns or
//! panics, and does nothing else.
//!
//! `fuzz_targets/` hands them to libFuzzer (`make fuzz`, or cargo-fuzz), `tests/nearly_right.rs` to the ordinary tests.
//! [`seeds()`] are where both begin.

mod routing;
mod seeds;

use api::{Invalid, Resource, proto};
use prost::Message as _;
use proxy::detect::tls::{ClientHelloError, client_hello as read_client_hello};
use proxy::detect::{Detected, MOST_BYTES, detect as judge};

pub use routing::route_select;
pub use seeds::seeds;

/// A check by its name.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the libFuzzer target.
    pub name: &'static str,
    /// Panics where the bytes show an error.
    pub check: fn(&[u8]),
}

/// Every check.
pub const TARGETS: [Target; 4] = [
    Target {
        name: "detect",
        check: detect,
    },
    Target {
        name: "client_hello",
        check: client_hello,
    },
    Target {
        name: "resource",
        check: resource,
    },
    Target {
        name: "route_select",
        check: route_select,
    },
];

/// The lengths at which a connection's bytes may have been cut by the network: each at first, then fewer.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let step = |end: &usize| *end < 64 || end.is_multiple_of(61);
    (0..bytes.len())
        .filter(step)
        .chain([bytes.len()])
        .map(|end| &bytes[..end])
}

/// Detection comes to a verdict within its bound, and more bytes never change it.
///
/// # Panics
/// When that does not hold.
pub fn detect(bytes: &[u8]) {
    let mut verdict = Detected::NeedMore;
    for part in cuts(bytes) {
        let now = judge(part);
        assert!(
            verdict == Detected::NeedMore || now == verdict,
            "{verdict:?} became {now:?} at {} bytes",
            part.len()
        );
        verdict = now;
    }
    let padded: Vec<u8> = bytes
        .iter()
        .copied()
        .chain(std::iter::repeat(b'a'))
        .take(MOST_BYTES)
        .collect();
    assert_ne!(judge(&padded), Detected::NeedMore);
}

/// A ClientHello is read, refused or asked more of; more bytes change neither what was read nor a refusal; and whatever
/// name was read could be a host's.
///
/// # Panics
/// When that does not hold.
pub fn client_hello(bytes: &[u8]) {
    let mut settled = None;
    for part in cuts(bytes) {
        let now = read_client_hello(part);
        match &settled {
            Some(before) => assert_eq!(&now, before, "at {} bytes", part.len()),
            None if now == Err(ClientHelloError::NeedMore) => {}
            None => settled = Some(now),
        }
    }
    if let Some(Ok(hello)) = settled
        && let Some(name) = hello.sni
    {
        let name = name.as_str();
        let plain = |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase();
        assert!(
            name.bytes().all(plain) && !name.split('.').any(str::is_empty),
            "{name:?}"
        );
    }
}

/// A resource of the stream is refused with its field and the reason, or taken; then it comes back from the wire as it
/// was, and its version is that of its content.
///
/// # Panics
/// When that does not hold.
pub fn resource(bytes: &[u8]) {
    let Ok(message) = proto::Resource::decode(bytes) else {
        return;
    };
    let taken = match Resource::try_from(message) {
        Ok(taken) => taken,
        Err(Invalid { field, problem }) => {
            assert!(!field.is_empty() && !problem.is_empty(), "{field}: {problem}");
            return;
        }
    };
    let sent = proto::Resource::from(taken.clone()).encode_to_vec();
    let arrived = proto::Resource::decode(&sent[..]).expect("what we encode can be decoded");
    assert_eq!(Resource::try_from(arrived), Ok(taken.clone()));
    let (first, second) = (
        Resource::new(taken.name.clone(), taken.body.clone()),
        Resource::new(taken.name, taken.body),
    );
    assert_eq!(first.version, second.version);
}
