//! Puts TCP segments together into streams, and tells TLS from anything else by its record headers.
//!
//! Pure functions of what was captured.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::packet::Segment;

const RECORD_HEADER: usize = 5;
/// RFC 8446, section 5.2: 2^14 bytes and the most that encryption may add (TLS 1.2 allowed more).
const MAX_RECORD: usize = 16 * 1024 + 2048;

/// One direction of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stream {
    /// The sender.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// What was sent, in order, up to the first byte that the capture has missed.
    pub bytes: Vec<u8>,
    /// Whether the capture saw the stream open, so that `bytes` starts at its first byte.
    pub from_start: bool,
    /// Whether bytes are missing behind `bytes`.
    pub hole: bool,
}

/// What a stream carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content {
    /// TLS records and nothing else.
    Tls {
        /// Records of the handshake in clear.
        handshake: usize,
        /// Encrypted records.
        encrypted: usize,
    },
    /// Something else.
    Plain,
    /// The capture did not see its beginning, so record boundaries are unknown.
    Unknown,
}

impl Stream {
    /// What it carries, judged from its first byte to its last.
    pub fn content(&self) -> Content {
        if self.from_start {
            classify(&self.bytes)
        } else {
            Content::Unknown
        }
    }

    /// Whether it is TLS from its first byte to its last.
    pub fn is_tls(&self) -> bool {
        matches!(self.content(), Content::Tls { .. })
    }

    /// Whether `marker` is in it.
    pub fn contains(&self, marker: &[u8]) -> bool {
        !marker.is_empty() && self.bytes.windows(marker.len()).any(|window| window == marker)
    }
}

