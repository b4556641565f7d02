//! `VirtualService`: copies of requests.

use super::{Report, l4, shape::percent};
use crate::{
    path::At,
    virtual_service::{
        Destination, MAX_MIRRORS,
        resilience::{Mirror, Percent},
    },
};

/// The four fields of a rule that speak of mirrors.
pub(super) fn mirrors(
    report: &mut Report,
    at: At<'_>,
    mirror: Option<&Destination>,
    mirrors: &[Mirror],
    whole: Option<u32>,
    percentage: Option<&Percent>,
) {
    if let Some(mirror) = mirror {
        l4::destination(report, at.field("mirror"), mirror);
        if !mirrors.is_empty() {
            report.error(
                at.field("mirrors"),
                "cannot stand beside mirror; put that into mirrors too",
            );
        }
    }
    if mirrors.len() > MAX_MIRRORS {
        let len = mirrors.len();
        report.error(
            at.field("mirrors"),
            format!("has {len} mirrors; {MAX_MIRRORS} is the most"),
        );
    }
    for (n, mirror) in mirrors.iter().enumerate() {
        let Mirror {
            destination,
            percentage,
        } = mirror;
        let at = at.field("mirrors");
        let at = at.index(n);
        l4::destination(report, at.field("destination"), destination);
        share(report, at.field("percentage"), percentage.as_ref());
    }
    share(report, at.field("mirrorPercentage"), percentage);
    percent(report, at.field("mirrorPercent"), whole.map(f64::from));
    for (field, set) in [
        ("mirrorPercentage", percentage.is_some()),
        ("mirrorPercent", whole.is_some()),
    ] {
        if set && mirror.is_none() {
            let remedy = match mirrors.is_empty() {
                true => "remove it",
                false => "give each of mirrors its percentage",
            };
            report.warning(at.field(field), format!("has no effect without mirror; {remedy}"));
        }
    }
    if mirror.is_some() && whole.is_some() && percentage.is_some() {
        report.warning(
            at.field("mirrorPercent"),
            "has no effect beside mirrorPercentage; remove it",
        );
    }
}

fn share(report: &mut Report, at: At<'_>, percentage: Option<&Percent>) {
    if let Some(Percent { value }) = percentage {
        percent(report, at.field("value"), Some(*value));
    }
}
