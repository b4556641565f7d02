//! The state of a breaker in one `u64`, so that it changes by one CAS. Only `breaker` uses it.
//!
//! ```text
//!  63 62  61 58  57                    42  41                                      0
//! ┌─────┬──────┬─────────────────────────┬──────────────────────────────────────────┐
//! │ 0   │  0   │            0            │ failures in a row (32 bits)              │ closed
//! │ 1   │streak│            0            │ open until, ms                           │ open
//! │ 2   │streak│    probes under way     │ had been open until, ms                  │ half-open
//! └─────┴──────┴─────────────────────────┴──────────────────────────────────────────┘
//! ```
//! 42 bits of milliseconds are 139 years. A half-open phase is told from others by the end of the opening before it, so
//! that a late probe of an earlier phase changes nothing.

/// Most probes at a time.
pub(super) const MAX_PROBES: u32 = (1 << 16) - 1;
/// Openings in a row are counted up to this.
pub(super) const MAX_STREAK: u32 = (1 << 4) - 1;
const MAX_MS: u64 = (1 << 42) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Closed {
        failures: u32,
    },
    Open {
        until_ms: u64,
        streak: u32,
    },
    HalfOpen {
        probes: u32,
        opened_until_ms: u64,
        streak: u32,
    },
}

impl Word {
    pub(super) fn pack(self) -> u64 {
        let pack = |state: u64, streak: u32, probes: u32, low: u64| {
            let (streak, probes) = (streak.min(MAX_STREAK), probes.min(MAX_PROBES));
            (state << 62) | (u64::from(streak) << 58) | (u64::from(probes) << 42) | low.min(MAX_MS)
        };
        match self {
            Self::Closed { failures } => pack(0, 0, 0, failures.into()),
            Self::Open { until_ms, streak } => pack(1, streak, 0, until_ms),
            Self::HalfOpen {
                probes,
                opened_until_ms,
                streak,
            } => pack(2, streak, probes, opened_until_ms),
        }
    }

    pub(super) fn unpack(word: u64) -> Self {
        let low = word & MAX_MS;
        let streak = (word >> 58) as u32 & MAX_STREAK;
        let probes = (word >> 42) as u32 & MAX_PROBES;
        match word >> 62 {
            0 => Self::Closed { failures: low as u32 },
            1 => Self::Open {
                until_ms: low,
                streak,
            },
            _ => Self::HalfOpen {
                probes,
                opened_until_ms: low,
                streak,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_unpacks_the_same(
            failures: u32,
            ms in 0..=MAX_MS,
            streak in 0..=MAX_STREAK,
            probes in 0..=MAX_PROBES,
        ) {
            for word in [
                Word::Closed { failures },
                Word::Open { until_ms: ms, streak },
                Word::HalfOpen { probes, opened_until_ms: ms, streak },
            ] {
                prop_assert_eq!(Word::unpack(word.pack()), word);
            }
        }
    }

    #[test]
    fn fields_that_overflow_stay_in_their_place() {
        let word = Word::HalfOpen {
            probes: u32::MAX,
            opened_until_ms: u64::MAX,
            streak: u32::MAX,
        };
        let kept = Word::HalfOpen {
            probes: MAX_PROBES,
            opened_until_ms: MAX_MS,
            streak: MAX_STREAK,
        };
        assert_eq!(Word::unpack(word.pack()), kept);
    }

    #[test]
    fn a_fresh_word_is_closed() {
        assert_eq!(Word::unpack(0), Word::Closed { failures: 0 });
    }
}
