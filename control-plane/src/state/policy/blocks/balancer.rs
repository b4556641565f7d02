//! `loadBalancer`, in the contract's types.

use std::num::NonZeroU32;
use std::sync::Arc;

use api::{Balancer, ConsistentHash, HashCookie, HashKey, HashTable, Invalid, Warmup, limits};
use crds::destination_rule::load_balancer::{self as crd, SimpleBalancer};
use http::HeaderName;

use super::locality::Rule;
use crate::state::rules::{refuse, whole_ms};

/// The balancer, and the warm-up beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Balancing {
    pub(super) balancer: Balancer,
    pub(super) warmup: Option<Warmup>,
    /// It depends on the client what this comes to.
    pub(super) locality: Option<Arc<Rule>>,
}

pub(super) fn balancing(block: &crd::LoadBalancer) -> Result<Balancing, Invalid> {
    let crd::LoadBalancer {
        simple,
        consistent_hash,
        locality_lb_setting,
        zone_aware_lb_setting,
        warmup_duration_secs,
        warmup,
    } = block;
    refuse(&[("zoneAwareLbSetting", zone_aware_lb_setting.is_some())])?;
    let balancer = match (simple, consistent_hash) {
        (Some(_), Some(_)) => Err(Invalid::new(
            "consistentHash",
            "cannot stand beside simple: keep one",
        )),
        (None, Some(hash)) => consistent(hash)
            .map(|hash| Balancer::ConsistentHash(Box::new(hash)))
            .map_err(|e| e.under("consistentHash")),
        (simple, None) => self::simple(simple.unwrap_or_default()),
    }?;
    // That it fits the balancer, the contract's own check says.
    let warmup = match (warmup, warmup_duration_secs) {
        (Some(warmup), _) => Some(self::warmup(warmup)),
        (None, Some(duration)) => Some(self::warmup(&crd::Warmup {
            duration: *duration,
            ..crd::Warmup::default()
        })),
        (None, None) => None,
    };
    let locality = locality_lb_setting.as_ref().map(Rule::new);
    Ok(Balancing {
        balancer,
        warmup,
        locality: locality
            .transpose()
            .map_err(|e| e.under("localityLbSetting"))?
            .map(Arc::new),
    })
}

fn warmup(block: &crd::Warmup) -> Warmup {
    let crd::Warmup {
        duration,
        minimum_percent,
        aggression,
    } = block;
    Warmup {
        duration: whole_ms(duration.get()),
        minimum_percent: minimum_percent.unwrap_or(10.0),
        aggression: aggression.unwrap_or(1.0),
    }
}

fn simple(simple: SimpleBalancer) -> Result<Balancer, Invalid> {
    match simple {
        SimpleBalancer::Unspecified | SimpleBalancer::LeastRequest | SimpleBalancer::LeastConn => {
            Ok(Balancer::LeastRequest)
        }
        SimpleBalancer::Random => Ok(Balancer::Random),
        SimpleBalancer::RoundRobin => Ok(Balancer::RoundRobin),
        SimpleBalancer::PeakEwma => Ok(Balancer::PeakEwma),
        SimpleBalancer::Passthrough => Err(Invalid::new("simple", "PASSTHROUGH is not supported yet")),
    }
}

fn consistent(block: &crd::ConsistentHash) -> Result<ConsistentHash, Invalid> {
    let crd::ConsistentHash {
        http_header_name,
        http_cookie,
        use_source_ip,
        http_query_parameter_name,
        ring_hash,
        maglev,
        minimum_ring_size,
    } = block;
    let key = match (
        http_header_name,
        http_cookie,
        use_source_ip,
        http_query_parameter_name,
    ) {
        (Some(name), None, None, None) => {
            let name = HeaderName::try_from(name.as_str());
            HashKey::Header(name.map_err(|_| Invalid::new("httpHeaderName", "is not the name of a header"))?)
        }
        (None, Some(cookie), None, None) => HashKey::Cookie(self::cookie(cookie)),
        (None, None, Some(true), None) => HashKey::SourceIp,
        (None, None, None, Some(name)) => HashKey::QueryParameter(name.clone()),
        _ => {
            return Err(Invalid::new(
                "",
                "needs exactly one of httpHeaderName, httpCookie, useSourceIp: true and \
                 httpQueryParameterName",
            ));
        }
    };
    // What does not fit is out of bounds as well, and is told so by the contract's own check.
    let size = |given: Option<u64>, default: u32| {
        let size = u32::try_from(given.unwrap_or(default.into())).unwrap_or(u32::MAX);
        NonZeroU32::new(size).ok_or_else(|| Invalid::new("", "has a size of 0: use 1 or more"))
    };
    let table = match (ring_hash, maglev) {
        (Some(_), Some(_)) => return Err(Invalid::new("maglev", "cannot stand beside ringHash: keep one")),
        (ring, None) => {
            let least = ring
                .and_then(|ring| ring.minimum_ring_size)
                .or(*minimum_ring_size);
            HashTable::Ring(size(least, limits::RING_SIZE)?)
        }
        (None, Some(maglev)) => {
            refuse(&[("minimumRingSize", minimum_ring_size.is_some())])?;
            HashTable::Maglev(size(maglev.table_size, limits::MAGLEV_SIZE)?)
        }
    };
    Ok(ConsistentHash { key, table })
}

