//! Which matches of a route are worth a look for a request. Made once when a route activates, and only for routes with
//! many matches; `route::select` asks it. It only narrows down: every match it names is then looked at in full, so a
//! condition that the index does not know is none the worse, and the first match in order still decides.
//!
//! Each match is filed in one place: under the text that its path, its authority or one of its headers must equal, or
//! that its path must begin with, whichever it shares with the fewest others; without such a text, with the rest, which are
//! looked at for every request. A search is a few binary searches, then a look at what is filed under what was found.
//!
//! A match takes 24 bytes here, and its text once more.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::{HttpMatch, HttpRule, StringMatch};
use http::HeaderName;
use http::header::HOST;

use super::Facts;

mod keys;

use keys::{Case, Keys, Nested};

/// Up to here, looking at one match after the other costs less than a search.
const FEW: usize = 8;

/// The matches of a route, by what they want.
#[derive(Debug, Default)]
pub struct Index {
    /// In the order in which they decide. What is filed are positions in this.
    entries: Vec<Entry>,
    paths: Keys,
    paths_any_case: Keys,
    authorities: Keys,
    headers: Vec<(HeaderName, Keys)>,
    prefixes: Nested,
    prefixes_any_case: Nested,
    rest: Vec<u32>,
}

/// A match, or a rule that has none and takes every request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) rule: u32,
    pub(super) matched: Option<u32>,
}

/// Where a match may be filed, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place<'r> {
    Path,
    PathAnyCase,
    Authority,
    Header(&'r str),
    Prefix,
    PrefixAnyCase,
}

type Text<'r> = Cow<'r, str>;

impl Index {
    /// The index of a route, or `None` for a route with so few matches that it needs none.
    #[must_use]
    pub fn of(rules: &[HttpRule]) -> Option<Arc<Self>> {
        let matches: usize = rules.iter().map(|rule| rule.matches.len().max(1)).sum();
        (matches > FEW).then(|| Arc::new(Self::whole(rules)))
    }

    /// The index of a route, however few its matches.
    pub(super) fn whole(rules: &[HttpRule]) -> Self {
        let entries = entries(rules);
        let wanted = |entry: &Entry| Some(&rules[entry.rule as usize].matches[entry.matched? as usize]);
        let mut shared: HashMap<(Place<'_>, Text<'_>), u32> = HashMap::with_capacity(entries.len());
        for place in entries.iter().filter_map(wanted).flat_map(places) {
            *shared.entry(place).or_default() += 1;
        }
        let mut filed: BTreeMap<Place<'_>, Vec<(Text<'_>, u32)>> = BTreeMap::new();
        let mut rest = Vec::new();
        for (position, entry) in (0..).zip(&entries) {
            let places = wanted(entry).into_iter().flat_map(places);
            match places.min_by_key(|place| shared[place]) {
                Some((place, text)) => filed.entry(place).or_default().push((text, position)),
                None => rest.push(position),
            }
        }
        let mut index = Self {
            rest,
            ..Self::default()
        };
        for (place, filed) in filed {
            let keys = Keys::of(filed);
            match place {
                Place::Path => index.paths = keys,
                Place::PathAnyCase => index.paths_any_case = keys,
                Place::Authority => index.authorities = keys,
                Place::Header(name) => {
                    let name = HeaderName::from_bytes(name.as_bytes()).expect("it was a header's name");
                    index.headers.push((name, keys));
                }
                Place::Prefix => index.prefixes = Nested::of(keys),
                Place::PrefixAnyCase => index.prefixes_any_case = Nested::of(keys),
            }
        }
        index.entries = entries;
        index
    }

    /// The first entry that holds. `holds` is asked about those that may.
    pub(super) fn first(&self, facts: &Facts<'_>, holds: impl FnMut(Entry) -> bool) -> Option<Entry> {
        let mut search = Search {
            entries: &self.entries,
            best: u32::MAX,
            holds,
        };
        search.look(self.paths.equal(facts.path, Case::Counts));
        search.look(self.paths_any_case.equal(facts.path, Case::Disregarded));
        if let Some(authority) = facts.authority {
            search.look(self.authorities.equal(authority, Case::Disregarded));
        }
        for (name, keys) in &self.headers {
            let mut values = facts.headers.get_all(name).iter().peekable();
            if values.peek().is_none() && *name == HOST {
                let authority = facts.authority.unwrap_or_default();
                search.look(keys.equal(authority, Case::Counts));
            }
            // A value that is no text equals none.
            let values = values.filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
            values.for_each(|value| search.look(keys.equal(value, Case::Counts)));
        }
        for some in self.prefixes.of_text(facts.path, Case::Counts) {
            search.look(some);
        }
        for some in self.prefixes_any_case.of_text(facts.path, Case::Disregarded) {
            search.look(some);
        }
        search.look(&self.rest);
        self.entries.get(search.best as usize).copied()
    }
}

fn entries(rules: &[HttpRule]) -> Vec<Entry> {
    let number = |n: usize| u32::try_from(n).expect("a route is far smaller");
    let of_rule = |(rule, it): (usize, &HttpRule)| {
        let rule = number(rule);
        let each = (0..number(it.matches.len())).map(move |matched| Entry {
            rule,
            matched: Some(matched),
        });
        let all = Entry { rule, matched: None };
        each.chain(it.matches.is_empty().then_some(all))
    };
    rules.iter().enumerate().flat_map(of_rule).collect()
}

/// The first entry that holds, so far.
struct Search<'i, F> {
    entries: &'i [Entry],
    best: u32,
    holds: F,
}

impl<F: FnMut(Entry) -> bool> Search<'_, F> {
    fn look(&mut self, filed: &[u32]) {
        for position in filed {
            // Filed in order: what comes now is later than what holds already.
            if *position >= self.best {
                return;
            }
            if (self.holds)(self.entries[*position as usize]) {
                self.best = *position;
                return;
            }
        }
    }
}

/// Every place where a match may be filed.
fn places(wanted: &HttpMatch) -> impl Iterator<Item = (Place<'_>, Text<'_>)> {
    let any_case = wanted.ignore_uri_case;
    let path = wanted.uri.as_ref().and_then(|uri| match (uri, any_case) {
        (StringMatch::Exact(text), false) => Some((Place::Path, Cow::from(text))),
        (StringMatch::Exact(text), true) => Some((Place::PathAnyCase, lower(text))),
        (StringMatch::Prefix(text), false) => Some((Place::Prefix, Cow::from(text))),
        (StringMatch::Prefix(text), true) => Some((Place::PrefixAnyCase, lower(text))),
        (StringMatch::Regex(_) | StringMatch::Present, _) => None,
    });
    let authority = wanted.authority.as_ref().and_then(|authority| match authority {
        StringMatch::Exact(text) => Some((Place::Authority, lower(text))),
        StringMatch::Prefix(_) | StringMatch::Regex(_) | StringMatch::Present => None,
    });
    let headers = wanted.headers.iter().filter_map(|header| match &header.value {
        StringMatch::Exact(text) => Some((Place::Header(header.name.as_str()), Cow::from(text))),
        StringMatch::Prefix(_) | StringMatch::Regex(_) | StringMatch::Present => None,
    });
    path.into_iter().chain(authority).chain(headers)
}

fn lower(text: &str) -> Text<'_> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}
