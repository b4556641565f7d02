//! How one endpoint of a cluster is picked.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use crate::invalid::{Invalid, Under, each, optional_ms, required, to_ms};
use crate::limits::{MAGLEV_SIZE_BELOW, MAX_RING_SIZE};
use crate::proto;
use proto::consistent_hash::{Key, Table};

/// How one endpoint is picked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Balancer {
    /// One after the other, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The less busy of two taken by chance.
    LeastRequest,
    /// The one of two taken by chance whose expected latency, times its load, is lower.
    PeakEwma,
    /// The one at which a key of the request stays.
    ConsistentHash(Box<ConsistentHash>),
}

/// Which key stays at its endpoint, and how endpoints are found by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsistentHash {
    /// What the key is.
    pub key: HashKey,
    /// What leads from a key to an endpoint.
    pub table: HashTable,
}

/// What the key of a request is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// The values of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(HashCookie),
    /// The client's address, without its port.
    SourceIp,
    /// The value of a query parameter.
    QueryParameter(String),
}

/// A cookie whose value is the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HashCookie {
    /// Its name, a token.
    pub name: String,
    /// Path of a cookie that is made.
    pub path: Option<String>,
    /// `Some`: a cookie is made where the request has none, and lives so long; with zero, as long as the client's session.
    pub ttl: Option<Duration>,
    /// Further attributes of a cookie that is made, with their values, which may be empty.
    pub attributes: Vec<(String, String)>,
}

/// What leads from a key to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashTable {
    /// A ring with at least so many points.
    Ring(NonZeroU32),
    /// A maglev table with so many slots, a prime.
    Maglev(NonZeroU32),
}

/// How an endpoint that appears among others is given its weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warmup {
    /// How long it takes.
    pub duration: Duration,
    /// What an endpoint starts with, 0 to 100.
    pub minimum_percent: f64,
    /// The part of the time that is over is taken to the power of one by this, 1 or more.
    pub aggression: f64,
}

impl Warmup {
    /// That of a cluster, if it is one for its balancer.
    pub(super) fn of(pb: proto::Warmup, balancer: &Balancer) -> Result<Self, Invalid> {
        match balancer {
            Balancer::RoundRobin | Balancer::LeastRequest => {}
            Balancer::Random | Balancer::PeakEwma | Balancer::ConsistentHash(_) => {
                return Err(Invalid::new("", "is for round robin and least request only"));
            }
        }
        let proto::Warmup {
            duration_ms,
            minimum_percent,
            aggression,
        } = pb;
        let duration =
            optional_ms(duration_ms).ok_or_else(|| Invalid::new("duration_ms", "must be at least 1"))?;
        if !(0.0..=100.0).contains(&minimum_percent) {
            return Err(Invalid::new(
                "minimum_percent",
                format!("{minimum_percent} is not a percentage: use 0 to 100"),
            ));
        }
        if !(1.0..=f64::MAX).contains(&aggression) {
            return Err(Invalid::new(
                "aggression",
                format!("{aggression} is not 1 or more: growth would be slower at first than later"),
            ));
        }
        Ok(Self {
            duration,
            minimum_percent,
            aggression,
        })
    }
}

impl From<Warmup> for proto::Warmup {
    fn from(
        Warmup {
            duration,
            minimum_percent,
            aggression,
        }: Warmup,
    ) -> Self {
        Self {
            duration_ms: to_ms(duration),
            minimum_percent,
            aggression,
        }
    }
}

/// Both fields of a cluster: the balancer, and what a consistent one needs.
pub(super) fn from(
    pb: proto::Balancer,
    consistent_hash: Option<proto::ConsistentHash>,
) -> Result<Balancer, Invalid> {
    if consistent_hash.is_some() && pb != proto::Balancer::ConsistentHash {
        return Err(Invalid::new(
            "consistent_hash",
            "stands beside another balancer: give one of them",
        ));
    }
    match pb {
        proto::Balancer::RoundRobin => Ok(Balancer::RoundRobin),
        proto::Balancer::Random => Ok(Balancer::Random),
        proto::Balancer::LeastRequest => Ok(Balancer::LeastRequest),
        proto::Balancer::PeakEwma => Ok(Balancer::PeakEwma),
        proto::Balancer::ConsistentHash => {
            let hash = ConsistentHash::try_from(required("consistent_hash", consistent_hash)?);
            hash.under("consistent_hash")
                .map(|hash| Balancer::ConsistentHash(Box::new(hash)))
        }
        proto::Balancer::Unspecified => Err(Invalid::new("balancer", "is not one this build knows")),
    }
}

