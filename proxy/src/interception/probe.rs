//! Proves the outbound redirect by using it: dials an address where nobody answers and looks who accepts.
//!
//! Called by [`super`] right after the rules were written. The connection must arrive at the proxy's own port, and
//! the kernel must name the dialled address as its original destination: this is exactly what the proxy relies on
//! later. Nothing leaves the machine when the redirect works. The inbound redirect cannot be used from inside the
//! namespace, since what a pod sends to itself goes over loopback; its rules are read back instead.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    InterceptionError,
    plan::{Action, Plan},
};

/// Long for a connection inside one kernel; it is spent in full only when the redirect does not work.
const LIMIT: Duration = Duration::from_secs(3);

/// Tried in this order, because a port may be on the list of those to leave alone.
const PORTS: [u16; 4] = [9, 80, 49_151, 7];

/// How sure we are that the redirect of one family works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// A connection to this address arrived at the proxy's port with its destination preserved.
    ByDialling(SocketAddr),
    /// Rules were read back, but could not be used, for the reason given.
    ByListing(String),
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByDialling(address) => write!(f, "verified by dialling {address}"),
            Self::ByListing(reason) => write!(f, "verified by reading the rules back only: {reason}"),
        }
    }
}

/// Probes one family as the user this process runs as.
pub(crate) fn outbound(plan: &Plan, v6: bool, uid: u32) -> Result<Verified, InterceptionError> {
    let redirected = |target: &SocketAddr| plan.outbound_of(uid, *target).0 != Action::Leave;
    let Some(target) = targets(v6).into_iter().filter(redirected).find(leaves_the_pod) else {
        return Ok(Verified::ByListing(
            "no address which is redirected has a route out of this namespace".to_owned(),
        ));
    };
    let listener = match listen(v6, plan.outbound_port) {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            return Ok(Verified::ByListing(format!(
                "port {} is in use, presumably by a proxy that already runs",
                plan.outbound_port
            )));
        }
        Err(error) => {
            return Err(InterceptionError::ProbeListen {
                port: plan.outbound_port,
                error,
            });
        }
    };
    let seen = dial_and_accept(&listener, target, v6);
    match seen {
        Ok(original) if original == target => Ok(Verified::ByDialling(target)),
        Ok(original) => Err(InterceptionError::NotRedirected {
            target,
            seen: format!("it arrived, but the kernel names {original} as its original destination"),
        }),
        Err(seen) => Err(InterceptionError::NotRedirected { target, seen }),
    }
}

/// The original destination of the connection, or in words what happened instead.
fn dial_and_accept(listener: &Socket, target: SocketAddr, v6: bool) -> Result<SocketAddr, String> {
    let dialler = Socket::new(domain(v6), Type::STREAM, Some(Protocol::TCP)).map_err(|e| e.to_string())?;
    // Ends by a reset: a connection in TIME-WAIT could keep the proxy from listening on this port.
    dialler
        .set_linger(Some(Duration::ZERO))
        .map_err(|e| e.to_string())?;
    dialler
        .connect_timeout(&SockAddr::from(target), LIMIT)
        .map_err(|error| format!("the connection was not established: {error}"))?;
    let dialled_from = dialler
        .local_addr()
        .map_err(|error| error.to_string())?
        .as_socket();
    // Somebody else may dial this port meanwhile; ours is the one with the dialler's address as its peer.
    for _ in 0..64 {
        let (accepted, peer) = listener.accept().map_err(|error| {
            format!("something answered, but the connection did not arrive at the proxy's port: {error}")
        })?;
        if peer.as_socket() != dialled_from {
            continue;
        }
        let original = if v6 {
            accepted.original_dst_v6()
        } else {
            accepted.original_dst_v4()
        };
        let original =
            original.map_err(|error| format!("it arrived without an original destination: {error}"))?;
        return original
            .as_socket()
            .ok_or_else(|| "its original destination is not an address".to_owned());
    }
    Err("the proxy's port was flooded by other connections".to_owned())
}

fn listen(v6: bool, port: u16) -> io::Result<Socket> {
    let listener = Socket::new(domain(v6), Type::STREAM, Some(Protocol::TCP))?;
    listener.set_reuse_address(true)?;
    if v6 {
        listener.set_only_v6(true)?;
    }
    let any: IpAddr = if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    listener.bind(&SockAddr::from(SocketAddr::new(any, port)))?;
    listener.listen(64)?;
    // Bounds `accept` as well.
    listener.set_read_timeout(Some(LIMIT))?;
    Ok(listener)
}

