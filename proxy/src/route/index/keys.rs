//! Texts in order, each with the positions filed under it. Only the index uses them.

use std::cmp::Ordering;

use super::Text;

/// Whether ASCII case counts in what is looked for. Where it does not, the texts are in lower case.
#[derive(Debug, Clone, Copy)]
pub(super) enum Case {
    Counts,
    Disregarded,
}

impl Case {
    fn compare(self, key: &str, text: &str) -> Ordering {
        match self {
            Self::Counts => key.cmp(text),
            Self::Disregarded => key.bytes().cmp(text.bytes().map(|b| b.to_ascii_lowercase())),
        }
    }

    fn begins(self, text: &str, key: &str) -> bool {
        let start = text.as_bytes().get(..key.len());
        start.is_some_and(|start| match self {
            Self::Counts => start == key.as_bytes(),
            Self::Disregarded => start.eq_ignore_ascii_case(key.as_bytes()),
        })
    }
}

/// Texts in order. They lie one after the other in one string, and so do the positions in one list.
#[derive(Debug, Default)]
pub(super) struct Keys {
    texts: String,
    keys: Vec<Key>,
    positions: Vec<u32>,
}

/// Where the text and the positions of a key end; they begin where those of the key before it end.
#[derive(Debug, Clone, Copy)]
struct Key {
    text_end: u32,
    positions_end: u32,
}

impl Keys {
    /// Texts with a position each, which come in order.
    pub(super) fn of(mut filed: Vec<(Text<'_>, u32)>) -> Self {
        // Stable: positions of one text stay in order.
        filed.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut this = Self::default();
        for same in filed.chunk_by(|(a, _), (b, _)| a == b) {
            this.texts.push_str(&same[0].0);
            this.positions.extend(same.iter().map(|(_, position)| position));
            let end = |n: usize| u32::try_from(n).expect("a route is far smaller");
            this.keys.push(Key {
                text_end: end(this.texts.len()),
                positions_end: end(this.positions.len()),
            });
        }
        this.texts.shrink_to_fit();
        this.keys.shrink_to_fit();
        this.positions.shrink_to_fit();
        this
    }

    /// The positions filed under a text.
    pub(super) fn equal(&self, text: &str, case: Case) -> &[u32] {
        self.search(text, case).map_or(&[], |at| self.positions(at))
    }

    /// Where a text stands, or else where it would.
    fn search(&self, text: &str, case: Case) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.keys.len());
        while low < high {
            let middle = low.midpoint(high);
            match case.compare(self.text(middle), text) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn text(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.keys[before].text_end);
        &self.texts[start as usize..self.keys[at].text_end as usize]
    }

    fn positions(&self, at: usize) -> &[u32] {
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.keys[before].positions_end);
        &self.positions[start as usize..self.keys[at].positions_end as usize]
    }
}

/// Keys of which one may begin another.
#[derive(Debug, Default)]
pub(super) struct Nested {
    keys: Keys,
    /// For each key, one more than the place of the longest other key that it begins with; 0 for none.
    outer: Vec<u32>,
}

impl Nested {
    pub(super) fn of(keys: Keys) -> Self {
        let mut outer: Vec<u32> = Vec::with_capacity(keys.keys.len());
        for at in 0..keys.keys.len() {
            // The keys that this one begins with are the one before it, or what that one begins with.
            let mut candidate = u32::try_from(at).expect("a route is far smaller");
            while let Some(other) = candidate.checked_sub(1) {
                if keys.text(at).starts_with(keys.text(other as usize)) {
                    break;
                }
                candidate = outer[other as usize];
            }
            outer.push(candidate);
        }
        Self { keys, outer }
    }

    /// The positions filed under each key that `text` begins with, the longest key first.
    pub(super) fn of_text<'k>(&'k self, text: &str, case: Case) -> impl Iterator<Item = &'k [u32]> {
        // All that `text` begins with comes before it; the last key before it begins with all of them, or is one.
        let mut found = self
            .keys
            .search(text, case)
            .map_or_else(|after| after, |at| at + 1);
        while let Some(at) = found.checked_sub(1) {
            if case.begins(text, self.keys.text(at)) {
                break;
            }
            found = self.outer[at] as usize;
        }
        std::iter::successors(found.checked_sub(1), |at| {
            (self.outer[*at] as usize).checked_sub(1)
        })
        .map(|at| self.keys.positions(at))
    }
}
