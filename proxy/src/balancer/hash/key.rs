//! What a consistent balancer goes by: the key of a request, or of a connection, as a hash. Without one, chance decides.

use std::fmt::Write as _;
use std::net::IpAddr;

use api::{Balancer, ConsistentHash, HashCookie, HashKey, stable_hash};
use http::header::{COOKIE, HOST, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request};
use rand::{Rng, RngExt};

use crate::config::snapshot::Cluster;
use crate::message;

/// The key of a request, with the cookie that was made for it.
#[derive(Debug, Default)]
pub struct Key {
    /// Its hash; `None` where the cluster asks for none, or the request has none.
    pub hash: Option<u64>,
    /// For the response: boxed, for it is rare.
    cookie: Option<Box<HeaderValue>>,
}

impl Key {
    /// That of a request as it will be sent.
    #[inline]
    pub fn of<B>(cluster: &Cluster, request: &Request<B>, client: IpAddr, rng: &mut impl Rng) -> Self {
        match &cluster.spec.balancer {
            Balancer::ConsistentHash(settings) => Self::within(settings, request, client, rng),
            Balancer::RoundRobin | Balancer::Random | Balancer::LeastRequest | Balancer::PeakEwma => {
                Self::default()
            }
        }
    }

    /// The hash for a connection without visible requests: that of the client's address, where the key is that.
    #[must_use]
    pub fn of_connection(cluster: &Cluster, client: IpAddr) -> Option<u64> {
        match &cluster.spec.balancer {
            Balancer::ConsistentHash(settings) if settings.key == HashKey::SourceIp => {
                Some(address_hash(client))
            }
            _ => None,
        }
    }

    fn within<B>(
        settings: &ConsistentHash,
        request: &Request<B>,
        client: IpAddr,
        rng: &mut impl Rng,
    ) -> Self {
        let only = |hash| Self { hash, cookie: None };
        match &settings.key {
            HashKey::Header(name) => only(match header_hash(request.headers(), name) {
                // HTTP/2 says it in another place.
                None if *name == HOST => {
                    message::authority(request).map(|authority| stable_hash(0, authority.as_bytes()))
                }
                hash => hash,
            }),
            HashKey::SourceIp => only(Some(address_hash(client))),
            HashKey::QueryParameter(name) => {
                let value = request.uri().query().and_then(|query| parameter(query, name));
                only(value.map(|value| stable_hash(0, value.as_bytes())))
            }
            HashKey::Cookie(cookie) => match (value_of(request.headers(), &cookie.name), cookie.ttl) {
                (Some(value), _) => only(Some(stable_hash(0, value))),
                (None, None) => only(None),
                // By chance rather than from addresses: behind one client there may be many users.
                (None, Some(_)) => {
                    let value = format!("{:016x}", rng.random::<u64>());
                    Self {
                        hash: Some(stable_hash(0, value.as_bytes())),
                        cookie: HeaderValue::try_from(line(cookie, &value)).ok().map(Box::new),
                    }
                }
            },
        }
    }

    /// Its hash, where the request brought the key and none was made for it.
    #[must_use]
    pub fn brought(&self) -> Option<u64> {
        self.hash.filter(|_| self.cookie.is_none())
    }

    /// Tells the client of the cookie that was made for it.
    #[inline]
    pub fn tell(self, response: &mut HeaderMap) {
        if let Some(cookie) = self.cookie {
            response.append(SET_COOKIE, *cookie);
        }
    }
}

/// Of the values together, in whatever order they come.
fn header_hash(headers: &HeaderMap, name: &http::HeaderName) -> Option<u64> {
    let values = headers.get_all(name).iter();
    values
        .map(|value| stable_hash(0, value.as_bytes()))
        .reduce(u64::wrapping_add)
}

/// An IPv4 address that IPv6 carries is itself.
fn address_hash(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(ip) => stable_hash(0, &ip.octets()),
        IpAddr::V6(ip) => stable_hash(0, &ip.octets()),
    }
}

/// The first of that name, as written.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// The first of that name, without quotes; one that is empty is none.
fn value_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(COOKIE).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|b| *b == b';'))
        .find_map(|pair| {
            let value = pair
                .trim_ascii()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")?;
            let quoted = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
            Some(quoted.unwrap_or(value)).filter(|value| !value.is_empty())
        })
}

