//! `loadBalancer`: how endpoints are chosen.

use super::Report;
use crate::{
    destination_rule::{LoadBalancer, load_balancer::SimpleBalancer},
    path::At,
};

pub(super) fn load_balancer(report: &mut Report, at: At<'_>, balancer: &LoadBalancer) {
    let LoadBalancer {
        simple,
        consistent_hash,
        locality_lb_setting,
        zone_aware_lb_setting,
        warmup_duration_secs,
        warmup,
    } = balancer;
    if *simple == Some(SimpleBalancer::Passthrough) {
        report.unsupported(
            at.field("simple"),
            "PASSTHROUGH needs a caller that picks the address; use another",
        );
    }
    if simple.is_some() && consistent_hash.is_some() {
        report.error(at.field("consistentHash"), "cannot stand beside simple; keep one");
    }
    if locality_lb_setting.is_some() && zone_aware_lb_setting.is_some() {
        let message = "cannot stand beside localityLbSetting; keep one";
        report.error(at.field("zoneAwareLbSetting"), message);
    }
    for (field, set) in [
        ("consistentHash", consistent_hash.is_some()),
        ("localityLbSetting", locality_lb_setting.is_some()),
        ("zoneAwareLbSetting", zone_aware_lb_setting.is_some()),
        ("warmupDurationSecs", warmup_duration_secs.is_some()),
        ("warmup", warmup.is_some()),
    ] {
        report.unsupported_if(set, at.field(field), "remove it");
    }
}
