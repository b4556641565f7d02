//! The cluster's DNS: what dnsmasq answers, kept as the API server has it.
//!
//! [`Node`](super::Node) runs [`follow`] beside everything else. What the names are is a pure function of Services and
//! Endpoints; dnsmasq reads the result again whenever it changes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;

/// Behind the name and namespace of every Service.
const SUFFIX: &str = "svc.cluster.local";

/// The two files that dnsmasq reads.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Records {
    /// A line for each address of a name: it reads these again when told to.
    hosts: BTreeSet<String>,
    /// A line for each name that stands for another: it reads these when it starts.
    aliases: BTreeSet<String>,
}

/// What dnsmasq has to do about a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    Hosts,
    Aliases,
}

/// Where they are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) hosts: PathBuf,
    pub(super) aliases: PathBuf,
}

impl Files {
    /// The files in `folder`, still without names.
    pub(super) fn create(folder: &Path) -> anyhow::Result<Files> {
        let files = Files {
            hosts: folder.join("dns-hosts"),
            aliases: folder.join("dns-aliases"),
        };
        files.write(&Records::default())?;
        Ok(files)
    }

    fn write(&self, records: &Records) -> anyhow::Result<()> {
        for (path, lines) in [(&self.hosts, &records.hosts), (&self.aliases, &records.aliases)] {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Keeps the files as the API server has Services and Endpoints, and sends word of each change. Ends when nobody listens.
pub(super) async fn follow(client: Client, files: Files, changes: mpsc::UnboundedSender<Change>) {
    let (services, services_writer) = reflector::store::<Service>();
    let (endpoints, endpoints_writer) = reflector::store::<Endpoints>();
    let of_services = watcher(Api::<Service>::all(client.clone()), watcher::Config::default());
    let of_endpoints = watcher(Api::<Endpoints>::all(client), watcher::Config::default());
    let mut events = Box::pin(stream::select(
        of_services
            .default_backoff()
            .reflect(services_writer)
            .map(|event| event.map(drop)),
        of_endpoints
            .default_backoff()
            .reflect(endpoints_writer)
            .map(|event| event.map(drop)),
    ));
    let mut last = Records::default();
    while let Some(event) = events.next().await {
        // The API server is restarted by tests; the watch begins anew by itself.
        if event.is_err() {
            continue;
        }
        let records = records(
            services.state().iter().map(AsRef::as_ref),
            endpoints.state().iter().map(AsRef::as_ref),
        );
        if records == last {
            continue;
        }
        let change = if records.aliases == last.aliases {
            Change::Hosts
        } else {
            Change::Aliases
        };
        if let Err(error) = files.write(&records) {
            eprintln!("e2e: dns: {error:#}");
        }
        if changes.send(change).is_err() {
            return;
        }
        last = records;
    }
}

fn records<'a>(
    services: impl Iterator<Item = &'a Service>,
    endpoints: impl Iterator<Item = &'a Endpoints>,
) -> Records {
    let mut records = Records::default();
    let mut headless = BTreeSet::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let full = full_name(service);
        if spec.type_.as_deref() == Some("ExternalName") {
            if let Some(target) = &spec.external_name {
                records.aliases.insert(format!("cname={full},{target}"));
            }
            continue;
        }
        let addresses = spec
            .cluster_ips
            .clone()
            .unwrap_or_else(|| spec.cluster_ip.clone().into_iter().collect());
        for address in addresses {
            if address == "None" {
                headless.insert(full.clone());
            } else if let Ok(address) = address.parse::<IpAddr>() {
                records.hosts.insert(format!("{address} {full}"));
            }
        }
    }
    for endpoints in endpoints {
        let full = full_name(endpoints);
        if !headless.contains(&full) {
            continue;
        }
        let subsets = endpoints.subsets.iter().flatten();
        for address in subsets.flat_map(|subset| subset.addresses.iter().flatten()) {
            let own = own_name(address);
            records
                .hosts
                .insert(format!("{} {full} {own}.{full}", address.ip));
        }
    }
    records
}

/// The name of one address of a headless Service: the pod's host name where it has one, as those of a StatefulSet do.
fn own_name(address: &EndpointAddress) -> String {
    let dashed = || address.ip.replace(['.', ':'], "-");
    address.hostname.clone().unwrap_or_else(dashed)
}

fn full_name(object: &impl ResourceExt) -> String {
    let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
    format!("{}.{namespace}.{SUFFIX}", object.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(services: &[Value], endpoints: &[Value]) -> (Vec<String>, Vec<String>) {
        let services: Vec<Service> = services
            .iter()
            .map(|v| serde_json::from_value(v.clone()).unwrap())
            .collect();
        let endpoints: Vec<Endpoints> = endpoints
            .iter()
            .map(|v| serde_json::from_value(v.clone()).unwrap())
            .collect();
        let Records { hosts, aliases } = records(services.iter(), endpoints.iter());
        (hosts.into_iter().collect(), aliases.into_iter().collect())
    }

    fn service(name: &str, spec: &Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    }

    fn endpoints(name: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "shop"}, "subsets": [{
            "addresses": [{"ip": "10.244.0.2", "hostname": "db-0"}, {"ip": "10.244.0.3"}],
            "notReadyAddresses": [{"ip": "10.244.0.4"}],
        }]})
    }

    #[test]
    fn a_service_has_its_cluster_addresses_and_a_headless_one_those_of_its_ready_pods() {
        let services = [
            service("web", &json!({"clusterIP": "10.96.0.7"})),
            service("both", &json!({"clusterIPs": ["10.96.0.8", "fd96::8"]})),
            service("db", &json!({"clusterIP": "None"})),
        ];
        let (hosts, aliases) = of(&services, &[endpoints("db"), endpoints("web"), endpoints("gone")]);
        assert_eq!(
            hosts,
            [
                "10.244.0.2 db.shop.svc.cluster.local db-0.db.shop.svc.cluster.local",
                "10.244.0.3 db.shop.svc.cluster.local 10-244-0-3.db.shop.svc.cluster.local",
                "10.96.0.7 web.shop.svc.cluster.local",
                "10.96.0.8 both.shop.svc.cluster.local",
                "fd96::8 both.shop.svc.cluster.local",
            ]
        );
        assert!(aliases.is_empty());
    }

    #[test]
    fn an_external_name_is_an_alias() {
        let spec = json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"});
        let (hosts, aliases) = of(&[service("old", &spec)], &[]);
        assert!(hosts.is_empty());
        assert_eq!(
            aliases,
            ["cname=old.shop.svc.cluster.local,web.shop.svc.cluster.local"]
        );
    }
}
