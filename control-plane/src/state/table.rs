//! A map whose copies share what they have in common: the parts of a `World`.
//!
//! A tree by the hash of the key: small leaves below branches of a fixed width. A copy of the table copies one pointer; a
//! change to the copy copies the way to one leaf, and that leaf. So the next world costs what changed, not what is known.
//! Equal tables have equal trees, whatever came and went: a branch stands where more is below it than a leaf may hold.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;

/// Bits of the hash that one branch goes by.
const BITS: u32 = 4;
/// Children of a branch.
const WIDTH: usize = 1 << BITS;
/// Keys that a leaf may hold.
const LEAF: usize = 32;
/// Below this many branches the hash is used up, and a leaf holds what there is.
const DEPTH: u32 = u64::BITS / BITS;

/// A map whose copies share what they have in common.
#[derive(Debug, Clone)]
pub(crate) struct Table<K, V> {
    root: Arc<Node<K, V>>,
}

#[derive(Debug, Clone)]
enum Node<K, V> {
    /// In the order of the keys.
    Leaf(Vec<(K, V)>),
    Branch {
        children: Vec<Arc<Node<K, V>>>,
        /// Keys below.
        len: usize,
    },
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            root: Arc::new(Node::Leaf(Vec::new())),
        }
    }
}

impl<K, V> Node<K, V> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(items) => items.len(),
            Self::Branch { len, .. } => *len,
        }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Node<K, V> {
    /// A node of these items, at this depth.
    fn of(items: Vec<(K, V)>, depth: u32) -> Self {
        if items.len() <= LEAF || depth == DEPTH {
            return Self::Leaf(items);
        }
        let len = items.len();
        let mut parts: Vec<Vec<(K, V)>> = (0..WIDTH).map(|_| Vec::new()).collect();
        for item in items {
            // One after another, so each part is in order too.
            parts[child_of(hash_of(&item.0), depth)].push(item);
        }
        let children = parts.into_iter().map(|part| Arc::new(Self::of(part, depth + 1)));
        Self::Branch {
            children: children.collect(),
            len,
        }
    }

    fn insert(&mut self, hash: u64, depth: u32, key: K, value: V) -> Option<V> {
        match self {
            Self::Leaf(items) => {
                match items.binary_search_by(|(k, _)| k.cmp(&key)) {
                    Ok(at) => return Some(std::mem::replace(&mut items[at].1, value)),
                    Err(at) => items.insert(at, (key, value)),
                }
                if items.len() > LEAF {
                    *self = Self::of(std::mem::take(items), depth);
                }
                None
            }
            Self::Branch { children, len } => {
                let child = Arc::make_mut(&mut children[child_of(hash, depth)]);
                let old = child.insert(hash, depth + 1, key, value);
                *len += usize::from(old.is_none());
                old
            }
        }
    }

    fn remove(&mut self, hash: u64, depth: u32, key: &K) -> Option<V> {
        match self {
            Self::Leaf(items) => {
                let at = items.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
                Some(items.remove(at).1)
            }
            Self::Branch { children, len } => {
                let child = Arc::make_mut(&mut children[child_of(hash, depth)]);
                let old = child.remove(hash, depth + 1, key);
                *len -= usize::from(old.is_some());
                if *len <= LEAF {
                    let mut items: Vec<(K, V)> =
                        Items::of(self).map(|(k, v)| (k.clone(), v.clone())).collect();
                    items.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                    *self = Self::Leaf(items);
                }
                old
            }
        }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Table<K, V> {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.root.len()
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let hash = hash_of(key);
        let mut node = &*self.root;
        let mut depth = 0;
        loop {
            match node {
                Node::Leaf(items) => {
                    let at = items.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
                    return Some(&items[at].1);
                }
                Node::Branch { children, .. } => node = &children[child_of(hash, depth)],
            }
            depth += 1;
        }
    }

    /// Whether the key is there.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, to change; nothing is copied when the key is not there.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if !self.contains(key) {
            return None;
        }
        let hash = hash_of(key);
        let mut node = Arc::make_mut(&mut self.root);
        let mut depth = 0;
        loop {
            match node {
                Node::Leaf(items) => {
                    let at = items.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
                    return Some(&mut items[at].1);
                }
                Node::Branch { children, .. } => node = Arc::make_mut(&mut children[child_of(hash, depth)]),
            }
            depth += 1;
        }
    }

    /// Sets the value of a key and returns the one it had.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        Arc::make_mut(&mut self.root).insert(hash_of(&key), 0, key, value)
    }

    /// Removes a key and returns its value.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        if !self.contains(key) {
            return None;
        }
        Arc::make_mut(&mut self.root).remove(hash_of(key), 0, key)
    }

    /// Every key and value, in no order that means anything (but the same for the same keys).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        Items::of(&self.root)
    }

    /// Every value.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

