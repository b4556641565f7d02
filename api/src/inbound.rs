//! What a proxy does with traffic that arrives for its pod.

use crate::invalid::{Invalid, each, port, required};
use crate::name::ObjectRef;
use crate::proto;
use crate::protocol::Protocol;

/// Which connections a pod takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsPolicy {
    /// Plaintext only.
    Disable,
    /// Mutual TLS and plaintext.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// What a proxy does with traffic that arrives for its pod. Resource name: `self`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// For ports without their own.
    pub policy: TlsPolicy,
    /// Ports that something is known of; each once.
    pub ports: Vec<InboundPort>,
    /// The objects that decided the policy.
    pub sources: Vec<ObjectRef>,
    /// Every other container of the pod has ended for good: nothing is left to serve.
    pub finished: bool,
}

/// What is known of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundPort {
    /// The pod's port.
    pub port: u16,
    /// Its own policy; `None` for the pod's.
    pub policy: Option<TlsPolicy>,
    /// What it is declared to speak; `None` to look at the first bytes.
    pub protocol: Option<Protocol>,
    /// Full name of the Service it belongs to; may be empty.
    pub service: String,
}

impl Inbound {
    /// The policy of a port.
    #[must_use]
    pub fn policy_of(&self, port: u16) -> TlsPolicy {
        self.port(port).and_then(|p| p.policy).unwrap_or(self.policy)
    }

    /// What is known of a port.
    #[must_use]
    pub fn port(&self, port: u16) -> Option<&InboundPort> {
        self.ports.iter().find(|p| p.port == port)
    }
}

fn policy_from(pb: proto::TlsPolicy) -> Option<TlsPolicy> {
    match pb {
        proto::TlsPolicy::Unspecified => None,
        proto::TlsPolicy::Disable => Some(TlsPolicy::Disable),
        proto::TlsPolicy::Permissive => Some(TlsPolicy::Permissive),
        proto::TlsPolicy::Strict => Some(TlsPolicy::Strict),
    }
}

fn policy_to(policy: Option<TlsPolicy>) -> i32 {
    let pb = match policy {
        None => proto::TlsPolicy::Unspecified,
        Some(TlsPolicy::Disable) => proto::TlsPolicy::Disable,
        Some(TlsPolicy::Permissive) => proto::TlsPolicy::Permissive,
        Some(TlsPolicy::Strict) => proto::TlsPolicy::Strict,
    };
    pb.into()
}

impl TryFrom<proto::Inbound> for Inbound {
    type Error = Invalid;

    fn try_from(pb: proto::Inbound) -> Result<Self, Invalid> {
        let policy = required("policy", policy_from(pb.policy()))?;
        let proto::Inbound {
            policy: _,
            ports,
            sources,
            finished,
        } = pb;
        let ports: Vec<InboundPort> = each("ports", ports)?;
        for (i, p) in ports.iter().enumerate() {
            if ports[..i].iter().any(|earlier| earlier.port == p.port) {
                return Err(Invalid::new(
                    format!("ports[{i}].port"),
                    format!("{} is listed twice", p.port),
                ));
            }
        }
        Ok(Self {
            policy,
            ports,
            sources: sources.into_iter().map(Into::into).collect(),
            finished,
        })
    }
}

impl From<Inbound> for proto::Inbound {
    fn from(
        Inbound {
            policy,
            ports,
            sources,
            finished,
        }: Inbound,
    ) -> Self {
        Self {
            policy: policy_to(Some(policy)),
            ports: ports.into_iter().map(Into::into).collect(),
            sources: sources.into_iter().map(Into::into).collect(),
            finished,
        }
    }
}

impl TryFrom<proto::InboundPort> for InboundPort {
    type Error = Invalid;

    fn try_from(pb: proto::InboundPort) -> Result<Self, Invalid> {
        let (policy, protocol) = (policy_from(pb.policy()), Protocol::from_proto(pb.protocol()));
        let proto::InboundPort {
            port: number,
            policy: _,
            protocol: _,
            service,
        } = pb;
        Ok(Self {
            port: port("port", number)?,
            policy,
            protocol,
            service,
        })
    }
}

impl From<InboundPort> for proto::InboundPort {
    fn from(
        InboundPort {
            port,
            policy,
            protocol,
            service,
        }: InboundPort,
    ) -> Self {
        Self {
            port: port.into(),
            policy: policy_to(policy),
            protocol: Protocol::to_proto(protocol),
            service,
        }
    }
}
