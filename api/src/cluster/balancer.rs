//! How one endpoint of a cluster is picked.

use crate::invalid::Invalid;
use crate::proto;

/// How one endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Balancer {
    /// One after the other, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The less busy of two taken by chance.
    LeastRequest,
    /// The one of two taken by chance whose expected latency, times its load, is lower.
    PeakEwma,
}

pub(super) fn from(pb: proto::Balancer) -> Result<Balancer, Invalid> {
    match pb {
        proto::Balancer::RoundRobin => Ok(Balancer::RoundRobin),
        proto::Balancer::Random => Ok(Balancer::Random),
        proto::Balancer::LeastRequest => Ok(Balancer::LeastRequest),
        proto::Balancer::PeakEwma => Ok(Balancer::PeakEwma),
        proto::Balancer::Unspecified => Err(Invalid::new("balancer", "is not one this build knows")),
    }
}

pub(super) fn to(balancer: Balancer) -> proto::Balancer {
    match balancer {
        Balancer::RoundRobin => proto::Balancer::RoundRobin,
        Balancer::Random => proto::Balancer::Random,
        Balancer::LeastRequest => proto::Balancer::LeastRequest,
        Balancer::PeakEwma => proto::Balancer::PeakEwma,
    }
}
