//! Lists of ports and networks that interception leaves alone, as written in flags and pod annotations.
//!
//! Called by clap while it parses `hauberk-proxy init`, and by injection, which checks a pod's annotations with it, so
//! that no list is accepted there and refused when the pod starts. Lists are sorted and merged here, because nft refuses a set whose intervals overlap. Nothing here looks
//! at the machine.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
};

use ipnet::IpNet;

/// Ports in ascending, non-overlapping ranges. Written as `22,8000-8010`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

/// Networks of both families, none inside another. Written as `10.0.0.0/8,192.0.2.7,fd00::/8`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// Why a list of ports or networks was not accepted. Names the entry and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipListError {
    /// Not a number from 1 to 65535 and not a range of two.
    #[error("`{0}` is not a port: write a number from 1 to 65535, or a range such as 8000-8010")]
    Port(String),
    /// A range whose end is below its start.
    #[error("the range `{0}` ends before it starts: write the smaller port first")]
    Backwards(String),
    /// Neither an address nor a network.
    #[error("`{0}` is not a network: write for example 10.0.0.0/8, 192.0.2.7 or fd00::/8")]
    Network(String),
    /// A network with bits set behind its prefix, where one cannot tell which of the two was meant.
    #[error(
        "`{given}` has bits set behind its prefix: write {network} for the network or {host} for the one address"
    )]
    HostBits {
        /// The entry as written.
        given: String,
        /// The same entry with the bits cleared.
        network: IpNet,
        /// The address alone.
        host: IpAddr,
    },
}

impl Ports {
    /// The ranges, ascending, with at least one port between any two of them.
    #[must_use]
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }

    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `port` is listed.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    fn merged(mut ranges: Vec<RangeInclusive<u16>>) -> Self {
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl FromIterator<u16> for Ports {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        Self::merged(ports.into_iter().map(|port| port..=port).collect())
    }
}

impl FromStr for Ports {
    type Err = SkipListError;

    fn from_str(list: &str) -> Result<Self, SkipListError> {
        entries(list)
            .map(port_range)
            .collect::<Result<_, _>>()
            .map(Self::merged)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (start, end) if start == end => write!(f, "{comma}{start}")?,
                (start, end) => write!(f, "{comma}{start}-{end}")?,
            }
        }
        Ok(())
    }
}

impl Networks {
    /// The networks of both families.
    #[must_use]
    pub fn as_slice(&self) -> &[IpNet] {
        &self.0
    }

    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the networks contains the address.
    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.ip()))
    }
}

impl FromStr for Networks {
    type Err = SkipListError;

    fn from_str(list: &str) -> Result<Self, SkipListError> {
        let networks: Vec<IpNet> = entries(list).map(network).collect::<Result<_, _>>()?;
        Ok(Self(IpNet::aggregate(&networks)))
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            write!(f, "{}{network}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Empty entries are let through: annotations are often put together by templates which leave a comma behind.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn port_range(entry: &str) -> Result<RangeInclusive<u16>, SkipListError> {
    let (start, end) = entry.split_once('-').unwrap_or((entry, entry));
    let port = |text: &str| match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(SkipListError::Port(entry.to_owned())),
    };
    let (start, end) = (port(start)?, port(end)?);
    if end < start {
        return Err(SkipListError::Backwards(entry.to_owned()));
    }
    Ok(start..=end)
}

fn network(entry: &str) -> Result<IpNet, SkipListError> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet = entry
        .parse()
        .map_err(|_| SkipListError::Network(entry.to_owned()))?;
    if network != network.trunc() {
        return Err(SkipListError::HostBits {
            given: entry.to_owned(),
            network: network.trunc(),
            host: network.addr(),
        });
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ports_are_sorted_and_merged() {
        for (given, expected) in [
            ("", ""),
            (" , ", ""),
            ("22", "22"),
            ("8000-8010, 22", "22,8000-8010"),
            ("80-90,85-99,100", "80-100"),
            ("65535,1-65534", "1-65535"),
            ("5,5,5", "5"),
        ] {
            assert_eq!(given.parse::<Ports>().unwrap().to_string(), expected, "{given}");
        }
    }

    #[test]
    fn a_bad_port_is_named_with_the_remedy() {
        for bad in ["0", "65536", "http", "1-2-3", "-1", "22-", "80 90"] {
            let error = bad.parse::<Ports>().unwrap_err();
            assert_eq!(error, SkipListError::Port(bad.to_owned()));
            assert!(error.to_string().contains("1 to 65535"), "{error}");
        }
        assert_eq!(
            "90-80".parse::<Ports>(),
            Err(SkipListError::Backwards("90-80".to_owned()))
        );
    }

    #[test]
    fn networks_inside_another_are_swallowed() {
        for (given, expected) in [
            ("", ""),
            ("10.0.0.0/8,10.1.0.0/16", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("fd00::/8, 192.0.2.0/25,192.0.2.128/25", "192.0.2.0/24,fd00::/8"),
            ("0.0.0.0/0,::/0,::1", "0.0.0.0/0,::/0"),
        ] {
            assert_eq!(
                given.parse::<Networks>().unwrap().to_string(),
                expected,
                "{given}"
            );
        }
    }

    #[test]
    fn a_bad_network_is_named_with_the_remedy() {
        for bad in ["10.0.0.0/33", "example.org", "10.0.0", "fd00::/129"] {
            assert_eq!(
                bad.parse::<Networks>(),
                Err(SkipListError::Network(bad.to_owned()))
            );
        }
        let error = "10.1.2.3/8".parse::<Networks>().unwrap_err().to_string();
        assert!(
            error.contains("10.0.0.0/8") && error.contains("10.1.2.3 "),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn merging_keeps_exactly_the_ports_that_were_listed(
            ranges in proptest::collection::vec((1u16..200, 0u16..20), 0..12),
            port in 1u16..230,
        ) {
            let list = ranges.iter().map(|(start, more)| format!("{start}-{}", start + more)).collect::<Vec<_>>();
            let listed = ranges.iter().any(|(start, more)| (*start..=start + more).contains(&port));
            let ports: Ports = list.join(",").parse().unwrap();
            prop_assert_eq!(ports.contains(port), listed);
            for pair in ports.ranges().windows(2) {
                prop_assert!(pair[0].end() + 1 < *pair[1].start());
            }
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,64}") {
            let _ = text.parse::<Ports>();
            let _ = text.parse::<Networks>();
        }
    }
}
