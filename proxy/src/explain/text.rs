//! An explanation as text for people: a column of words, and what is said under each.

use std::fmt::{self, Display, Formatter};

use super::{Candidate, Explanation, Rule, Target};

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            request,
            dialled,
            destination,
            passed_over,
            passed_over_more,
            rule,
            outcome,
            clusters,
        } = self;
        line(f, "request", request)?;
        line(f, "dials", &format!("{dialled}: {destination}"))?;
        for rule in passed_over {
            passed(f, rule)?;
        }
        if *passed_over_more > 0 {
            line(f, "not", &format!("{passed_over_more} more rules"))?;
        }
        if let Some(Rule {
            name,
            because,
            policies,
        }) = rule
        {
            line(f, "rule", &format!("{name}: {}", because.join("; ")))?;
            for policy in policies {
                line(f, "", policy)?;
            }
        }
        line(f, "so it", outcome)?;
        clusters.iter().try_for_each(|cluster| target(f, cluster))
    }
}

fn passed(f: &mut Formatter<'_>, rule: &Rule) -> fmt::Result {
    let Rule { name, because, .. } = rule;
    match because.as_slice() {
        [one] => line(f, "not", &format!("{name}: {one}")),
        several => {
            line(f, "not", name)?;
            several
                .iter()
                .try_for_each(|one| line(f, "", &format!("  {one}")))
        }
    }
}

fn target(f: &mut Formatter<'_>, target: &Target) -> fmt::Result {
    let Target {
        name,
        share,
        mirror,
        sources,
        policies,
        absent,
        endpoints,
    } = target;
    writeln!(f)?;
    let copies = if *mirror { " gets copies of it" } else { "" };
    // As many digits as it needs.
    let share = (share * 10_000.0).round() / 10_000.0;
    line(f, &format!("{share} %"), &format!("{name}{copies}"))?;
    match sources.as_slice() {
        [] => line(f, "", "no DestinationRule: every policy is the default")?,
        some => line(f, "", &format!("as {} says:", some.join(" and ")))?,
    }
    for policy in policies {
        line(f, "", policy)?;
    }
    match (absent, endpoints.as_slice()) {
        (Some(why), _) => line(f, "", &format!("nothing to send it to: {why}")),
        (None, []) => line(f, "", "nothing to send it to: it has no endpoints"),
        (None, some) => some.iter().try_for_each(|endpoint| candidate(f, endpoint)),
    }
}

fn candidate(f: &mut Formatter<'_>, candidate: &Candidate) -> fmt::Result {
    let Candidate {
        address,
        pod,
        zone,
        weight,
        identity: _,
        breaker,
        ejected: _,
        active,
        standing,
        key,
    } = candidate;
    let zone = match zone.as_str() {
        "" => String::new(),
        zone => format!(", zone {zone}"),
    };
    let key = if *key { ", where its key leads" } else { "" };
    let told = format!(
        "{address} {pod}{zone}, weight {weight}, breaker {breaker}, {active} under way: {standing}{key}"
    );
    line(f, "->", &told)
}

fn line(f: &mut Formatter<'_>, word: &str, says: &str) -> fmt::Result {
    writeln!(f, "{word:>9}  {says}")
}
