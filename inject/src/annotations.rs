//! The annotations with which a pod says how its proxy is to be: the one list of them, from which the guide's table is
//! made, and their reading. An annotation of ours that nobody knows is refused, because the alternative is a typing error
//! that quietly leaves a port in the mesh, or out of it.

use std::collections::BTreeMap;

use api::Invalid;
use api::names::{self, NAME_PREFIX};

use crate::config::Config;
use crate::quantity::Quantity;

/// An annotation of a pod.
#[derive(Debug, Clone, Copy)]
pub struct Annotation {
    /// Its whole name.
    pub name: &'static str,
    /// What may be written.
    pub values: &'static str,
    /// What it does.
    pub meaning: &'static str,
    apply: Apply,
}

type Apply = fn(&mut Config, &str) -> Result<(), String>;

/// The least memory that can be meant: below it a unit was forgotten.
const LEAST_MEMORY: u128 = 4 << 20;

/// Every annotation of a pod that injection knows, in the order of the guide.
pub const ANNOTATIONS: &[Annotation] = &[
    Annotation {
        name: names::INJECT_SWITCH,
        values: "`true`, `false`",
        meaning: "Whether the pod gets a proxy; also as a label. It goes before the label of the namespace.",
        apply: elsewhere,
    },
    Annotation {
        name: names::SKIP_OUTBOUND_PORTS_ANNOTATION,
        values: "ports, `25,8000-8010`",
        meaning: "Ports elsewhere that the pod calls without its proxy, besides those of the installation.",
        apply: |config, value| add(&mut config.skip_outbound_ports, value),
    },
    Annotation {
        name: names::SKIP_INBOUND_PORTS_ANNOTATION,
        values: "ports, `25,8000-8010`",
        meaning: "Ports of the pod that bypass its proxy, besides those of the installation. Callers must not use mutual TLS there.",
        apply: |config, value| add(&mut config.skip_inbound_ports, value),
    },
    Annotation {
        name: names::SKIP_OUTBOUND_CIDRS_ANNOTATION,
        values: "networks, `10.0.0.0/8,192.0.2.7`",
        meaning: "Networks that the pod calls without its proxy, besides those of the installation.",
        apply: |config, value| add(&mut config.skip_outbound_cidrs, value),
    },
    Annotation {
        name: names::SKIP_INBOUND_CIDRS_ANNOTATION,
        values: "networks, `10.0.0.0/8,192.0.2.7`",
        meaning: "Networks whose calls bypass the pod's proxy, besides those of the installation.",
        apply: |config, value| add(&mut config.skip_inbound_cidrs, value),
    },
    Annotation {
        name: names::PROXY_CPU_REQUEST_ANNOTATION,
        values: "cores, `100m` or `1`",
        meaning: "CPU that is set aside for the proxy.",
        apply: |config, value| some(&mut config.resources.requests.cpu, cpu(value)?),
    },
    Annotation {
        name: names::PROXY_CPU_LIMIT_ANNOTATION,
        values: "cores, `100m` or `1`",
        meaning: "CPU that the proxy may use at most. It gets as many workers as there are cores in it.",
        apply: |config, value| some(&mut config.resources.limits.cpu, cpu(value)?),
    },
    Annotation {
        name: names::PROXY_MEMORY_REQUEST_ANNOTATION,
        values: "bytes, `64Mi`",
        meaning: "Memory that is set aside for the proxy.",
        apply: |config, value| some(&mut config.resources.requests.memory, memory(value)?),
    },
    Annotation {
        name: names::PROXY_MEMORY_LIMIT_ANNOTATION,
        values: "bytes, `64Mi`",
        meaning: "Memory that the proxy may use at most.",
        apply: |config, value| some(&mut config.resources.limits.memory, memory(value)?),
    },
    Annotation {
        name: names::LOG_LEVEL_ANNOTATION,
        values: "`info`, or `info,proxy::outbound=debug`",
        meaning: "Filter of the proxy's log.",
        apply: |config, value| {
            config.log = value.parse()?;
            Ok(())
        },
    },
    Annotation {
        name: names::ACCESS_LOG_ANNOTATION,
        values: "`off`, `text`, `json`",
        meaning: "The proxy's access log.",
        apply: |config, value| {
            config.access_log = value.parse()?;
            Ok(())
        },
    },
    Annotation {
        name: names::PROXY_IMAGE_ANNOTATION,
        values: "an image with tag or digest",
        meaning: "Image of the proxy.",
        apply: |config, value| {
            config.image = image(value)?;
            Ok(())
        },
    },
    Annotation {
        name: names::DRAIN_DELAY_ANNOTATION,
        values: "a time, `5s`",
        meaning: "How long the proxy accepts connections after it was told to stop.",
        apply: |config, value| {
            config.drain_delay = value.parse()?;
            Ok(())
        },
    },
    Annotation {
        name: names::DRAIN_TIMEOUT_ANNOTATION,
        values: "a time, `20s`",
        meaning: "How long open connections may go on after that.",
        apply: |config, value| {
            config.drain_timeout = value.parse()?;
            Ok(())
        },
    },
    Annotation {
        name: names::WEIGHT_ANNOTATION,
        values: "1 to 1000",
        meaning: "The pod's share of traffic, relative to the other endpoints of its Service. Read by the operator; it may be changed while the pod runs.",
        apply: elsewhere,
    },
];

