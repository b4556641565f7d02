//! The one error of every conversion: which field is wrong, and what to do about it.

use std::fmt;

/// A field that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the field from the message's root, such as `http[2].forward.clusters[0].weight`.
    pub field: String,
    /// What is wrong, and the remedy.
    pub problem: String,
}

impl Invalid {
    /// A problem with one field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// The same problem, seen from the message that holds `parent`.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        if self.field.is_empty() {
            self.field = parent.to_owned();
        } else if self.field.starts_with('[') {
            self.field = format!("{parent}{}", self.field);
        } else {
            self.field = format!("{parent}.{}", self.field);
        }
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for Invalid {}

/// Adds the parent's name to an error on its way out.
pub(crate) trait Under<T> {
    fn under(self, parent: &str) -> Result<T, Invalid>;
    fn under_index(self, parent: &str, index: usize) -> Result<T, Invalid>;
}

impl<T> Under<T> for Result<T, Invalid> {
    fn under(self, parent: &str) -> Self {
        self.map_err(|e| e.under(parent))
    }

    fn under_index(self, parent: &str, index: usize) -> Self {
        self.map_err(|e| e.under(&format!("{parent}[{index}]")))
    }
}

/// Converts each element, naming the index of the first that fails.
pub(crate) fn each<P, T>(field: &str, items: Vec<P>) -> Result<Vec<T>, Invalid>
where
    T: TryFrom<P, Error = Invalid>,
{
    items
        .into_iter()
        .enumerate()
        .map(|(i, item)| T::try_from(item).under_index(field, i))
        .collect()
}

/// A message field that must be there.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::new(field, "is missing"))
}

/// A port number, 1 to 65535.
pub(crate) fn port(field: &str, value: u32) -> Result<u16, Invalid> {
    match u16::try_from(value) {
        Ok(p) if p > 0 => Ok(p),
        _ => Err(Invalid::new(
            field,
            format!("{value} is not a port: use 1 to 65535"),
        )),
    }
}

/// A `u32` that must not be 0.
pub(crate) fn positive(field: &str, value: u32) -> Result<u32, Invalid> {
    if value == 0 {
        Err(Invalid::new(field, "must be at least 1"))
    } else {
        Ok(value)
    }
}

/// Milliseconds of a duration, as carried on the wire (whole milliseconds, at most 49 days).
pub(crate) fn to_ms(d: std::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// A duration that 0 switches off.
pub(crate) fn optional_ms(ms: u64) -> Option<std::time::Duration> {
    (ms > 0).then(|| std::time::Duration::from_millis(ms))
}
