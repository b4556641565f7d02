//! Which of two objects is the older: where two claim the same thing, the older has it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::host::ObjectName;

/// Orders objects from old to young: by creation time, then by namespace and name. An object without a creation time,
/// as in most files, is younger than any that has one; so among files the order is that of names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Age {
    undated: bool,
    created: i128,
    /// The object's namespace.
    pub(crate) namespace: String,
    /// The object's name.
    pub(crate) name: String,
}

impl Age {
    /// The object.
    pub(crate) fn object(&self) -> ObjectName {
        ObjectName::new(&self.namespace, &self.name)
    }

    /// The age of the object with this metadata.
    pub(crate) fn of(metadata: &ObjectMeta) -> Self {
        let created = metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.as_nanosecond());
        Self {
            undated: created.is_none(),
            created: created.unwrap_or_default(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_first_then_by_name_and_undated_last() {
        let age = |text: &str| Age::of(&serde_saphyr::from_str(text).unwrap());
        let ordered = [
            age("{name: z, creationTimestamp: 2026-01-01T00:00:00Z}"),
            age("{name: a, creationTimestamp: 2026-01-02T00:00:00Z}"),
            age("{name: b, creationTimestamp: 2026-01-02T00:00:00Z}"),
            age("{name: z, namespace: a}"),
            age("{name: a, namespace: b}"),
        ];
        assert!(ordered.is_sorted());
    }
}
