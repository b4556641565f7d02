//! A folder, compiled for one caller: the world that the operator makes of it, the resources that the caller's proxy would
//! ask for, and the snapshot that the proxy would make of those.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use control_plane::compile::compile;
use control_plane::source::Change;
use control_plane::source::folder::{Content, Folder};
use control_plane::state::{Proxy, ServiceName, Verdict, World};
use crds::Object;
use proxy::config::Current;
use proxy::config::direct::Direct;
use proxy::explain;

use super::{Caller, Settings};
use crate::file;
use crate::settings::Format;

/// More names than that no request needs: it would be a circle.
const ROUNDS: usize = 16;

/// What would become of the request by the manifests of a folder.
pub(super) fn explain(settings: &Settings, path: &Path, from: &Caller) -> anyhow::Result<String> {
    let (host, port) = settings.target()?;
    let world = world(path)?;
    let (caller, address) = caller(&world, settings, from);
    let dialled = match settings.address {
        Some(address) => address,
        None => address_of(&world, host, port, &caller.namespace)?,
    };
    let current = Current::default();
    let mut direct = Direct::new(world.trust_domain(), current.clone());
    direct.want(dialled);
    for _ in 0..ROUNDS {
        if !tell(&mut direct, &world, &caller)? {
            break;
        }
    }
    let request = explain::request(settings.method.clone(), &settings.url, settings.headers())?;
    let told = explain::now(&current.load(), dialled, &request, address);
    Ok(match settings.output {
        Format::Text => format!("{:>9}  {}\n{told}", "from", described(&caller)),
        Format::Json => serde_json::to_string_pretty(&told)? + "\n",
    })
}

/// What the operator makes of the folder. What it does not take, and what has no effect, is told on the standard error.
fn world(path: &Path) -> anyhow::Result<Arc<World>> {
    let mut texts = Vec::new();
    for file in file::manifests(path)? {
        let text = file::read(&file)?;
        texts.push((file, Content::Text(text)));
    }
    let mut folder = Folder::default();
    let mut changes = folder.apply(texts);
    for problem in folder.problems() {
        eprintln!("{problem}");
    }
    addresses(&mut changes);
    let (world, _) = World::default().apply(changes);
    for object in world.objects() {
        let object_name = &object.reference;
        let verdict = match object.verdict {
            Verdict::Accepted => "",
            Verdict::Invalid | Verdict::ReferenceMissing => "not in force: ",
        };
        let findings = object.findings.iter().map(ToString::to_string);
        let odd = object.conflicts.iter().chain(&object.warnings).cloned();
        for says in findings.chain(odd) {
            eprintln!("{object_name}: {verdict}{says}");
        }
    }
    Ok(world)
}

/// Services that are written by people have no address yet; here each gets one of those set aside for trials.
fn addresses(changes: &mut [Change]) {
    let mut next = u32::from(Ipv4Addr::new(198, 18, 0, 1));
    for change in changes {
        let Change::Set(Object::Service(service)) = change else {
            continue;
        };
        let spec = service.spec.get_or_insert_default();
        if spec.cluster_ip.as_deref().is_none_or(str::is_empty)
            && spec.type_.as_deref() != Some("ExternalName")
        {
            spec.cluster_ip = Some(Ipv4Addr::from(next).to_string());
            next += 1;
        }
    }
}

/// The caller's proxy, as the operator sees it, and the pod's address.
fn caller(world: &World, settings: &Settings, from: &Caller) -> (Proxy, IpAddr) {
    let Caller { namespace, name } = from;
    let mut pods: Vec<_> = world.pods_in(namespace).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    let of_workload = |pod: &str| {
        pod.strip_prefix(name.as_str())
            .is_some_and(|rest| rest.starts_with('-'))
    };
    let exact = pods.iter().find(|pod| pod.name.name == *name);
    let pod = exact.or_else(|| pods.iter().find(|pod| of_workload(&pod.name.name)));
    let mut caller = match pod {
        Some(pod) => world.proxy(namespace, &pod.name.name, &pod.service_account),
        None => world.proxy(namespace, name, name),
    };
    if !settings.labels.is_empty() {
        caller.labels = settings.labels.iter().cloned().collect();
    }
    let address = pod.and_then(|pod| pod.addresses.first().copied());
    (caller, address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

fn described(caller: &Proxy) -> String {
    let labels = caller.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let labels: Vec<_> = labels.collect();
    let labels = match labels.as_slice() {
        [] => "without labels".to_owned(),
        some => format!("with {}", some.join(",")),
    };
    format!("{}/{} {labels}", caller.namespace, caller.pod)
}

/// The address that the DNS would give for a host.
fn address_of(world: &World, host: &str, port: u16, namespace: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
        return Ok(SocketAddr::new(ip, port));
    }
    let name = ServiceName::resolve(host, namespace);
    let service = name.as_ref().and_then(|name| world.service(name));
    let service = service.with_context(|| {
        format!("the folder has no Service {host} as {namespace} sees it; for a host outside, give --address")
    })?;
    let address = service.addresses.first().with_context(|| {
        format!(
            "Service {host} is headless: its pods are dialled by their own addresses, give one with --address"
        )
    })?;
    Ok(SocketAddr::new(*address, port))
}

/// Compiles what the proxy wants to be told; says whether it was anything.
fn tell(direct: &mut Direct, world: &World, caller: &Proxy) -> anyhow::Result<bool> {
    let wanted = direct.wanted().into_iter().filter(|name| match name.kind {
        api::Kind::Destination | api::Kind::Route | api::Kind::Cluster | api::Kind::Endpoints => true,
        // They are about those who call this pod.
        api::Kind::Inbound | api::Kind::TrustBundle => false,
    });
    let resources: Vec<_> = wanted
        .map(|name| compile(world, caller, &name).resource.into())
        .collect();
    if resources.is_empty() {
        return Ok(false);
    }
    let update = api::proto::Update { resources };
    let taken = direct.apply(update).map_err(anyhow::Error::msg);
    taken.context("the proxy would refuse what the operator compiled")?;
    Ok(true)
}
