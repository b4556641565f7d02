//! The lab's name service: what a pod's resolver would answer.
//!
//! Filled by the lab as services and pods appear, read by clients in pods before they dial.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use anyhow::Context;

/// Names and addresses, shared by all pods of a lab.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<RwLock<BTreeMap<String, IpAddr>>>);

impl Names {
    /// Adds `name` of `namespace`.
    pub(super) fn add(&self, name: &str, namespace: &str, address: IpAddr) {
        let mut table = self.0.write().expect("no code panics while it holds this lock");
        table.insert(format!("{name}.{namespace}"), address);
    }

    /// Forgets `name` of `namespace`.
    pub(super) fn remove(&self, name: &str, namespace: &str) {
        self.0
            .write()
            .expect("no code panics while it holds this lock")
            .remove(&format!("{name}.{namespace}"));
    }

    /// Finds `name` as a pod in `namespace` would: short, with its namespace, or in full; addresses stand for themselves.
    pub(super) fn resolve(&self, name: &str, namespace: &str) -> anyhow::Result<IpAddr> {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse() {
            return Ok(address);
        }
        if name == "localhost" {
            return Ok(IpAddr::from([127, 0, 0, 1]));
        }
        let short = name.strip_suffix(".cluster.local").unwrap_or(name);
        let short = short.strip_suffix(".svc").unwrap_or(short);
        let table = self.0.read().expect("no code panics while it holds this lock");
        let found = table
            .get(&format!("{short}.{namespace}"))
            .or_else(|| table.get(short));
        found.copied().with_context(|| {
            let known: Vec<&str> = table.keys().map(String::as_str).collect();
            format!(
                "no service or pod is called {name} in namespace {namespace}; there are: {}",
                known.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_under_every_name_it_has() {
        let names = Names::default();
        let address: IpAddr = "10.96.0.10".parse().unwrap();
        names.add("reviews", "shop", address);
        for name in [
            "reviews",
            "reviews.shop",
            "reviews.shop.svc",
            "reviews.shop.svc.cluster.local",
        ] {
            assert_eq!(names.resolve(name, "shop").unwrap(), address, "{name}");
        }
        assert_eq!(names.resolve("reviews.shop", "other").unwrap(), address);
        let error = names.resolve("reviews", "other").unwrap_err().to_string();
        assert!(error.contains("reviews.shop"), "{error}");
        names.remove("reviews", "shop");
        assert!(names.resolve("reviews", "shop").is_err());
    }

    #[test]
    fn addresses_stand_for_themselves_with_and_without_brackets() {
        let names = Names::default();
        assert_eq!(names.resolve("10.1.2.3", "shop").unwrap().to_string(), "10.1.2.3");
        assert_eq!(names.resolve("[fd77::2]", "shop").unwrap().to_string(), "fd77::2");
        assert_eq!(
            names.resolve("localhost", "shop").unwrap().to_string(),
            "127.0.0.1"
        );
    }
}
