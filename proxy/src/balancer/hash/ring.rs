//! The ring: every endpoint has points on it, as many as its weight asks for, and a hash belongs to the next point. When
//! one of N endpoints leaves, the keys of its points go to the next ones, and no others move: about one of N.

use std::num::NonZeroU32;

use api::limits::MAX_RING_SIZE;
use api::stable_hash;

use super::{Owner, Slots};

/// The lightest owner has as many points at least, or half of the least there may be: while that decides, the number of
/// owners does not, and the points of those that stay are the same.
const STEADY: u64 = 256;
/// But for that alone, a ring does not get more points than this: 640 KiB.
const STEADY_RING: u64 = 65_536;

/// At least `least` points for owners in their order, in proportion to their weights, such that the lightest has
/// [`STEADY`]; but no more than [`MAX_RING_SIZE`] because of that, or one for each.
pub(super) fn slots(least: NonZeroU32, owners: &[Owner]) -> Slots {
    let total: u64 = owners.iter().map(|owner| u64::from(owner.weight)).sum();
    let lightest = owners
        .iter()
        .map(|owner| u64::from(owner.weight))
        .min()
        .unwrap_or(1);
    // Points of the lightest, so that they are whole and the others follow.
    let least = u64::from(least.get());
    let steady = STEADY
        .min(least.div_ceil(2))
        .min(STEADY_RING * lightest / total.max(1));
    let each = (least * lightest).div_ceil(total.max(1)).max(steady);
    let points = |weight: u64| {
        let asked = u128::from(weight) * u128::from(each) / u128::from(lightest);
        let whole = u128::from(total) * u128::from(each) / u128::from(lightest);
        if whole <= u128::from(MAX_RING_SIZE) {
            asked
        } else {
            u128::from(weight) * u128::from(MAX_RING_SIZE) / u128::from(total)
        }
    };
    let mut ring: Vec<(u64, u16)> = Vec::new();
    let mut sum = 0;
    for owner in owners {
        let before = points(sum);
        sum += u64::from(owner.weight);
        let count = (points(sum) - before).max(1) as u64;
        let point = |n: u64| (stable_hash(owner.hash, &n.to_le_bytes()), owner.index);
        ring.extend((0..count).map(point));
    }
    // Two of one hash stand in the order of their owners, which are sorted.
    ring.sort_by_key(|(hash, _)| *hash);
    let (points, owners): (Vec<_>, Vec<_>) = ring.into_iter().unzip();
    Slots::Ring {
        points: points.into(),
        owners: owners.into(),
    }
}
