//! What is wrong with an object whose shape is right, and which of its fields do nothing yet. Shared by the
//! operator, which puts the findings into the object's status, and by admission, which refuses with them.
//!
//! Every struct is taken apart here field by field, without `..`: a field added to a shape does not compile
//! until this module says what becomes of it. Nothing is ever ignored in silence.

mod balancer;
mod cors;
mod fault;
mod l4;
mod locality;
mod matching;
mod mirror;
mod outcome;
mod peer;
mod policy;
mod pool;
mod rule;
mod shape;
mod text;
mod wire;

use std::fmt;

use crate::{
    destination_rule::DestinationRule, path::At, peer_authentication::PeerAuthentication,
    virtual_service::VirtualService, words::printable,
};

pub use text::{MAX_REGEX_LEN, MAX_REGEX_SIZE, MAX_REGEXES};

/// The most findings one object gets; what is beyond them is only counted.
pub const MAX_FINDINGS: usize = 100;

/// Something to know about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The field, such as `spec.http[0].route[1].weight`.
    pub field: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and what to do.
    pub message: String,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object works, but probably not as meant.
    Warning,
    /// The field is right, but does nothing here. The object is refused.
    Unsupported,
    /// The field is wrong. The object is refused.
    Error,
}

impl Severity {
    /// Whether an object with such a finding is refused.
    pub const fn refuses(self) -> bool {
        match self {
            Self::Warning => false,
            Self::Unsupported | Self::Error => true,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            severity,
            message,
        } = self;
        match severity {
            Severity::Warning => write!(f, "warning: {field}: {message}"),
            Severity::Unsupported | Severity::Error => write!(f, "{field}: {message}"),
        }
    }
}

/// Everything there is to say about a `VirtualService`; empty if it is fine.
pub fn virtual_service(object: &VirtualService) -> Vec<Finding> {
    let VirtualService {
        metadata: _,
        spec,
        status: _,
    } = object;
    let mut report = Report::default();
    rule::spec(&mut report, At::root("spec"), spec);
    report.finish()
}

/// Everything there is to say about a `DestinationRule`; empty if it is fine.
pub fn destination_rule(object: &DestinationRule) -> Vec<Finding> {
    let DestinationRule {
        metadata: _,
        spec,
        status: _,
    } = object;
    let mut report = Report::default();
    policy::spec(&mut report, At::root("spec"), spec);
    report.finish()
}

/// Everything there is to say about a `PeerAuthentication`; empty if it is fine.
pub fn peer_authentication(object: &PeerAuthentication) -> Vec<Finding> {
    let PeerAuthentication {
        metadata: _,
        spec,
        status: _,
    } = object;
    let mut report = Report::default();
    peer::spec(&mut report, At::root("spec"), spec);
    report.finish()
}

/// Collects findings while an object is walked.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    more: usize,
    worst_of_more: Option<Severity>,
    regexes: usize,
}

impl Report {
    fn error(&mut self, at: At<'_>, message: impl Into<String>) {
        self.add(Severity::Error, at, message.into());
    }

    fn warning(&mut self, at: At<'_>, message: impl Into<String>) {
        self.add(Severity::Warning, at, message.into());
    }

    fn unsupported(&mut self, at: At<'_>, remedy: &str) {
        self.add(Severity::Unsupported, at, format!("not supported yet; {remedy}"));
    }

    /// For a field that will stay refused, and why.
    fn refused(&mut self, at: At<'_>, reason: &str) {
        self.add(Severity::Unsupported, at, format!("not supported; {reason}"));
    }

    /// For a field that may be left out, or stand at its default, but nothing else.
    fn unsupported_if(&mut self, set: bool, at: At<'_>, remedy: &str) {
        if set {
            self.unsupported(at, remedy);
        }
    }

    fn add(&mut self, severity: Severity, at: At<'_>, message: String) {
        if self.findings.len() < MAX_FINDINGS {
            let message = printable(&message, 500);
            self.findings.push(Finding {
                field: at.to_string(),
                severity,
                message,
            });
        } else {
            self.more += 1;
            self.worst_of_more = self.worst_of_more.max(Some(severity));
        }
    }

    /// The findings, and in place of those beyond the most that are kept, one as bad as the worst of them.
    fn finish(self) -> Vec<Finding> {
        let Self {
            mut findings,
            more,
            worst_of_more,
            regexes: _,
        } = self;
        if let Some(severity) = worst_of_more {
            let message = format!("has {more} more findings; see to the ones above first");
            findings.push(Finding {
                field: "spec".to_owned(),
                severity,
                message,
            });
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_beyond_the_most_are_counted_and_keep_their_severity() {
        let mut report = Report::default();
        for _ in 0..MAX_FINDINGS {
            report.warning(At::root("spec"), "odd");
        }
        report.error(At::root("spec"), "wrong");
        report.warning(At::root("spec"), "odd");
        let findings = report.finish();
        let last = findings.last().unwrap();
        assert_eq!(
            (findings.len(), last.severity),
            (MAX_FINDINGS + 1, Severity::Error)
        );
        assert!(last.message.contains("2 more findings"), "{}", last.message);
    }
}