fn domain(v6: bool) -> Domain {
    if v6 { Domain::IPV6 } else { Domain::IPV4 }
}

/// Whether the kernel has a route to the address that does not stay on loopback. Connecting a UDP socket asks for
/// the route and sends nothing.
fn leaves_the_pod(target: &SocketAddr) -> bool {
    let any: IpAddr = if target.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(target)?;
        socket.local_addr()
    });
    match source.map(|source| source.ip()) {
        Ok(IpAddr::V4(source)) => !source.is_loopback(),
        // With nothing but a link-local address there is no IPv6 to intercept, even where a route is announced.
        Ok(IpAddr::V6(source)) => !source.is_loopback() && !source.is_unicast_link_local(),
        Err(_) => false,
    }
}

/// Addresses to dial, best first: those reserved for documentation, then one in each network at our interfaces, for
/// pods without a default route.
fn targets(v6: bool) -> Vec<SocketAddr> {
    let mut addresses: Vec<IpAddr> = if v6 {
        vec![Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()]
    } else {
        [[192, 0, 2, 1], [198, 51, 100, 1], [203, 0, 113, 1]]
            .map(IpAddr::from)
            .into()
    };
    let (path, parse): (&str, fn(&str) -> Option<IpAddr>) = if v6 {
        ("/proc/net/ipv6_route", v6_neighbour)
    } else {
        ("/proc/net/route", v4_neighbour)
    };
    // Without the file there is no such family, and the documentation addresses have no route either.
    let table = fs::read_to_string(Path::new(path)).unwrap_or_default();
    addresses.extend(table.lines().filter_map(parse));
    PORTS
        .into_iter()
        .flat_map(|port| addresses.iter().map(move |ip| SocketAddr::new(*ip, port)))
        .collect()
}

/// An address inside the network of a line of `/proc/net/route`, whose numbers stand in host byte order.
fn v4_neighbour(line: &str) -> Option<IpAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| {
        let bytes = u32::from_str_radix(fields.get(index)?, 16).ok()?.to_ne_bytes();
        Some(u32::from_be_bytes(bytes))
    };
    let (interface, network, mask) = (fields.first()?, number(1)?, number(7)?);
    // The last but one address is the least likely to be ours or the gateway's.
    let hosts = !mask;
    (*interface != "lo" && mask != 0 && hosts >= 2).then(|| IpAddr::V4(Ipv4Addr::from(network | (hosts - 1))))
}

/// An address inside the network of a line of `/proc/net/ipv6_route`.
fn v6_neighbour(line: &str) -> Option<IpAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let network = u128::from_str_radix(fields.first()?, 16).ok()?;
    let prefix = u32::from_str_radix(fields.get(1)?, 16).ok()?;
    let global = prefix >= 8 && network >> 120 != 0xff && network >> 118 != 0xfe80 >> 6;
    let hosts = u128::MAX.checked_shr(prefix)?;
    (fields.last() != Some(&"lo") && global && hosts >= 2)
        .then(|| IpAddr::V6(Ipv6Addr::from(network | (hosts - 1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_found_in_every_network_at_an_interface_and_in_no_other() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100630A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000630A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0100630A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
";
        let found: Vec<IpAddr> = table.lines().filter_map(v4_neighbour).collect();
        // The file is in host byte order, so on a big-endian machine this text would mean something else.
        if cfg!(target_endian = "little") {
            assert_eq!(found, ["10.99.0.254".parse::<IpAddr>().unwrap()]);
        }
    }

    #[test]
    fn a_v6_neighbour_is_neither_link_local_nor_multicast() {
        let rest = "00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001";
        let table = format!(
            "fd990000000000000000000000000000 40 {rest} eth0
fe800000000000000000000000000000 40 {rest} eth0
00000000000000000000000000000000 00 {rest} eth0
00000000000000000000000000000001 80 {rest} lo
fd990000000000000000000000000002 80 {rest} eth0
ff000000000000000000000000000000 08 {rest} eth0
"
        );
        let found: Vec<IpAddr> = table.lines().filter_map(v6_neighbour).collect();
        assert_eq!(found, ["fd99::ffff:ffff:ffff:fffe".parse::<IpAddr>().unwrap()]);
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_the_parsers_panic(line in "([0-9a-f]{0,33}[ \t]){0,11}.{0,8}") {
            let _ = v4_neighbour(&line);
            let _ = v6_neighbour(&line);
        }
    }
}