fn cookie(block: &crd::HttpCookie) -> HashCookie {
    let crd::HttpCookie {
        name,
        path,
        ttl,
        attributes,
    } = block;
    HashCookie {
        name: name.clone(),
        path: path.clone().filter(|path| !path.is_empty()),
        ttl: ttl.map(|ttl| whole_ms(ttl.get())),
        attributes: attributes
            .iter()
            .map(|crd::CookieAttribute { name, value }| (name.clone(), value.clone().unwrap_or_default()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(yaml: &str) -> Result<Balancer, String> {
        let balancing = balancing(&serde_saphyr::from_str(yaml).unwrap());
        balancing
            .map(|balancing| balancing.balancer)
            .map_err(|e| e.to_string())
    }

    fn hash_of(yaml: &str) -> ConsistentHash {
        match of(&format!("consistentHash: {{{yaml}}}")) {
            Ok(Balancer::ConsistentHash(hash)) => *hash,
            other => panic!("{yaml}: {other:?}"),
        }
    }

    fn size(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn both_crates_hold_the_same_bounds() {
        assert_eq!(crd::MAX_RING_SIZE, u64::from(limits::MAX_RING_SIZE));
        assert_eq!(crd::MAGLEV_SIZE_BELOW, u64::from(limits::MAGLEV_SIZE_BELOW));
    }

    #[test]
    fn a_warm_up_has_its_defaults_and_goes_before_its_old_form() {
        let of = |yaml: &str| balancing(&serde_saphyr::from_str(yaml).unwrap()).unwrap().warmup;
        let expected = |secs, minimum_percent, aggression| {
            Some(Warmup {
                duration: Duration::from_secs(secs),
                minimum_percent,
                aggression,
            })
        };
        assert_eq!(of("{simple: ROUND_ROBIN}"), None);
        assert_eq!(of("{warmup: {duration: 1m}}"), expected(60, 10.0, 1.0));
        assert_eq!(
            of("{warmup: {duration: 1m, minimumPercent: 0, aggression: 2}, warmupDurationSecs: 5s}"),
            expected(60, 0.0, 2.0)
        );
        assert_eq!(of("{warmupDurationSecs: 5s}"), expected(5, 10.0, 1.0));
    }

    #[test]
    fn keys_and_tables_are_told_apart() {
        for (yaml, key, table) in [
            (
                "httpHeaderName: X-User",
                HashKey::Header(HeaderName::from_static("x-user")),
                HashTable::Ring(size(1024)),
            ),
            (
                "useSourceIp: true, ringHash: {}, minimumRingSize: 7",
                HashKey::SourceIp,
                HashTable::Ring(size(7)),
            ),
            (
                "useSourceIp: true, ringHash: {minimumRingSize: 8}, minimumRingSize: 7",
                HashKey::SourceIp,
                HashTable::Ring(size(8)),
            ),
            (
                "httpQueryParameterName: user, maglev: {}",
                HashKey::QueryParameter("user".to_owned()),
                HashTable::Maglev(size(65_537)),
            ),
            (
                "httpCookie: {name: c, ttl: 0s, attributes: [{name: Secure}, {name: SameSite, value: Lax}]}, \
                 maglev: {tableSize: 251}",
                HashKey::Cookie(HashCookie {
                    name: "c".to_owned(),
                    path: None,
                    ttl: Some(Duration::ZERO),
                    attributes: vec![
                        ("Secure".to_owned(), String::new()),
                        ("SameSite".to_owned(), "Lax".to_owned()),
                    ],
                }),
                HashTable::Maglev(size(251)),
            ),
            (
                "httpCookie: {name: c, path: /shop}",
                HashKey::Cookie(HashCookie {
                    name: "c".to_owned(),
                    path: Some("/shop".to_owned()),
                    ttl: None,
                    attributes: vec![],
                }),
                HashTable::Ring(size(1024)),
            ),
        ] {
            assert_eq!(hash_of(yaml), ConsistentHash { key, table }, "{yaml}");
        }
    }

    #[test]
    fn what_is_no_balancer_is_named() {
        for (yaml, field) in [
            (
                "{simple: RANDOM, consistentHash: {useSourceIp: true}}",
                "consistentHash:",
            ),
            ("{consistentHash: {}}", "consistentHash:"),
            ("{consistentHash: {useSourceIp: false}}", "consistentHash:"),
            (
                "{consistentHash: {useSourceIp: true, httpHeaderName: a}}",
                "consistentHash:",
            ),
            (
                "{consistentHash: {httpHeaderName: a b}}",
                "consistentHash.httpHeaderName:",
            ),
            (
                "{consistentHash: {useSourceIp: true, maglev: {}, minimumRingSize: 1}}",
                "consistentHash.minimumRingSize:",
            ),
            (
                "{consistentHash: {useSourceIp: true, maglev: {tableSize: 0}}}",
                "consistentHash:",
            ),
        ] {
            let problem = of(yaml).unwrap_err();
            assert!(problem.starts_with(field), "{yaml}: {problem}");
        }
    }
}
