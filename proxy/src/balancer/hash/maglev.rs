//! The maglev table (Eisenbud and others, *Maglev: A Fast and Reliable Software Network Load Balancer*, NSDI 2016): each
//! owner has an order of its own over all slots, and they take turns at their next slot that is still free. Shares are
//! almost exact, a look-up is a remainder, and few keys move that need not when an endpoint comes or leaves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;

use api::stable_hash;

use super::{Owner, Slots};

/// Marks a free slot; no owner has this index.
const FREE: u16 = u16::MAX;

/// `size` slots, a prime, for owners in their order, in proportion to their weights.
pub(super) fn slots(size: NonZeroU32, owners: &[Owner]) -> Slots {
    let size = size.get() as usize;
    let mut slots = vec![FREE; size];
    if owners.is_empty() {
        return Slots::Maglev { owners: [].into() };
    }
    let mut orders: Vec<Order> = owners.iter().map(|owner| Order::of(owner.hash, size)).collect();
    // Who has taken fewest for its weight is next; of equals, the first. Positive floats are in the order of their bits.
    let turn = |taken: u32, owner: usize| {
        let due = f64::from(taken) / f64::from(owners[owner].weight);
        Reverse((due.to_bits(), owner, taken))
    };
    let mut turns: BinaryHeap<_> = (0..owners.len()).map(|owner| turn(1, owner)).collect();
    for _ in 0..size {
        let Some(Reverse((_, owner, taken))) = turns.pop() else {
            break;
        };
        // There is a free slot, and the order meets every slot.
        let slot = loop {
            let slot = orders[owner].step(size);
            if slots[slot] == FREE {
                break slot;
            }
        };
        slots[slot] = owners[owner].index;
        turns.push(turn(taken + 1, owner));
    }
    Slots::Maglev { owners: slots.into() }
}

/// The order in which an owner wants the slots: with a prime number of them, every step from 1 on meets each once.
struct Order {
    next: usize,
    skip: usize,
}

impl Order {
    fn of(hash: u64, size: usize) -> Self {
        let of =
            |seed: u64, below: usize| (stable_hash(seed, &hash.to_le_bytes()) % below.max(1) as u64) as usize;
        Self {
            next: of(1, size),
            skip: of(2, size - 1) + 1,
        }
    }

    fn step(&mut self, size: usize) -> usize {
        let slot = self.next;
        self.next = (self.next + self.skip) % size;
        slot
    }
}
