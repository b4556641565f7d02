//! Names of resources: how they are written and read.

use crate::state::ServiceName;

/// Cluster, and Endpoints, of pods that are dialled by their own address and belong to no Service: every default.
pub const WORKLOAD_CLUSTER: &str = "workload";

/// `host:port`.
pub(super) fn service_port(service: &ServiceName, port: u16) -> String {
    format!("{service}:{port}")
}

/// `host:port`, or `host:port|subset`.
pub(super) fn subset(service: &ServiceName, port: u16, subset: Option<&str>) -> String {
    match subset {
        Some(subset) => format!("{service}:{port}|{subset}"),
        None => service_port(service, port),
    }
}

/// Reads `host:port`.
pub(super) fn read_service_port(name: &str) -> Result<(ServiceName, u16), String> {
    let read = || {
        let (host, port) = name.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        Some((ServiceName::from_full(host)?, port))
    };
    read().ok_or_else(|| format!("{name:?} is not of the form name.namespace.svc.cluster.local:port"))
}

/// Reads `host:port`, or `host:port|subset`.
pub(super) fn read_subset(name: &str) -> Result<(ServiceName, u16, Option<&str>), String> {
    let (base, subset) = match name.split_once('|') {
        Some((_, "")) => return Err(format!("{name:?} ends where a subset should stand")),
        Some((base, subset)) => (base, Some(subset)),
        None => (name, None),
    };
    let (service, port) = read_service_port(base)?;
    Ok((service, port, subset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_they_were_written() {
        let service = ServiceName::new("shop", "web");
        for of in [None, Some("v1")] {
            let written = subset(&service, 80, of);
            assert_eq!(read_subset(&written), Ok((service.clone(), 80, of)), "{written}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "",
            ":",
            "web:80",
            "web.shop.svc.cluster.local",
            "web.shop.svc.cluster.local:0",
        ] {
            assert!(read_service_port(bad).is_err(), "{bad:?}");
        }
        for bad in [
            "web.shop.svc.cluster.local:80|",
            "|v1",
            "web.shop.svc.cluster.local:99999|v1",
        ] {
            assert!(read_subset(bad).is_err(), "{bad:?}");
        }
    }
}
