//! The PROXY header, by which a connection tells its server who really calls: the client's address and the one that it
//! dialled. `connect` writes it before everything else; it is never read here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use api::ProxyProtocol;

/// The first bytes of the binary form.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, on behalf of somebody.
const PROXIED: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// What a PROXY header says. Connections that say different things are never taken for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Announcement {
    /// How it is written.
    pub version: ProxyProtocol,
    /// Who calls.
    pub client: SocketAddr,
    /// Whom it dialled.
    pub dialled: SocketAddr,
}

impl Announcement {
    /// The header.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let Self {
            version,
            client,
            dialled,
        } = self;
        let ips = (client.ip().to_canonical(), dialled.ip().to_canonical());
        // A header is of one family: with two, the older is written as the newer carries it.
        let ips = match ips {
            (IpAddr::V4(from), IpAddr::V6(to)) => (IpAddr::V6(from.to_ipv6_mapped()), IpAddr::V6(to)),
            (IpAddr::V6(from), IpAddr::V4(to)) => (IpAddr::V6(from), IpAddr::V6(to.to_ipv6_mapped())),
            same => same,
        };
        let ports = (client.port(), dialled.port());
        match version {
            ProxyProtocol::V1 => text(ips, ports),
            ProxyProtocol::V2 => binary(ips, ports),
        }
    }
}

fn text((from, to): (IpAddr, IpAddr), (from_port, to_port): (u16, u16)) -> Vec<u8> {
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let written = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => in_groups(ip),
    };
    let (from, to) = (written(from), written(to));
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

/// In groups all the way: the form that carries an address of IPv4 in dots is not in the header's grammar.
fn in_groups(ip: Ipv6Addr) -> String {
    match ip.to_ipv4_mapped() {
        Some(_) => {
            let [.., high, low] = ip.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        None => ip.to_string(),
    }
}

fn binary((from, to): (IpAddr, IpAddr), (from_port, to_port): (u16, u16)) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(36);
    for ip in [from, to] {
        match ip {
            IpAddr::V4(ip) => addresses.extend(ip.octets()),
            IpAddr::V6(ip) => addresses.extend(ip.octets()),
        }
    }
    addresses.extend(from_port.to_be_bytes());
    addresses.extend(to_port.to_be_bytes());
    let (family, length) = match from {
        IpAddr::V4(_) => (TCP_OVER_IPV4, 12_u16),
        IpAddr::V6(_) => (TCP_OVER_IPV6, 36),
    };
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXIED, family]);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(version: ProxyProtocol, client: &str, dialled: &str) -> Vec<u8> {
        let announcement = Announcement {
            version,
            client: client.parse().unwrap(),
            dialled: dialled.parse().unwrap(),
        };
        announcement.bytes()
    }

    #[test]
    fn the_text_form_is_as_the_specification_shows_it() {
        for (client, dialled, line) in [
            (
                "192.168.0.1:56324",
                "192.168.0.11:443",
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            ),
            (
                "[2001:db8::1]:1",
                "[2001:db8::2]:65535",
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
            ),
            (
                "[::ffff:10.0.0.9]:7",
                "10.96.0.1:80",
                "PROXY TCP4 10.0.0.9 10.96.0.1 7 80\r\n",
            ),
            (
                "10.0.0.9:7",
                "[2001:db8::2]:80",
                "PROXY TCP6 ::ffff:a00:9 2001:db8::2 7 80\r\n",
            ),
        ] {
            let written = header(ProxyProtocol::V1, client, dialled);
            assert_eq!(String::from_utf8(written).unwrap(), line);
        }
    }

    #[test]
    fn the_binary_form_is_as_the_specification_has_it() {
        let mut expected = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11\x00\x0C".to_vec();
        expected.extend([10, 0, 0, 9, 10, 96, 0, 1, 0xA0, 0x28, 0, 80]);
        assert_eq!(
            header(ProxyProtocol::V2, "10.0.0.9:41000", "10.96.0.1:80"),
            expected
        );
        let six = header(ProxyProtocol::V2, "[2001:db8::1]:1", "[2001:db8::2]:2");
        assert_eq!((six.len(), &six[12..16]), (52, &[0x21, 0x21, 0, 36][..]));
    }

    proptest! {
        /// A server that reads it finds what was said.
        #[test]
        fn what_is_said_is_found(client: SocketAddr, dialled: SocketAddr) {
            let told = |version| Announcement { version, client, dialled }.bytes();
            let line = String::from_utf8(told(ProxyProtocol::V1)).unwrap();
            prop_assert!(line.len() <= 107 && line.ends_with("\r\n"));
            let words: Vec<_> = line.trim_end().split(' ').collect();
            let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port());
            let ip = |n: usize| words[n].parse::<IpAddr>().unwrap().to_canonical();
            prop_assert_eq!((ip(2), words[4].parse().unwrap()), canonical(client));
            prop_assert_eq!((ip(3), words[5].parse().unwrap()), canonical(dialled));

            let bytes = told(ProxyProtocol::V2);
            let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
            prop_assert_eq!(bytes.len(), 16 + length);
            let size = (length - 4) / 2;
            let ip = |at: usize| match <[u8; 4]>::try_from(&bytes[at..at + size]) {
                Ok(octets) => IpAddr::from(octets),
                Err(_) => IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + size]).unwrap()).to_canonical(),
            };
            let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let end = 16 + 2 * size;
            prop_assert_eq!((ip(16), port(end)), canonical(client));
            prop_assert_eq!((ip(16 + size), port(end + 2)), canonical(dialled));
        }
    }
}
