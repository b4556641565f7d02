//! A map whose copies share what they have in common: the parts of a `World`.
//!
//! Keys are spread over a fixed number of small ordered maps. A copy of the table copies pointers; a change to the copy
//! copies the one small map it falls into. So the next world costs what changed, not what is known.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;

const SHARDS: usize = 64;

/// A map whose copies share what they have in common.
#[derive(Debug, Clone)]
pub(crate) struct Table<K, V> {
    /// Empty until the first insertion, then `SHARDS` long.
    shards: Vec<Arc<BTreeMap<K, V>>>,
    len: usize,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            shards: Vec::new(),
            len: 0,
        }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Table<K, V> {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.shards.get(shard_of(key))?.get(key)
    }

    /// Whether the key is there.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, to change; nothing is copied when the key is not there.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let shard = self.shards.get_mut(shard_of(key))?;
        if !shard.contains_key(key) {
            return None;
        }
        Arc::make_mut(shard).get_mut(key)
    }

    /// Sets the value of a key and returns the one it had.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let old = self.shard(&key).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes a key and returns its value.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        if !self.contains(key) {
            return None;
        }
        let old = self.shard(key).remove(key);
        self.len -= usize::from(old.is_some());
        old
    }

    /// Every key and value, in no order that means anything (but the same for the same keys).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// Every value.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    fn shard(&mut self, key: &K) -> &mut BTreeMap<K, V> {
        if self.shards.is_empty() {
            // All the same empty map, until one is written to.
            let empty = Arc::new(BTreeMap::new());
            self.shards = vec![empty; SHARDS];
        }
        Arc::make_mut(&mut self.shards[shard_of(key)])
    }
}

/// An index from a key to the things that belong to it. A key without things is not there.
impl<K: Ord + Hash + Clone, T: Ord + Clone> Table<K, BTreeSet<T>> {
    /// Adds a thing to a key.
    pub(crate) fn link(&mut self, key: &K, thing: T) {
        match self.get_mut(key) {
            Some(set) => {
                set.insert(thing);
            }
            None => {
                self.insert(key.clone(), BTreeSet::from([thing]));
            }
        }
    }

    /// Takes a thing from a key.
    pub(crate) fn unlink(&mut self, key: &K, thing: &T) {
        let Some(set) = self.get_mut(key) else { return };
        set.remove(thing);
        if set.is_empty() {
            self.remove(key);
        }
    }

    /// The things of a key, in order.
    pub(crate) fn linked<'a>(&'a self, key: &K) -> impl DoubleEndedIterator<Item = &'a T> + use<'a, K, T> {
        self.get(key).into_iter().flatten()
    }
}

/// Things by namespace and name.
#[derive(Debug, Clone)]
pub(crate) struct Namespaced<V> {
    namespaces: Table<String, Table<String, V>>,
}

impl<V> Default for Namespaced<V> {
    fn default() -> Self {
        Self {
            namespaces: Table::default(),
        }
    }
}

impl<V: Clone> Namespaced<V> {
    /// The thing of this name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&V> {
        self.namespaces.get(&namespace.to_owned())?.get(&name.to_owned())
    }

    /// Sets or removes the thing of this name and returns the one there was.
    pub(crate) fn set(&mut self, namespace: &str, name: &str, value: Option<V>) -> Option<V> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        match value {
            Some(value) => {
                if !self.namespaces.contains(&namespace) {
                    self.namespaces.insert(namespace.clone(), Table::default());
                }
                self.namespaces.get_mut(&namespace)?.insert(name, value)
            }
            None => {
                let table = self.namespaces.get_mut(&namespace)?;
                let old = table.remove(&name);
                if table.len() == 0 {
                    self.namespaces.remove(&namespace);
                }
                old
            }
        }
    }

    /// The things of one namespace, in no order that means anything.
    pub(crate) fn within(&self, namespace: &str) -> impl Iterator<Item = &V> {
        self.namespaces
            .get(&namespace.to_owned())
            .into_iter()
            .flat_map(Table::values)
    }

    /// Every thing, in no order that means anything.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.namespaces.values().flat_map(Table::values)
    }
}

/// The same key falls into the same shard in every process: `DefaultHasher` starts from fixed keys.
fn shard_of<K: Hash>(key: &K) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    usize::try_from(hash % SHARDS as u64).expect("a remainder of 64 fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_to_a_copy_leaves_the_original_and_shares_the_rest() {
        let mut one = Table::default();
        for n in 0..1000_u32 {
            one.insert(n, n);
        }
        let mut two = one.clone();
        two.insert(7, 70);
        two.remove(&8);
        assert_eq!((one.get(&7), one.get(&8), one.len()), (Some(&7), Some(&8), 1000));
        assert_eq!((two.get(&7), two.get(&8), two.len()), (Some(&70), None, 999));
        let shared = one
            .shards
            .iter()
            .zip(&two.shards)
            .filter(|(a, b)| Arc::ptr_eq(a, b))
            .count();
        assert!(shared >= SHARDS - 2, "{shared} shards are shared");
    }

    #[test]
    fn looking_for_what_is_not_there_copies_nothing() {
        let one = Table::from_iter([(1, 1)]);
        let mut two = one.clone();
        assert_eq!(two.get_mut(&2), None);
        assert_eq!(two.remove(&2), None);
        assert!(one.shards.iter().zip(&two.shards).all(|(a, b)| Arc::ptr_eq(a, b)));
    }

    #[test]
    fn a_key_without_things_is_gone() {
        let mut table = Table::default();
        table.link(&"k", 1);
        table.link(&"k", 2);
        table.unlink(&"k", &1);
        assert_eq!(table.linked(&"k").collect::<Vec<_>>(), [&2]);
        table.unlink(&"k", &2);
        table.unlink(&"k", &2);
        assert_eq!(table.len(), 0);
    }

    impl<K: Ord + Hash + Clone, V: Clone> FromIterator<(K, V)> for Table<K, V> {
        fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
            let mut table = Self::default();
            for (key, value) in items {
                table.insert(key, value);
            }
            table
        }
    }
}
