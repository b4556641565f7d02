//! Slow start: an endpoint that has appeared among others gets a part of its weight at first, and all of it when its time
//! is over. `choose` comes here only while a cluster with `warmup` has an endpoint that is still new.
//!
//! The part grows from the least to the whole as (time since it appeared / whole time)^(1 / aggression); the first second
//! counts as a whole one, so that nothing starts at zero. A pick first asks chance whether an endpoint's part lets it have
//! its turn, a few times; then one of those is taken, by their parts, for where all are new few get their turn. Only where none
//! of them fits all are looked through. Each way an endpoint's chance is its weight times its part, or close to it.

use std::sync::atomic::Ordering;

use api::Warmup;
use rand::{Rng, RngExt};

use super::choose::Field;
use crate::config::snapshot::Endpoint;

/// Endpoints asked before one of them is taken.
const TRIES: usize = 8;

/// The settings of a cluster in which something is new; `None`, after one comparison, where nothing is.
#[inline]
pub(super) fn under_way(field: Field<'_>, now_ms: u64) -> Option<Warming<'_>> {
    let cluster = field.cluster;
    let settings = cluster.spec.warmup.as_ref()?;
    let newest = cluster.live.newest.load(Ordering::Relaxed);
    (newest > 0 && now_ms < newest.saturating_add(window(settings))).then_some(Warming {
        field,
        settings,
        now_ms,
    })
}

/// A cluster in which something is new.
#[derive(Debug, Clone, Copy)]
pub(super) struct Warming<'a> {
    field: Field<'a>,
    settings: &'a Warmup,
    now_ms: u64,
}

impl Warming<'_> {
    /// One that fits, of those that `turn` proposes, as probable as what it has of its weight.
    pub(super) fn one<R: Rng>(
        self,
        rng: &mut R,
        mut turn: impl FnMut(&mut R) -> usize,
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (mut kept, mut sum) = (None, 0.0);
        for _ in 0..TRIES {
            let i = turn(rng);
            if !fits(i) {
                continue;
            }
            let part = self.part(&self.field.endpoints[i]);
            if part >= 1.0 || rng.random::<f64>() < part {
                return Some(i);
            }
            sum += part;
            if rng.random::<f64>() * sum < part {
                kept = Some(i);
            }
        }
        kept.or_else(|| self.scan(rng, fits))
    }

    /// Each that fits takes the place of the one kept so far with the chance of its weight in the sum so far.
    fn scan(self, rng: &mut impl Rng, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut kept, mut sum) = (None, 0.0);
        for (i, endpoint) in self.field.endpoints.iter().enumerate() {
            if !fits(i) {
                continue;
            }
            let weight = self.weight(endpoint);
            sum += weight;
            if rng.random::<f64>() * sum < weight {
                kept = Some(i);
            }
        }
        kept
    }

    /// What an endpoint has of its weight now.
    pub(super) fn weight(self, endpoint: &Endpoint) -> f64 {
        f64::from(endpoint.spec.weight.max(1)) * self.part(endpoint)
    }

    /// Above 0, and at most 1.
    fn part(self, endpoint: &Endpoint) -> f64 {
        let since = endpoint.live.since.load(Ordering::Relaxed);
        let (age, window) = (self.now_ms.saturating_sub(since), window(self.settings));
        if since == 0 || age >= window {
            return 1.0;
        }
        let time = (age.max(1000) as f64 / window as f64).min(1.0);
        let grown = if self.settings.aggression == 1.0 {
            time
        } else {
            time.powf(1.0 / self.settings.aggression)
        };
        grown.max(self.settings.minimum_percent / 100.0).min(1.0)
    }
}

