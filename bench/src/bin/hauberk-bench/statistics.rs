//! Percentiles, medians and ratios. Pure functions of numbers.

use serde::Serialize;

/// A median with the smallest and the largest of the values it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of `values`; nothing when there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Spread { median, least, most })
    }
}

/// The value below which the share `p` of the sorted `values` lies (nearest rank); nothing when there are none.
pub(crate) fn percentile(sorted: &[u64], p: f64) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    #[expect(clippy::cast_precision_loss, reason = "no run has 2^52 requests")]
    let rank = (sorted.len() as f64 * p).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length, and never negative"
    )]
    let index = (rank as usize).saturating_sub(1);
    Some(sorted[index.min(last)])
}

/// How `ours` compares to `theirs`, round by round: what the neighbours do in a round then counts for both.
pub(crate) fn ratio(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Option<Spread> {
    let pairs = ours.iter().zip(theirs);
    Spread::of(pairs.filter_map(|(ours, theirs)| Some((*ours)? / (*theirs)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_value_or_between_the_two_middle_ones() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        let odd = spread(&[5.0, 1.0, 3.0]).unwrap();
        assert_eq!((odd.median, odd.least, odd.most), (3.0, 1.0, 5.0));
        assert_eq!(spread(&[1.0, 2.0, 4.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[f64::NAN]), None);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=1000).collect();
        for (p, expected) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            assert_eq!(percentile(&values, p), Some(expected), "{p}");
        }
        assert_eq!(percentile(&[7], 0.99), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The second round was slow for both; a ratio of medians would be 3 / 2.
        let ours = [Some(1.0), Some(30.0), Some(3.0)];
        let theirs = [Some(1.0), Some(20.0), Some(2.0)];
        let ratio = ratio(&ours, &theirs).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.most), (1.5, 1.0, 1.5));
    }

    #[test]
    fn a_round_that_one_side_missed_counts_for_no_ratio() {
        assert_eq!(ratio(&[Some(1.0)], &[None]), None);
        assert_eq!(
            ratio(&[None, Some(4.0)], &[Some(9.0), Some(2.0)]).unwrap().median,
            2.0
        );
        assert_eq!(ratio(&[Some(1.0)], &[Some(0.0)]), None);
    }
}