/// The value of `Set-Cookie`. No script needs the cookie, so that none gets it.
fn line(cookie: &HashCookie, value: &str) -> String {
    let HashCookie {
        name,
        path,
        ttl,
        attributes,
    } = cookie;
    let mut line = format!("{name}={value}");
    // Writing to a String does not fail.
    if let Some(ttl) = ttl.filter(|ttl| !ttl.is_zero()) {
        let _ = write!(line, "; Max-Age={}", ttl.as_millis().div_ceil(1000));
    }
    if let Some(path) = path {
        let _ = write!(line, "; Path={path}");
    }
    for (name, value) in attributes {
        let _ = match value.as_str() {
            "" => write!(line, "; {name}"),
            value => write!(line, "; {name}={value}"),
        };
    }
    if !attributes
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("httponly"))
    {
        line.push_str("; HttpOnly");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::balancer::testing::{cluster_of, with};

    fn key_of(key: HashKey, uri: &str, headers: &[(&str, &str)], client: &str) -> Key {
        let cluster = with(cluster_of(&[1, 1]), |spec| {
            spec.balancer = Balancer::ConsistentHash(Box::new(ConsistentHash {
                key,
                table: api::HashTable::Ring(NonZeroU32::MIN),
            }));
        });
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let rng = &mut SmallRng::seed_from_u64(1);
        Key::of(&cluster, &request.body(()).unwrap(), client.parse().unwrap(), rng)
    }

    fn hash(key: &HashKey, uri: &str, headers: &[(&str, &str)]) -> Option<u64> {
        key_of(key.clone(), uri, headers, "10.0.0.1").hash
    }

    fn cookie(ttl: Option<u64>) -> HashCookie {
        HashCookie {
            name: "user".to_owned(),
            path: Some("/shop".to_owned()),
            ttl: ttl.map(Duration::from_millis),
            attributes: vec![
                ("SameSite".to_owned(), "Lax".to_owned()),
                ("Secure".to_owned(), String::new()),
            ],
        }
    }

    #[test]
    fn the_same_key_has_the_same_hash_and_another_has_another() {
        let header = HashKey::Header(http::HeaderName::from_static("x-user"));
        let ann = hash(&header, "/", &[("x-user", "ann")]);
        assert!(ann.is_some());
        assert_eq!(
            ann,
            hash(&header, "/other?a=b", &[("X-User", "ann"), ("x-more", "1")])
        );
        assert_ne!(ann, hash(&header, "/", &[("x-user", "bob")]));
        let both = hash(&header, "/", &[("x-user", "ann"), ("x-user", "bob")]);
        assert_ne!(both, ann);
        assert_eq!(both, hash(&header, "/", &[("x-user", "bob"), ("x-user", "ann")]));
        assert_eq!(hash(&header, "/", &[]), None);
        let host = HashKey::Header(HOST);
        let named = hash(&host, "/", &[("host", "reviews")]);
        assert_eq!(
            hash(&host, "http://reviews/", &[]),
            named,
            "HTTP/2 has no such header"
        );

        let parameter = HashKey::QueryParameter("user".to_owned());
        assert_eq!(hash(&parameter, "/?a=b&user=ann&user=bob", &[]), ann);
        assert_eq!(hash(&parameter, "/?xuser=ann", &[]), None);
        assert_eq!(hash(&parameter, "/", &[]), None);
        assert!(hash(&parameter, "/?user", &[]).is_some());

        let cookie = HashKey::Cookie(cookie(None));
        for line in ["user=ann", "a=b; user=ann", "a=b;user=\"ann\" ; c"] {
            assert_eq!(hash(&cookie, "/", &[("cookie", line)]), ann, "{line}");
        }
        assert_eq!(
            hash(&cookie, "/", &[("cookie", "a=b"), ("cookie", "user=ann")]),
            ann
        );
        for line in ["superuser=ann", "user=", "user", "User=ann"] {
            assert_eq!(hash(&cookie, "/", &[("cookie", line)]), None, "{line}");
        }
    }

    #[test]
    fn the_clients_port_and_the_form_of_its_address_do_not_matter() {
        let of = |client: &str| key_of(HashKey::SourceIp, "/", &[], client).hash;
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        let cluster = |key| {
            with(cluster_of(&[1]), |spec| {
                spec.balancer = Balancer::ConsistentHash(Box::new(ConsistentHash {
                    key,
                    table: api::HashTable::Ring(NonZeroU32::MIN),
                }));
            })
        };
        let client = "10.0.0.1".parse().unwrap();
        assert_eq!(
            Key::of_connection(&cluster(HashKey::SourceIp), client),
            of("10.0.0.1")
        );
        let parameter = HashKey::QueryParameter("user".to_owned());
        assert_eq!(Key::of_connection(&cluster(parameter), client), None);
        assert_eq!(Key::of_connection(&cluster_of(&[1]), client), None);
    }

    #[test]
    fn a_cookie_is_made_where_there_is_none_and_leads_back() {
        let told = |ttl| {
            let key = key_of(HashKey::Cookie(cookie(ttl)), "/", &[], "10.0.0.1");
            let (mut headers, hash) = (HeaderMap::new(), key.hash);
            headers.insert(SET_COOKIE, HeaderValue::from_static("own=1"));
            key.tell(&mut headers);
            let lines = headers.get_all(SET_COOKIE).iter().skip(1);
            (hash, lines.map(|line| line.to_str().unwrap().to_owned()).next())
        };
        assert_eq!(told(None), (None, None));
        let (made, line) = told(Some(90_500));
        let line = line.unwrap();
        let (pair, rest) = line.split_once("; ").unwrap();
        assert_eq!(rest, "Max-Age=91; Path=/shop; SameSite=Lax; Secure; HttpOnly");
        let again = key_of(
            HashKey::Cookie(cookie(Some(1))),
            "/",
            &[("cookie", pair)],
            "10.0.0.9",
        );
        assert!(again.cookie.is_none(), "it has one");
        assert_eq!(again.hash, made);
        let (_, line) = told(Some(0));
        assert!(!line.unwrap().contains("Max-Age"), "it ends with the session");
    }
}