fn window(settings: &Warmup) -> u64 {
    u64::try_from(settings.duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use api::Balancer;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use tokio::time::Instant;

    use super::*;
    use crate::balancer::testing::{cluster_of, with};
    use crate::balancer::{Outcome, Wanted, pick};
    use crate::config::snapshot::Cluster;
    use crate::live::millis;

    /// Four endpoints, the last of which appeared at `since`.
    fn warming(balancer: Balancer, warmup: Option<Warmup>, since: Instant) -> Arc<Cluster> {
        let cluster = with(cluster_of(&[1, 1, 1, 1]), |spec| {
            spec.balancer = balancer;
            spec.warmup = warmup;
        });
        cluster.live.appeared(&cluster.endpoints[3].live, since);
        cluster
    }

    fn settings(minimum_percent: f64, aggression: f64) -> Warmup {
        Warmup {
            duration: Duration::from_secs(100),
            minimum_percent,
            aggression,
        }
    }

    /// How many of 30,000 idle picks the newest has, for a fair share of 1.
    fn share(cluster: &Arc<Cluster>, now: Instant) -> f64 {
        let rng = &mut SmallRng::seed_from_u64(3);
        let mut newest = 0;
        for _ in 0..30_000 {
            let pick = pick(&Wanted::of(cluster), rng, now).unwrap();
            newest += u32::from(Arc::ptr_eq(&pick.endpoint, &cluster.endpoints[3]));
            pick.finish(Outcome::Success, now);
        }
        let got = f64::from(newest) / 30_000.0;
        // For what one of the others has.
        got / ((1.0 - got) / 3.0)
    }

    #[test]
    fn a_new_endpoint_starts_with_a_part_and_grows_to_the_whole() {
        let since = Instant::now();
        for balancer in [Balancer::RoundRobin, Balancer::LeastRequest] {
            for (minimum, aggression, secs, expected) in [
                (10.0, 1.0, 0, 0.10),
                (10.0, 1.0, 50, 0.50),
                (10.0, 1.0, 90, 0.90),
                (10.0, 1.0, 100, 1.0),
                (50.0, 1.0, 20, 0.50),
                (0.0, 1.0, 0, 0.01),
                (10.0, 2.0, 25, 0.50),
                (100.0, 1.0, 1, 1.0),
            ] {
                let cluster = warming(balancer.clone(), Some(settings(minimum, aggression)), since);
                let share = share(&cluster, since + Duration::from_secs(secs));
                let name = format!("{balancer:?} {minimum} {aggression} after {secs} s");
                assert!((share - expected).abs() < 0.05, "{name}: {share} for {expected}");
            }
        }
    }

    #[test]
    fn without_warmup_or_with_nothing_new_nothing_is_held_back() {
        let since = Instant::now();
        let now = since + Duration::from_secs(1);
        let without = warming(Balancer::RoundRobin, None, since);
        assert!((share(&without, now) - 1.0).abs() < 0.01);
        let settled = with(cluster_of(&[1, 1, 1, 1]), |spec| {
            spec.balancer = Balancer::RoundRobin;
            spec.warmup = Some(settings(10.0, 1.0));
        });
        assert!(under_way(Field::whole(&settled), millis(now)).is_none());
        assert!((share(&settled, now) - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_new_endpoint_takes_all_where_it_is_the_only_one_that_fits() {
        let since = Instant::now();
        for balancer in [Balancer::RoundRobin, Balancer::LeastRequest] {
            let cluster = warming(balancer, Some(settings(0.0, 1.0)), since);
            let tried: Vec<u64> = cluster.endpoints[..3].iter().map(|e| e.live.id).collect();
            let wanted = Wanted {
                tried: &tried,
                ..Wanted::of(&cluster)
            };
            let rng = &mut SmallRng::seed_from_u64(3);
            for _ in 0..100 {
                let pick = pick(&wanted, rng, since).unwrap();
                assert!(Arc::ptr_eq(&pick.endpoint, &cluster.endpoints[3]));
            }
        }
    }

    #[test]
    fn where_all_are_new_a_pick_looks_at_a_few_and_prefers_the_oldest() {
        let since = Instant::now();
        let cluster = with(cluster_of(&[1; 1000]), |spec| {
            spec.warmup = Some(settings(0.0, 2.0))
        });
        for (i, endpoint) in cluster.endpoints.iter().enumerate() {
            let later = Duration::from_secs(if i < 500 { 0 } else { 3 });
            cluster.live.appeared(&endpoint.live, since + later);
        }
        // Parts of 0.2 and 0.1.
        let warming = under_way(Field::whole(&cluster), millis(since + Duration::from_secs(4))).unwrap();
        let rng = &mut SmallRng::seed_from_u64(3);
        let (looked, mut old) = (std::cell::Cell::new(0), 0);
        for _ in 0..10_000 {
            let fits = |_| {
                looked.set(looked.get() + 1);
                true
            };
            let picked = warming.one(rng, |rng| rng.random_range(0..1000), fits).unwrap();
            old += u32::from(picked < 500);
        }
        assert!(looked.get() <= 10_000 * TRIES, "{} looks", looked.get());
        assert!((6_300..7_000).contains(&old), "{old} of 10,000 for two in three");
    }

    #[test]
    fn under_load_a_new_endpoint_has_as_much_under_way_as_its_part() {
        let since = Instant::now();
        let cluster = warming(Balancer::LeastRequest, Some(settings(10.0, 1.0)), since);
        let now = since + Duration::from_secs(25);
        let rng = &mut SmallRng::seed_from_u64(3);
        let held: Vec<_> = (0..325)
            .map(|_| pick(&Wanted::of(&cluster), rng, now).unwrap())
            .collect();
        let newest = cluster.endpoints[3].live.active.load(Ordering::Relaxed);
        drop(held);
        assert!(
            (15..=35).contains(&newest),
            "{newest} of 325 at a quarter of the weight"
        );
    }
}
