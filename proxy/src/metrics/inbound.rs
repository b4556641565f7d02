//! Metrics of the pod's own ports. The store makes them when the operator says which ports there are; a port that stays
//! keeps its numbers. Traffic to ports that nothing is known of is counted together, so that a port scan adds no series.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::count::{ByClass, ByGrpcStatus, Count, FamilyWriter};
use super::histogram::Histogram;
use crate::config::Current;

/// What is counted for one port of the pod.
#[derive(Debug, Default)]
pub struct InboundMetrics {
    /// Requests, by the status that the caller got.
    pub requests: ByClass,
    /// From the request's arrival to the end of its response.
    pub latency: Histogram,
    /// gRPC responses, by their status.
    pub grpc: ByGrpcStatus,
    /// Connections from peers with a verified identity.
    pub mutual_connections: Count,
    /// Connections without mutual TLS that were taken.
    pub plaintext_connections: Count,
    /// Connections without mutual TLS that were refused.
    pub refused_connections: Count,
    /// Bytes of bodies and streams received from callers.
    pub bytes_received: Count,
    /// Bytes of bodies and streams sent to callers.
    pub bytes_sent: Count,
}

/// The metrics of all ports.
#[derive(Debug, Clone, Default)]
pub struct InboundPorts {
    known: Arc<HashMap<u16, Port>>,
    other: Arc<InboundMetrics>,
}

#[derive(Debug)]
struct Port {
    label: String,
    service: String,
    metrics: Arc<InboundMetrics>,
}

impl InboundPorts {
    /// The metrics of a port.
    #[must_use]
    pub fn get(&self, port: u16) -> &Arc<InboundMetrics> {
        self.known.get(&port).map_or(&self.other, |p| &p.metrics)
    }

    /// The ports of `inbound`; those known already, for the same service, go on counting.
    pub(crate) fn of(&self, inbound: &api::Inbound) -> Self {
        let known = inbound.ports.iter().map(|port| {
            let before = self.known.get(&port.port).filter(|p| p.service == port.service);
            let entry = Port {
                label: port.port.to_string(),
                service: port.service.clone(),
                metrics: before.map(|p| Arc::clone(&p.metrics)).unwrap_or_default(),
            };
            (port.port, entry)
        });
        Self {
            known: Arc::new(known.collect()),
            other: Arc::clone(&self.other),
        }
    }

    fn each(&self) -> Vec<(Vec<(&'static str, &str)>, &InboundMetrics)> {
        let known = self.known.values();
        let known = known.map(|p| (p.label.as_str(), p.service.as_str(), &*p.metrics));
        known
            .chain([("other", "", &*self.other)])
            .map(|(port, service, metrics)| (vec![("port", port), ("service", service)], metrics))
            .collect()
    }
}

/// Walks the ports of the current snapshot.
#[derive(Debug)]
pub(super) struct Inbound(pub(super) Current);

impl Collector for Inbound {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let snapshot = self.0.load();
        let ports = snapshot.inbound_ports.each();
        let mut out = FamilyWriter::new(&mut encoder);
        out.counters(
            "hauberk_inbound_requests",
            "Requests to a port of this pod, by class of the status that the caller got",
            ports.iter().flat_map(|(labels, m)| {
                let counted = m.requests.each().filter(|(_, n)| *n > 0);
                counted.map(move |(class, n)| (and(labels, "class", class), n))
            }),
        )?;
        out.histograms(
            "hauberk_inbound_request_duration_seconds",
            "Time from a request's arrival to the end of its response",
            ports.iter().map(|(labels, m)| (labels.clone(), &m.latency)),
        )?;
        out.counters(
            "hauberk_inbound_grpc_responses",
            "gRPC responses of a port of this pod, by status code",
            ports.iter().flat_map(|(labels, m)| {
                let counted = m.grpc.each().filter(|(_, n)| *n > 0);
                counted.map(move |(status, n)| (and(labels, "grpc_status", status), n))
            }),
        )?;
        out.counters(
            "hauberk_inbound_connections",
            "Connections to a port of this pod: mutual TLS, plaintext, or plaintext refused by policy",
            ports.iter().flat_map(|(labels, m)| {
                [
                    ("mutual", &m.mutual_connections),
                    ("plaintext", &m.plaintext_connections),
                    ("refused", &m.refused_connections),
                ]
                .map(|(tls, count)| (and(labels, "tls", tls), count.get()))
            }),
        )?;
        out.counters(
            "hauberk_inbound_received_bytes",
            "Bytes of bodies and streams received from callers",
            ports
                .iter()
                .map(|(labels, m)| (labels.clone(), m.bytes_received.get())),
        )?;
        out.counters(
            "hauberk_inbound_sent_bytes",
            "Bytes of bodies and streams sent to callers",
            ports
                .iter()
                .map(|(labels, m)| (labels.clone(), m.bytes_sent.get())),
        )
    }
}

fn and<'a>(
    labels: &[(&'static str, &'a str)],
    label: &'static str,
    value: &'static str,
) -> Vec<(&'static str, &'a str)> {
    let mut all = labels.to_vec();
    all.push((label, value));
    all
}
