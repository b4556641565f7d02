//! A YAML value whose maps remember the order of their keys, so that a document which is written anew reads as before.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// A text, a number, a truth value or nothing.
    Leaf(Value),
    /// A list.
    List(Vec<Node>),
    /// A map, in order.
    Map(Vec<(String, Node)>),
}

/// Keys that come first in a map which has no order of its own, as people write them.
const FIRST: [&str; 6] = ["apiVersion", "kind", "metadata", "name", "image", "spec"];

impl Node {
    /// The value without the order.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Leaf(value) => value.clone(),
            Self::List(list) => Value::Array(list.iter().map(Self::to_value).collect()),
            Self::Map(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), v.to_value())).collect()),
        }
    }

    /// `value` with its keys as they stand here; what is new comes behind.
    pub(super) fn in_order(&self, value: Value) -> Self {
        match (self, value) {
            (Self::Map(known), Value::Object(mut map)) => {
                let mut ordered = Vec::with_capacity(map.len());
                for (key, node) in known {
                    if let Some(value) = map.remove(key) {
                        ordered.push((key.clone(), node.in_order(value)));
                    }
                }
                ordered.extend(fresh(map));
                Self::Map(ordered)
            }
            (Self::List(known), Value::Array(list)) => {
                let counterpart = |index: usize, value: &Value| match value.get("name") {
                    Some(name) => known.iter().find(|node| node.name() == Some(name)),
                    None => known.get(index),
                };
                let ordered = list.into_iter().enumerate().map(|(index, value)| {
                    counterpart(index, &value)
                        .map_or_else(|| Self::of(value.clone()), |node| node.in_order(value.clone()))
                });
                Self::List(ordered.collect())
            }
            (_, value) => Self::of(value),
        }
    }

    fn of(value: Value) -> Self {
        match value {
            Value::Array(list) => Self::List(list.into_iter().map(Self::of).collect()),
            Value::Object(map) => Self::Map(fresh(map)),
            leaf => Self::Leaf(leaf),
        }
    }

    fn name(&self) -> Option<&Value> {
        let Self::Map(map) = self else { return None };
        map.iter().find_map(|(key, node)| match node {
            Self::Leaf(value) if key == "name" => Some(value),
            _ => None,
        })
    }
}

fn fresh(map: Map<String, Value>) -> Vec<(String, Node)> {
    let mut entries: Vec<_> = map
        .into_iter()
        .map(|(key, value)| (key, Node::of(value)))
        .collect();
    let rank = |key: &str| {
        FIRST
            .iter()
            .position(|first| *first == key)
            .unwrap_or(FIRST.len())
    };
    entries.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    entries
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        let number = serde_json::Number::from_f64(value);
        let number = number.ok_or_else(|| E::custom("a number that is not finite has no meaning here"))?;
        Ok(Node::Leaf(number.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        Node::deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        while let Some((key, node)) = map.next_entry()? {
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format!(
                    "{key} is written twice: remove one of them"
                )));
            }
            entries.push((key, node));
        }
        Ok(Node::Map(entries))
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Leaf(value) => value.serialize(to),
            Self::List(list) => list.serialize(to),
            Self::Map(entries) => {
                let mut map = to.serialize_map(Some(entries.len()))?;
                for (key, node) in entries {
                    map.serialize_entry(key, node)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn keys_stay_where_they_were_and_new_ones_follow() {
        let node: Node = serde_saphyr::from_str("z: 1\na: [{name: x, b: 1, a: 2}]\n").unwrap();
        let value = json!({"a": [{"name": "new", "zz": 1, "image": "i"}, {"a": 2, "b": 3, "name": "x"}], "z": 1, "b": 2});
        let written = serde_saphyr::to_string(&node.in_order(value)).unwrap();
        assert_eq!(
            written,
            "z: 1\na:\n- name: new\n  image: i\n  zz: 1\n- name: x\n  b: 3\n  a: 2\nb: 2\n"
        );
    }

    fn leaf() -> impl Strategy<Value = Value> {
        // Among them what another reader would take for something else when it is not quoted.
        let text = prop_oneof![
            "[ -~]{0,24}",
            "[ -~\n]{0,40}",
            prop::sample::select(vec![
                "yes",
                "no",
                "on",
                "off",
                "y",
                "n",
                "true",
                "null",
                "~",
                "0644",
                "0x1f",
                "1e3",
                "1_000",
                "12:30",
                ".inf",
                "2001-01-01",
                "<<",
                "- a",
                "a: b",
                "a #b",
                "'",
                "\"",
                "|",
                ">",
                "&a",
                "*a",
                "!t",
                "%d",
                "@",
                "`",
                "=",
                "\u{feff}",
                "\u{85}",
                "\t",
                " a",
                "a ",
                "\n",
                "a\n",
                "\n\na",
                "a\n\n",
                "  a\nb",
                "ä…",
            ])
            .prop_map(str::to_owned),
        ];
        prop_oneof![
            text.prop_map(|t| json!(t)),
            any::<i64>().prop_map(|n| json!(n)),
            any::<bool>().prop_map(|b| json!(b)),
            Just(Value::Null),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        leaf().prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[ -~]{1,8}|yes|0644", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in value()) {
            let written = serde_saphyr::to_string(&Node::of(value.clone())).unwrap();
            let options = serde_saphyr::options! { legacy_octal_numbers: true };
            let read: Option<Node> = serde_saphyr::from_str_with_options(&written, options).unwrap();
            let read = read.map_or(Value::Null, |node| node.to_value());
            prop_assert_eq!(read, value, "{}", written);
        }
    }
}