/// Walks the records. The last one may be cut short; everything else must fit.
fn classify(bytes: &[u8]) -> Content {
    let (mut handshake, mut encrypted) = (0, 0);
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER>() {
        let [kind, major, minor, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if major != 3 || minor > 4 || length == 0 || length > MAX_RECORD {
            return Content::Plain;
        }
        match kind {
            // A stream that does not begin with a handshake (or an alert that refuses one) is not TLS.
            20 | 23 if handshake == 0 => return Content::Plain,
            22 => handshake += 1,
            23 => encrypted += 1,
            20 | 21 => {}
            _ => return Content::Plain,
        }
        rest = after.get(length..).unwrap_or_default();
    }
    if handshake == 0 && rest.len() == bytes.len() {
        return Content::Plain;
    }
    Content::Tls { handshake, encrypted }
}

/// Puts segments together, one stream for each direction of each connection.
pub(super) fn assemble(segments: &[Segment]) -> Vec<Stream> {
    let mut open: BTreeMap<(SocketAddr, SocketAddr), Vec<&Segment>> = BTreeMap::new();
    let mut streams = Vec::new();
    for segment in segments {
        let key = (segment.from, segment.to);
        let parts = open.entry(key).or_default();
        // A second opening with another number is a new connection between the same ports.
        let reopened = segment.opens
            && parts
                .iter()
                .any(|part| part.opens && part.sequence != segment.sequence);
        if reopened {
            streams.extend(join(parts));
            parts.clear();
        }
        parts.push(segment);
    }
    streams.extend(open.values().filter_map(|parts| join(parts)));
    streams
}

fn join(parts: &[&Segment]) -> Option<Stream> {
    let first = parts.first()?;
    let opening = parts.iter().find(|part| part.opens);
    let start = opening.unwrap_or(first).sequence;
    // Signed distance from the start: sequence numbers wrap.
    let offset = |part: &Segment| part.sequence.wrapping_sub(start).cast_signed();
    let mut ordered: Vec<&&Segment> = parts.iter().filter(|part| !part.payload.is_empty()).collect();
    ordered.sort_by_key(|part| offset(part));
    let mut bytes: Vec<u8> = Vec::new();
    let mut hole = false;
    for part in ordered {
        // What lies before the start, such as a keep-alive probe, is nothing new.
        let Ok(offset) = usize::try_from(offset(part)) else {
            continue;
        };
        if offset > bytes.len() {
            hole = true;
            break;
        }
        // Sent twice: only what is beyond the known bytes is new.
        bytes.extend(part.payload.get(bytes.len() - offset..).unwrap_or_default());
    }
    if bytes.is_empty() && !hole {
        return None;
    }
    Some(Stream {
        from: first.from,
        to: first.to,
        bytes,
        from_start: opening.is_some(),
        hole,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(sequence: u32, opens: bool, payload: &[u8]) -> Segment {
        Segment {
            from: "10.77.1.1:40000".parse().unwrap(),
            to: "10.77.1.2:8080".parse().unwrap(),
            sequence,
            opens,
            payload: payload.to_vec(),
        }
    }

    fn record(kind: u8, length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        let mut record = vec![kind, 3, 3, high, low];
        record.extend(vec![0xee; usize::from(length)]);
        record
    }

    #[test]
    fn segments_out_of_order_twice_and_around_the_wrap_make_one_stream() {
        let segments = [
            segment(u32::MAX - 1, true, b""),
            segment(1, false, b"lo wor"),
            segment(u32::MAX - 1, false, b"hel"),
            segment(1, false, b"lo wor"),
            segment(6, false, b"rld"),
        ];
        let streams = assemble(&segments);
        assert_eq!(streams.len(), 1);
        assert_eq!(streams[0].bytes, b"hello world"[..]);
        assert!(streams[0].from_start && !streams[0].hole);
        assert!(streams[0].contains(b"o w") && !streams[0].contains(b"ow"));
    }

    #[test]
    fn a_missing_segment_is_a_hole_and_not_a_join() {
        let streams = assemble(&[
            segment(0, true, b""),
            segment(0, false, b"se"),
            segment(4, false, b"t"),
        ]);
        assert!(streams[0].hole);
        assert_eq!(streams[0].bytes, b"se");
    }

    #[test]
    fn ports_used_again_make_two_streams() {
        let segments = [
            segment(10, true, b""),
            segment(10, false, b"one"),
            segment(900, true, b""),
            segment(900, false, b"two"),
        ];
        let bytes: Vec<Vec<u8>> = assemble(&segments)
            .into_iter()
            .map(|stream| stream.bytes)
            .collect();
        assert_eq!(bytes, [b"one".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn tls_is_told_from_text_by_every_record() {
        let tls = [record(22, 200), record(20, 1), record(23, 90), record(23, 3000)].concat();
        assert_eq!(
            classify(&tls),
            Content::Tls {
                handshake: 1,
                encrypted: 2
            }
        );
        assert_eq!(
            classify(&tls[..tls.len() - 10]),
            Content::Tls {
                handshake: 1,
                encrypted: 2
            }
        );
        let spoiled = [&tls[..], b"GET / HTTP/1.1"].concat();
        assert_eq!(classify(&spoiled), Content::Plain);
        assert_eq!(classify(b"GET / HTTP/1.1\r\n\r\n"), Content::Plain);
        assert_eq!(classify(b"hi"), Content::Plain);
        assert_eq!(
            classify(&record(23, 90)),
            Content::Plain,
            "data without a handshake"
        );
    }

    #[test]
    fn a_stream_seen_from_its_middle_is_not_judged() {
        let streams = assemble(&[segment(50, false, &record(23, 9))]);
        assert_eq!(streams[0].content(), Content::Unknown);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_classifier_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any_outcome = classify(&bytes);
        }

        #[test]
        fn any_cut_of_a_text_is_put_together_again(
            text in proptest::collection::vec(any::<u8>(), 1..200),
            start: u32,
            cuts in proptest::collection::vec(1usize..40, 1..40),
            turn in 0usize..40,
        ) {
            let mut segments = vec![segment(start, true, b"")];
            let mut at = 0;
            for cut in cuts.iter().cycle() {
                if at >= text.len() { break; }
                let end = (at + cut).min(text.len());
                segments.push(segment(start.wrapping_add(u32::try_from(at).unwrap()), false, &text[at..end]));
                at = end;
            }
            let turn = turn % segments.len();
            segments.rotate_left(turn);
            let streams = assemble(&segments);
            prop_assert_eq!(streams.len(), 1);
            prop_assert_eq!(&streams[0].bytes, &text);
            prop_assert!(!streams[0].hole);
        }
    }
}