/// Every key and value below a node.
struct Items<'a, K, V> {
    /// Nodes that are still to be looked at, the next one last.
    open: Vec<&'a Node<K, V>>,
    leaf: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Items<'a, K, V> {
    fn of(node: &'a Node<K, V>) -> Self {
        Self {
            open: vec![node],
            leaf: [].iter(),
        }
    }
}

impl<'a, K, V> Iterator for Items<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            match self.open.pop()? {
                Node::Leaf(items) => self.leaf = items.iter(),
                Node::Branch { children, .. } => {
                    self.open.extend(children.iter().rev().map(|child| &**child))
                }
            }
        }
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

/// The same key has the same place in every process: `DefaultHasher` starts from fixed keys.
fn hash_of<K: Hash>(key: &K) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}

fn child_of(hash: u64, depth: u32) -> usize {
    let bits = hash >> (depth * BITS) & (WIDTH as u64 - 1);
    usize::try_from(bits).expect("fewer bits than a usize has")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Keys of leaves that the second node does not share with the first.
    fn copied<K, V>(one: &Arc<Node<K, V>>, two: &Arc<Node<K, V>>) -> usize {
        if Arc::ptr_eq(one, two) {
            return 0;
        }
        match (&**one, &**two) {
            (Node::Branch { children: a, .. }, Node::Branch { children: b, .. }) => {
                a.iter().zip(b).map(|(a, b)| copied(a, b)).sum()
            }
            _ => two.len(),
        }
    }

    #[test]
    fn a_change_to_a_copy_leaves_the_original_and_copies_one_leaf_however_large_the_table_is() {
        for size in [10, 1000, 50_000_u32] {
            let one = Table::from_iter((0..size).map(|n| (n, n)));
            let mut two = one.clone();
            two.insert(7, 70);
            assert!(copied(&one.root, &two.root) <= LEAF, "of {size}");
            two.remove(&8);
            assert!(copied(&one.root, &two.root) <= 2 * LEAF, "of {size}");
            let all = size as usize;
            assert_eq!((one.get(&7), one.get(&8), one.len()), (Some(&7), Some(&8), all));
            assert_eq!((two.get(&7), two.get(&8), two.len()), (Some(&70), None, all - 1));
        }
    }

    #[test]
    fn looking_for_what_is_not_there_copies_nothing() {
        let one = Table::from_iter([(1, 1)]);
        let mut two = one.clone();
        assert_eq!(two.get_mut(&2), None);
        assert_eq!(two.remove(&2), None);
        assert!(Arc::ptr_eq(&one.root, &two.root));
    }

    proptest! {
        /// Whatever came and went, it holds what a map would, and in the order of a table that was made at once.
        #[test]
        fn it_is_a_map_and_its_order_is_that_of_its_keys(
            changes in prop::collection::vec((0..200_u16, any::<bool>()), 0..600)
        ) {
            let (mut table, mut map) = (Table::default(), BTreeMap::new());
            for (n, (key, set)) in changes.into_iter().enumerate() {
                if set {
                    prop_assert_eq!(table.insert(key, n), map.insert(key, n));
                } else {
                    prop_assert_eq!(table.remove(&key), map.remove(&key));
                }
                prop_assert_eq!(table.len(), map.len());
                prop_assert_eq!(table.get_mut(&key), map.get_mut(&key));
            }
            for key in 0..200 {
                prop_assert_eq!(table.get(&key), map.get(&key));
            }
            let order: Vec<_> = table.iter().map(|(k, v)| (*k, *v)).collect();
            let made_at_once = Table::from_iter(map);
            prop_assert_eq!(order, made_at_once.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
        }
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