/// Both fields of a cluster.
pub(super) fn to(balancer: Balancer) -> (proto::Balancer, Option<proto::ConsistentHash>) {
    match balancer {
        Balancer::RoundRobin => (proto::Balancer::RoundRobin, None),
        Balancer::Random => (proto::Balancer::Random, None),
        Balancer::LeastRequest => (proto::Balancer::LeastRequest, None),
        Balancer::PeakEwma => (proto::Balancer::PeakEwma, None),
        Balancer::ConsistentHash(hash) => (proto::Balancer::ConsistentHash, Some((*hash).into())),
    }
}

impl TryFrom<proto::ConsistentHash> for ConsistentHash {
    type Error = Invalid;

    fn try_from(pb: proto::ConsistentHash) -> Result<Self, Invalid> {
        let proto::ConsistentHash { key, table } = pb;
        let key = match required("key", key)? {
            Key::Header(name) => HashKey::Header(header_name(&name)?),
            Key::Cookie(cookie) => HashKey::Cookie(HashCookie::try_from(cookie).under("cookie")?),
            Key::SourceIp(true) => HashKey::SourceIp,
            Key::SourceIp(false) => {
                return Err(Invalid::new("source_ip", "is false: there would be no key"));
            }
            Key::QueryParameter(name) if name.is_empty() => {
                return Err(Invalid::new("query_parameter", "is empty"));
            }
            Key::QueryParameter(name) => HashKey::QueryParameter(name),
        };
        let table = match required("table", table)? {
            Table::RingSize(size) => match NonZeroU32::new(size) {
                Some(least) if size <= MAX_RING_SIZE => HashTable::Ring(least),
                _ => {
                    return Err(Invalid::new(
                        "ring_size",
                        format!("{size} is not a size of a ring: use 1 to {MAX_RING_SIZE}"),
                    ));
                }
            },
            Table::MaglevSize(size) => match NonZeroU32::new(size) {
                Some(prime) if size < MAGLEV_SIZE_BELOW && is_prime(size) => HashTable::Maglev(prime),
                _ => {
                    return Err(Invalid::new(
                        "maglev_size",
                        format!("{size} is not a size of a table: use a prime below {MAGLEV_SIZE_BELOW}"),
                    ));
                }
            },
        };
        Ok(Self { key, table })
    }
}

impl TryFrom<proto::HashCookie> for HashCookie {
    type Error = Invalid;

    fn try_from(pb: proto::HashCookie) -> Result<Self, Invalid> {
        let proto::HashCookie {
            name,
            path,
            ttl_ms,
            attributes,
        } = pb;
        // It becomes a line of `Set-Cookie`: nothing in it may end the attribute or the line.
        if !is_token(&name) {
            return Err(Invalid::new(
                "name",
                format!("`{name}` is not a cookie's name: use a token"),
            ));
        }
        if !is_value(&path) {
            return Err(Invalid::new(
                "path",
                format!("`{path}` has a `;` or what is not printable"),
            ));
        }
        Ok(Self {
            name,
            path: Some(path).filter(|path| !path.is_empty()),
            ttl: ttl_ms.map(Duration::from_millis),
            attributes: each::<_, Attribute>("attributes", attributes)?
                .into_iter()
                .map(|Attribute(name, value)| (name, value))
                .collect(),
        })
    }
}

/// Name and value.
struct Attribute(String, String);

impl TryFrom<proto::CookieAttribute> for Attribute {
    type Error = Invalid;

    fn try_from(pb: proto::CookieAttribute) -> Result<Self, Invalid> {
        let proto::CookieAttribute { name, value } = pb;
        if !is_token(&name) {
            return Err(Invalid::new(
                "name",
                format!("`{name}` is not an attribute's name: use a token"),
            ));
        }
        if !is_value(&value) {
            return Err(Invalid::new(
                "value",
                format!("`{value}` has a `;` or what is not printable"),
            ));
        }
        Ok(Self(name, value))
    }
}

