//! The path of a field, as errors, findings and `kubectl explain` write it: `spec.http[0].route[1].weight`.
//! One spelling for the whole crate, so that a path from one part finds its place in another.

use std::fmt;

/// A path that borrows from the one above it, so that walking an object costs nothing until there is
/// something to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Ref<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Ref<'a> {
    Field(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    /// The path of a field at the top of an object.
    pub(crate) fn root(field: &'a str) -> Self {
        Self {
            parent: None,
            step: Ref::Field(field),
        }
    }

    /// A field of this object, or a key of this map.
    pub(crate) fn field(&'a self, field: &'a str) -> At<'a> {
        At {
            parent: Some(self),
            step: Ref::Field(field),
        }
    }

    /// An element of this list.
    pub(crate) fn index(&'a self, index: usize) -> At<'a> {
        At {
            parent: Some(self),
            step: Ref::Index(index),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Ref::Field(field) => write_field(f, self.parent.is_none(), field),
            Ref::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// One step of an owned path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A field of an object, or a key of a map.
    Field(String),
    /// An element of a list.
    Index(usize),
}

/// Writes an owned path.
pub fn display(steps: &[Step]) -> String {
    struct Steps<'a>(&'a [Step]);
    impl fmt::Display for Steps<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for (n, step) in self.0.iter().enumerate() {
                match step {
                    Step::Field(field) => write_field(f, n == 0, field)?,
                    Step::Index(index) => write!(f, "[{index}]")?,
                }
            }
            Ok(())
        }
    }
    Steps(steps).to_string()
}

/// Fields are joined by dots; keys that are not plain words, such as labels with a domain, stand quoted in
/// brackets.
fn write_field(f: &mut fmt::Formatter<'_>, first: bool, field: &str) -> fmt::Result {
    let plain = !field.is_empty()
        && field
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (plain, first) {
        (true, true) => f.write_str(field),
        (true, false) => write!(f, ".{field}"),
        (false, _) => {
            let short: String = field.chars().take(100).collect();
            write!(f, "[{short:?}]")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_path_are_written_alike() {
        let spec = At::root("spec");
        let (http, headers) = (spec.field("http"), "x-user");
        let rule = http.index(3);
        let map = rule.field("headers");
        assert_eq!(map.field(headers).to_string(), "spec.http[3].headers.x-user");
        assert_eq!(map.field("a.b/c").to_string(), r#"spec.http[3].headers["a.b/c"]"#);
        let field = |name: &str| Step::Field(name.to_owned());
        let owned = [
            field("spec"),
            field("http"),
            Step::Index(3),
            field("headers"),
            field("a.b/c"),
        ];
        assert_eq!(display(&owned), r#"spec.http[3].headers["a.b/c"]"#);
    }
}