/// Labels of ours that pods have.
const LABELS: [&str; 2] = [names::INJECT_SWITCH, names::INJECTED_LABEL];

/// The installation's configuration with what a pod wants for itself.
pub(crate) fn overlay(
    config: &Config,
    annotations: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> Result<Config, Vec<Invalid>> {
    let mut config = config.clone();
    let mut problems = Vec::new();
    for (name, value) in annotations
        .iter()
        .filter(|(name, _)| name.starts_with(NAME_PREFIX))
    {
        let result = match ANNOTATIONS.iter().find(|a| a.name == name) {
            Some(known) => (known.apply)(&mut config, value.trim()),
            None => Err(unknown(name, "annotation", ANNOTATIONS.iter().map(|a| a.name))),
        };
        problems.extend(result.err().map(|problem| Invalid::new(field(name), problem)));
    }
    for name in labels.keys().filter(|name| name.starts_with(NAME_PREFIX)) {
        if LABELS.contains(&name.as_str()) {
            continue;
        }
        let problem = if ANNOTATIONS.iter().any(|a| a.name == name) {
            "is an annotation and does nothing as a label: move it to metadata.annotations".to_owned()
        } else {
            unknown(name, "label", LABELS.into_iter())
        };
        problems.push(Invalid::new(format!("metadata.labels[{name}]"), problem));
    }
    problems.extend(above_limit(&config));
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems)
    }
}

/// The name of an annotation's field in messages.
pub(crate) fn field(name: &str) -> String {
    format!("metadata.annotations[{name}]")
}

/// A request above its limit is refused by the API server, in words that do not lead to the annotation.
fn above_limit(config: &Config) -> Vec<Invalid> {
    let (requests, limits) = (&config.resources.requests, &config.resources.limits);
    let pairs = [
        (
            &requests.cpu,
            &limits.cpu,
            names::PROXY_CPU_REQUEST_ANNOTATION,
            names::PROXY_CPU_LIMIT_ANNOTATION,
        ),
        (
            &requests.memory,
            &limits.memory,
            names::PROXY_MEMORY_REQUEST_ANNOTATION,
            names::PROXY_MEMORY_LIMIT_ANNOTATION,
        ),
    ];
    let mut problems = Vec::new();
    for (request, limit, request_name, limit_name) in pairs {
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            let problem =
                format!("the request of {request} is above the limit of {limit}: set {limit_name} as well");
            problems.push(Invalid::new(field(request_name), problem));
        }
    }
    problems
}

/// Read by somebody else: the switch before injection, the weight by the operator.
#[allow(clippy::unnecessary_wraps)]
fn elsewhere(_: &mut Config, _: &str) -> Result<(), String> {
    Ok(())
}

#[allow(clippy::unnecessary_wraps)]
fn some<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    *place = Some(value);
    Ok(())
}

/// A list of the pod is added to the installation's: what an installation leaves alone it leaves alone everywhere.
fn add<T>(place: &mut T, value: &str) -> Result<(), String>
where
    T: std::str::FromStr<Err = api::SkipListError> + std::fmt::Display,
{
    // Parsed alone first, so that an error speaks of what the pod says.
    let own: T = value.parse().map_err(|e: api::SkipListError| e.to_string())?;
    *place = format!("{place},{own}")
        .parse()
        .map_err(|e: api::SkipListError| e.to_string())?;
    Ok(())
}

fn cpu(value: &str) -> Result<Quantity, String> {
    let cpu: Quantity = value.parse()?;
    if cpu.is_zero() {
        return Err("is no CPU at all: write for example 100m, or leave it out".to_owned());
    }
    Ok(cpu)
}

fn memory(value: &str) -> Result<Quantity, String> {
    let memory: Quantity = value.parse()?;
    if memory.rounded_up() < LEAST_MEMORY {
        return Err(format!(
            "{value} of memory are less than the proxy can start with: write 4Mi at least, with the unit"
        ));
    }
    Ok(memory)
}

fn image(value: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "./:@_-".contains(c);
    if value.is_empty()
        || !value.chars().all(allowed)
        || !value.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err(format!(
            "{value:?} is not the name of an image: write name:tag or name@digest"
        ));
    }
    Ok(value.to_owned())
}

fn unknown(name: &str, what: &str, known: impl Iterator<Item = &'static str>) -> String {
    let nearest = known
        .map(|known| (distance(name, known), known))
        .min()
        .filter(|(distance, _)| *distance <= 5);
    match nearest {
        Some((_, nearest)) => format!(
            "is not {what} of Hauberk's: did you mean {nearest}?",
            what = article(what)
        ),
        None => format!(
            "is not {what} of Hauberk's: remove it; docs/guide/injection.md lists those there are",
            what = article(what)
        ),
    }
}

fn article(what: &str) -> String {
    let an = if what.starts_with('a') { "an" } else { "a" };
    format!("{an} {what}")
}

/// How many letters must be added, removed or changed to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, c) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, d) in other.iter().enumerate() {
            let change = corner + usize::from(c != *d);
            corner = row[j + 1];
            row[j + 1] = change.min(corner + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests;
