//! Routes connections that carry no visible requests. `outbound` calls [`select_tcp`] once a connection, with the TLS
//! server name where its first bytes have one.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use api::{TcpRule, WeightedCluster};
use rand::Rng;

use super::{roll, why};
use crate::config::snapshot::{Cluster, Route};
use crate::error::Error;

/// The rule that a connection falls under. `Display` says why.
#[derive(Debug, Clone, Copy)]
pub struct TcpDecision<'r> {
    route: &'r Route,
    /// Position of the rule in the route.
    pub rule_index: usize,
    /// The rule.
    pub rule: &'r TcpRule,
    /// Which of the rule's server names it was; `None` for a rule that takes any bytes.
    pub matched: Option<&'r str>,
    /// The share of the split that chance fell on.
    pub share: &'r WeightedCluster,
    /// Where the connection goes.
    pub cluster: &'r Arc<Cluster>,
}

/// The rule that a connection falls under: the first without server names, or with one that covers `sni`.
///
/// # Errors
/// [`Error::NoRoute`] when no rule matches.
pub fn select_tcp<'r>(
    route: &'r Route,
    sni: Option<&str>,
    rng: &mut impl Rng,
) -> Result<TcpDecision<'r>, Error> {
    let found = route.spec.tcp.iter().enumerate().find_map(|(index, rule)| {
        if rule.sni.is_empty() {
            return Some((index, rule, None));
        }
        let covers = |wanted: &&String| sni.is_some_and(|sni| covers(wanted, sni));
        let matched = rule.sni.iter().find(covers)?;
        Some((index, rule, Some(matched.as_str())))
    });
    let Some((rule_index, rule, matched)) = found else {
        return Err(Error::NoRoute {
            route: Arc::clone(&route.name),
        });
    };
    let clusters = route.tcp.get(rule_index).map_or(&[][..], Vec::as_slice);
    let (share, cluster) = roll(&rule.split, clusters, rng)?;
    Ok(TcpDecision {
        route,
        rule_index,
        rule,
        matched,
        share,
        cluster,
    })
}

/// Whether `wanted`, a name or `*.suffix`, covers a server name. `*` stands for one label or more, and never for none.
fn covers(wanted: &str, sni: &str) -> bool {
    match wanted.strip_prefix('*') {
        None => sni.eq_ignore_ascii_case(wanted),
        Some(dot_suffix) => {
            let start = sni.len().checked_sub(dot_suffix.len()).filter(|start| *start > 0);
            let end = start.and_then(|start| sni.get(start..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(dot_suffix))
        }
    }
}

impl Display for TcpDecision<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            route,
            rule_index,
            rule,
            matched,
            share,
            cluster: _,
        } = *self;
        why::rule_of(f, &route.name, rule_index, &rule.name, rule.source.as_ref())?;
        match matched {
            Some(matched) => write!(f, ": server name is covered by {matched:?}")?,
            None => f.write_str(": takes every connection")?,
        }
        why::split_of(f, &rule.split, share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::route::testing::{route, tcp_rule};

    #[test]
    fn server_names_are_covered_by_name_or_suffix() {
        let table = [
            ("db.shop.example", "db.shop.example", true),
            ("db.shop.example", "DB.Shop.example", true),
            ("db.shop.example", "xdb.shop.example", false),
            ("*.shop.example", "db.shop.example", true),
            ("*.shop.example", "a.b.SHOP.example", true),
            ("*.shop.example", "shop.example", false),
            ("*.shop.example", ".shop.example", false),
            ("*.shop.example", "xshop.example", false),
            ("*.shop.example", "db.shop.example.evil", false),
            ("*.shop.example", "é", false),
            ("*.shop.example", "", false),
        ];
        for (wanted, sni, expected) in table {
            assert_eq!(covers(wanted, sni), expected, "{wanted} {sni:?}");
        }
    }

    #[test]
    fn the_first_rule_decides_and_says_why() {
        let route = route(
            vec![],
            vec![
                tcp_rule(&["*.shop.example"], &[("a", 90), ("b", 0)]),
                tcp_rule(&[], &[("rest", 1)]),
            ],
        );
        let mut rng = SmallRng::seed_from_u64(1);
        let shop = select_tcp(&route, Some("db.shop.example"), &mut rng).unwrap();
        assert_eq!((shop.rule_index, &*shop.cluster.name), (0, "a"));
        assert_eq!(
            shop.to_string(),
            "rule #1 of the default route of reviews.shop:80: server name is covered by \"*.shop.example\"; \
             split 90/0 fell on a"
        );
        for sni in [None, Some("other")] {
            let rest = select_tcp(&route, sni, &mut rng).unwrap();
            assert_eq!(
                rest.to_string(),
                "rule #2 of the default route of reviews.shop:80: takes every connection; goes to rest"
            );
        }
    }

    #[test]
    fn without_a_rule_the_connection_is_refused() {
        let only_named = route(vec![], vec![tcp_rule(&["a.example"], &[("a", 1)])]);
        let mut rng = SmallRng::seed_from_u64(1);
        for sni in [None, Some("b.example")] {
            assert_eq!(
                select_tcp(&only_named, sni, &mut rng).unwrap_err().flag(),
                "no_route"
            );
        }
        assert_eq!(
            select_tcp(&route(vec![], vec![]), None, &mut rng)
                .unwrap_err()
                .flag(),
            "no_route"
        );
    }

    proptest! {
        #[test]
        fn any_server_name_is_covered_as_its_text_says(wanted in "[*]?[.]?[a-z.é]{0,6}", sni in ".{0,8}") {
            let (lower, name) = (sni.to_ascii_lowercase(), wanted.to_ascii_lowercase());
            let expected = match name.strip_prefix('*') {
                Some(suffix) => lower.ends_with(suffix) && lower != suffix,
                None => lower == name,
            };
            prop_assert_eq!(covers(&wanted, &sni), expected);
        }
    }
}
