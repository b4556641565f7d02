//! Takes an Ethernet frame apart down to a TCP payload. Bytes from the wire: nothing here may panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const SYN: u8 = 0x02;

/// A TCP segment that opens a stream or carries a payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Segment {
    /// The sender.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// The sequence number of the first payload byte.
    pub sequence: u32,
    /// Whether it opens its stream.
    pub opens: bool,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The TCP segment in an Ethernet frame, unless it is something else, cut short, or carries nothing.
pub(super) fn parse(frame: &[u8]) -> Option<Segment> {
    let (_, rest) = frame.split_at_checked(12)?;
    let (kind, packet) = rest.split_first_chunk::<2>()?;
    let (source, target, tcp) = match u16::from_be_bytes(*kind) {
        IPV4 => ipv4(packet)?,
        IPV6 => ipv6(packet)?,
        _ => return None,
    };
    segment(source, target, tcp)
}

fn ipv4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    if header < 20 || *packet.get(9)? != TCP {
        return None;
    }
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let target: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    // Length 0 stands for "whatever the frame holds" where offload built a packet too long for the field; otherwise
    // it cuts off Ethernet padding.
    let end = if total == 0 {
        packet.len()
    } else {
        total.min(packet.len())
    };
    Some((
        Ipv4Addr::from(source).into(),
        Ipv4Addr::from(target).into(),
        packet.get(header..end)?,
    ))
}

/// Only packets without extension headers: the lab's own never have any.
fn ipv6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    if *packet.get(6)? != TCP {
        return None;
    }
    let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    let target: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    let end = if length == 0 {
        packet.len()
    } else {
        (40 + length).min(packet.len())
    };
    Some((
        Ipv6Addr::from(source).into(),
        Ipv6Addr::from(target).into(),
        packet.get(40..end)?,
    ))
}

fn segment(source: IpAddr, target: IpAddr, tcp: &[u8]) -> Option<Segment> {
    let from = SocketAddr::new(source, u16::from_be_bytes([*tcp.first()?, *tcp.get(1)?]));
    let to = SocketAddr::new(target, u16::from_be_bytes([*tcp.get(2)?, *tcp.get(3)?]));
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    if header < 20 {
        return None;
    }
    let opens = tcp.get(13)? & SYN != 0;
    let payload = tcp.get(header..)?.to_vec();
    if payload.is_empty() && !opens {
        return None;
    }
    // The opening itself takes one number.
    let sequence = sequence.wrapping_add(u32::from(opens));
    Some(Segment {
        from,
        to,
        sequence,
        opens,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame_v4(flags: u8, payload: &[u8], padding: usize) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend(u16::try_from(40 + payload.len()).unwrap().to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, TCP, 0, 0, 10, 77, 1, 1, 10, 77, 1, 2]);
        frame.extend([
            0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0,
        ]);
        frame.extend(payload);
        frame.extend(vec![0; padding]);
        frame
    }

    #[test]
    fn a_segment_is_found_and_padding_is_not_taken_for_payload() {
        let segment = parse(&frame_v4(0x18, b"hi", 6)).unwrap();
        assert_eq!(segment.from, "10.77.1.1:40000".parse().unwrap());
        assert_eq!(segment.to, "10.77.1.2:8080".parse().unwrap());
        assert_eq!((segment.sequence, segment.opens), (7, false));
        assert_eq!(segment.payload, b"hi");
    }

    #[test]
    fn bare_acknowledgements_are_left_out_and_openings_are_kept() {
        assert_eq!(parse(&frame_v4(0x10, b"", 6)), None);
        let opening = parse(&frame_v4(SYN, b"", 0)).unwrap();
        assert_eq!((opening.sequence, opening.opens), (8, true));
    }

    #[test]
    fn an_ipv6_segment_is_found() {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 22, TCP, 64]);
        frame.extend("fd77::1:1".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend("fd77::1:2".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend([
            0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0, b'h', b'i',
        ]);
        let segment = parse(&frame).unwrap();
        assert_eq!(segment.to, "[fd77::1:2]:8080".parse().unwrap());
        assert_eq!(segment.payload, b"hi");
    }

    proptest! {
        #[test]
        fn no_frame_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _any_outcome = parse(&bytes);
        }

        #[test]
        fn no_damage_to_a_good_frame_makes_the_parser_panic(at in 0usize..60, value: u8, cut in 0usize..60) {
            let mut frame = frame_v4(0x18, b"payload", 0);
            let last = frame.len() - 1;
            frame[at.min(last)] = value;
            frame.truncate(cut);
            let _any_outcome = parse(&frame);
        }
    }
}
