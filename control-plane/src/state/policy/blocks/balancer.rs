//! `loadBalancer`, in the contract's types.

use api::{Balancer, Invalid};
use crds::destination_rule::load_balancer::SimpleBalancer;
use crds::destination_rule::{self as crd};

use crate::state::rules::refuse;

pub(super) fn balancer(block: &crd::LoadBalancer) -> Result<Balancer, Invalid> {
    let crd::LoadBalancer {
        simple,
        consistent_hash,
        locality_lb_setting,
        zone_aware_lb_setting,
        warmup_duration_secs,
        warmup,
    } = block;
    refuse(&[("consistentHash", consistent_hash.is_some())])?;
    refuse(&[("localityLbSetting", locality_lb_setting.is_some())])?;
    refuse(&[("zoneAwareLbSetting", zone_aware_lb_setting.is_some())])?;
    refuse(&[("warmupDurationSecs", warmup_duration_secs.is_some())])?;
    refuse(&[("warmup", warmup.is_some())])?;
    match simple.unwrap_or_default() {
        SimpleBalancer::Unspecified | SimpleBalancer::LeastRequest | SimpleBalancer::LeastConn => {
            Ok(Balancer::LeastRequest)
        }
        SimpleBalancer::Random => Ok(Balancer::Random),
        SimpleBalancer::RoundRobin => Ok(Balancer::RoundRobin),
        SimpleBalancer::PeakEwma => Ok(Balancer::PeakEwma),
        SimpleBalancer::Passthrough => Err(Invalid::new("simple", "PASSTHROUGH is not supported yet")),
    }
}
