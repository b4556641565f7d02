//! Changes to a header map: remove, then set, then add.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::invalid::{Invalid, Under};
use crate::proto;

/// Changes to a header map: remove, then set, then add.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderChanges {
    /// Takes the place of every value of that name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Joins the values of that name.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Goes, with every value.
    pub remove: Vec<HeaderName>,
}

impl HeaderChanges {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }

    pub(super) fn from_optional(pb: Option<proto::HeaderChanges>) -> Result<Self, Invalid> {
        pb.map_or_else(|| Ok(Self::default()), Self::try_from)
    }

    pub(super) fn into_optional(self) -> Option<proto::HeaderChanges> {
        if self.is_empty() { None } else { Some(self.into()) }
    }
}

/// Headers that frame the message or belong to one connection: changing them would break it.
const FRAMING: [&str; 7] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
];

fn header_name(name: &str) -> Result<HeaderName, Invalid> {
    let parsed = HeaderName::try_from(name)
        .map_err(|_| Invalid::new("name", format!("{name:?} is not a header name (RFC 9110, 5.1)")))?;
    if FRAMING.contains(&parsed.as_str()) {
        let remedy = if parsed == "host" {
            "use rewrite.authority"
        } else {
            "remove it from the list"
        };
        return Err(Invalid::new(
            "name",
            format!("`{parsed}` frames the message and cannot be changed: {remedy}"),
        ));
    }
    Ok(parsed)
}

fn header(pb: proto::Header) -> Result<(HeaderName, HeaderValue), Invalid> {
    let proto::Header { name, value } = pb;
    let parsed = header_name(&name)?;
    let value = HeaderValue::try_from(value).map_err(|_| {
        Invalid::new(
            "value",
            format!("of `{name}` has a character that headers cannot carry"),
        )
    })?;
    Ok((parsed, value))
}

fn list(field: &str, headers: Vec<proto::Header>) -> Result<Vec<(HeaderName, HeaderValue)>, Invalid> {
    headers
        .into_iter()
        .enumerate()
        .map(|(i, h)| header(h).under_index(field, i))
        .collect()
}

impl TryFrom<proto::HeaderChanges> for HeaderChanges {
    type Error = Invalid;

    fn try_from(proto::HeaderChanges { set, add, remove }: proto::HeaderChanges) -> Result<Self, Invalid> {
        let remove = remove
            .into_iter()
            .enumerate()
            .map(|(i, name)| header_name(&name).map_err(|e| Invalid::new(format!("remove[{i}]"), e.problem)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            set: list("set", set)?,
            add: list("add", add)?,
            remove,
        })
    }
}

impl From<HeaderChanges> for proto::HeaderChanges {
    fn from(HeaderChanges { set, add, remove }: HeaderChanges) -> Self {
        let pb = |(name, value): (HeaderName, HeaderValue)| proto::Header {
            name: name.as_str().to_owned(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        Self {
            set: set.into_iter().map(pb).collect(),
            add: add.into_iter().map(pb).collect(),
            remove: remove.into_iter().map(|name| name.as_str().to_owned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_then_set_then_added() {
        let header = |name: &str, value: &str| proto::Header {
            name: name.into(),
            value: value.into(),
        };
        let changes = HeaderChanges::try_from(proto::HeaderChanges {
            set: vec![header("a", "set")],
            add: vec![header("a", "added"), header("b", "added")],
            remove: vec!["b".into(), "c".into()],
        })
        .unwrap();
        let mut headers = HeaderMap::new();
        for name in ["a", "b", "c"] {
            headers.insert(name, HeaderValue::from_static("old"));
        }
        changes.apply(&mut headers);
        let values = |name: &str| {
            headers
                .get_all(name)
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(values("a"), ["set", "added"]);
        assert_eq!(values("b"), ["added"]);
        assert!(values("c").is_empty());
    }

    #[test]
    fn framing_headers_are_left_alone() {
        for name in ["Content-Length", "transfer-encoding", "host", "Connection"] {
            let pb = proto::HeaderChanges {
                remove: vec![name.into()],
                ..Default::default()
            };
            let err = HeaderChanges::try_from(pb).unwrap_err();
            assert_eq!(err.field, "remove[0]");
        }
    }
}
