//! Whether a direction of a relay carries much at a time or little: pure bookkeeping, asked before every read.

use crate::io::SCRATCH;

/// What is read at once before a direction has proved to carry much: with a side that takes nothing, so much waits.
const FIRST: usize = 16 * 1024;
/// Pieces from this size on are large: a read that found more than it could take is one.
const LARGE: usize = FIRST;
/// Pieces below this size are small. In between nothing changes, so that a direction does not go to and fro.
const SMALL: usize = 4 * 1024;
/// Large pieces in a row that make a direction a bulk one.
const ENOUGH: u8 = 2;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    large: u8,
    never_splice: bool,
}

impl Pace {
    /// Takes note of a piece that was carried.
    pub(super) fn saw(&mut self, piece: usize) {
        if piece >= LARGE {
            self.large = ENOUGH.min(self.large + 1);
        } else if piece < SMALL {
            self.large = 0;
        }
    }

    /// Whether the kernel may carry the next piece, if both sides are bare sockets.
    pub(super) fn may_splice(self) -> bool {
        self.is_bulk() && !self.never_splice
    }

    pub(super) fn never_splice(&mut self) {
        self.never_splice = true;
    }

    /// How much is to be read at once.
    pub(super) fn most(self) -> usize {
        if self.is_bulk() { SCRATCH } else { FIRST }
    }

    fn is_bulk(self) -> bool {
        self.large >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pieces: &[usize]) -> Pace {
        let mut pace = Pace::default();
        pieces.iter().for_each(|piece| pace.saw(*piece));
        pace
    }

    #[test]
    fn large_pieces_in_a_row_make_bulk_and_one_small_ends_it() {
        for (pieces, bulk) in [
            (&[][..], false),
            (&[LARGE], false),
            (&[LARGE, LARGE], true),
            (&[LARGE, SMALL - 1, LARGE], false),
            (&[LARGE, SMALL, LARGE], true),
            (&[LARGE, LARGE, LARGE, LARGE, SMALL], true),
            (&[LARGE, LARGE, LARGE, LARGE, SMALL - 1], false),
            (&[LARGE - 1; 9], false),
        ] {
            let pace = after(pieces);
            assert_eq!(pace.may_splice(), bulk, "{pieces:?}");
            assert_eq!(pace.most(), if bulk { SCRATCH } else { FIRST }, "{pieces:?}");
        }
    }

    #[test]
    fn a_direction_without_a_pipe_goes_on_in_large_pieces() {
        let mut pace = after(&[LARGE, LARGE]);
        pace.never_splice();
        assert!(!pace.may_splice());
        assert_eq!(pace.most(), SCRATCH);
    }
}