impl From<ConsistentHash> for proto::ConsistentHash {
    fn from(ConsistentHash { key, table }: ConsistentHash) -> Self {
        Self {
            key: Some(match key {
                HashKey::Header(name) => Key::Header(name.as_str().to_owned()),
                HashKey::Cookie(cookie) => Key::Cookie(cookie.into()),
                HashKey::SourceIp => Key::SourceIp(true),
                HashKey::QueryParameter(name) => Key::QueryParameter(name),
            }),
            table: Some(match table {
                HashTable::Ring(least) => Table::RingSize(least.get()),
                HashTable::Maglev(size) => Table::MaglevSize(size.get()),
            }),
        }
    }
}

impl From<HashCookie> for proto::HashCookie {
    fn from(cookie: HashCookie) -> Self {
        let HashCookie {
            name,
            path,
            ttl,
            attributes,
        } = cookie;
        Self {
            name,
            path: path.unwrap_or_default(),
            ttl_ms: ttl.map(to_ms),
            attributes: attributes
                .into_iter()
                .map(|(name, value)| proto::CookieAttribute { name, value })
                .collect(),
        }
    }
}

fn header_name(name: &str) -> Result<HeaderName, Invalid> {
    HeaderName::try_from(name)
        .map_err(|_| Invalid::new("header", format!("`{name}` is not the name of a header")))
}

/// `token` of RFC 9110.
fn is_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

/// What may stand behind an attribute's `=` (RFC 6265, 4.1.1).
fn is_value(text: &str) -> bool {
    text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b';')
}

/// By division: asked of numbers below [`MAGLEV_SIZE_BELOW`], when configuration arrives.
fn is_prime(n: u32) -> bool {
    n >= 2
        && (2..)
            .take_while(|d| d * d <= n)
            .all(|divisor| !n.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(key: Key, table: Table) -> Option<String> {
        let pb = proto::ConsistentHash {
            key: Some(key),
            table: Some(table),
        };
        ConsistentHash::try_from(pb).err().map(|e| e.field)
    }

    #[test]
    fn what_no_table_can_be_made_of_is_named() {
        let header = || Key::Header("x-user".to_owned());
        for (table, field) in [
            (Table::RingSize(0), Some("ring_size")),
            (Table::RingSize(MAX_RING_SIZE), None),
            (Table::RingSize(MAX_RING_SIZE + 1), Some("ring_size")),
            (Table::MaglevSize(0), Some("maglev_size")),
            (Table::MaglevSize(1), Some("maglev_size")),
            (Table::MaglevSize(2), None),
            (Table::MaglevSize(65_536), Some("maglev_size")),
            (Table::MaglevSize(65_537), None),
            (Table::MaglevSize(4_999_999), None),
            (Table::MaglevSize(5_000_011), Some("maglev_size")),
        ] {
            assert_eq!(problem(header(), table).as_deref(), field, "{table:?}");
        }
    }

    #[test]
    fn what_is_no_key_or_would_break_a_line_is_named() {
        let cookie = |name: &str, path: &str, attribute: (&str, &str)| {
            Key::Cookie(proto::HashCookie {
                name: name.to_owned(),
                path: path.to_owned(),
                ttl_ms: None,
                attributes: vec![proto::CookieAttribute {
                    name: attribute.0.to_owned(),
                    value: attribute.1.to_owned(),
                }],
            })
        };
        for (key, field) in [
            (Key::Header("x user".to_owned()), Some("header")),
            (Key::SourceIp(false), Some("source_ip")),
            (Key::QueryParameter(String::new()), Some("query_parameter")),
            (cookie("a", "/", ("SameSite", "Lax")), None),
            (cookie("a=b", "/", ("SameSite", "Lax")), Some("cookie.name")),
            (cookie("a", "/;x", ("SameSite", "Lax")), Some("cookie.path")),
            (cookie("a", "/", ("", "Lax")), Some("cookie.attributes[0].name")),
            (
                cookie("a", "/", ("A", "b\r\nc")),
                Some("cookie.attributes[0].value"),
            ),
        ] {
            assert_eq!(
                problem(key.clone(), Table::RingSize(1)).as_deref(),
                field,
                "{key:?}"
            );
        }
    }
}
