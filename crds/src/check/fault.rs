//! `VirtualService`: faults that a rule injects on purpose.

use super::{
    Report,
    shape::{at_least_a_millisecond, percent},
};
use crate::{
    path::At,
    virtual_service::resilience::{Fault, FaultAbort, FaultDelay, Percent, grpc_code},
};

pub(super) fn fault(report: &mut Report, at: At<'_>, fault: &Fault) {
    let Fault { delay, abort } = fault;
    if delay.is_none() && abort.is_none() {
        report.error(at, "has neither delay nor abort; give it one, or remove it");
    }
    if let Some(delay) = delay {
        self::delay(report, at.field("delay"), delay);
    }
    if let Some(abort) = abort {
        self::abort(report, at.field("abort"), abort);
    }
}

fn delay(report: &mut Report, at: At<'_>, delay: &FaultDelay) {
    let FaultDelay {
        fixed_delay,
        exponential_delay,
        percentage,
        percent: whole,
    } = delay;
    at_least_a_millisecond(report, at.field("fixedDelay"), *fixed_delay);
    if exponential_delay.is_some() {
        report.refused(
            at.field("exponentialDelay"),
            "a delay is the same for all requests that get one, so that a test can be repeated; use fixedDelay",
        );
    } else if fixed_delay.is_none() {
        report.error(at.field("fixedDelay"), "is needed; write how long, such as 5s");
    }
    if let Some(Percent { value }) = percentage {
        percent(report, at.field("percentage").field("value"), Some(*value));
    }
    match (whole, percentage) {
        (Some(_), Some(_)) => {
            report.warning(at.field("percent"), "has no effect beside percentage; remove it")
        }
        (Some(101..), None) => percent(report, at.field("percent"), whole.map(f64::from)),
        (Some(_), None) | (None, Some(_)) => {}
        (None, None) => without_share(report, at),
    }
}

fn abort(report: &mut Report, at: At<'_>, abort: &FaultAbort) {
    let FaultAbort {
        http_status,
        grpc_status,
        http2_error,
        percentage,
    } = abort;
    if http2_error.is_some() {
        report.refused(
            at.field("http2Error"),
            "an answer tells who injected it, which a broken stream cannot; use httpStatus or grpcStatus",
        );
    }
    if let Some(status) = http_status
        && !(200..=599).contains(status)
    {
        let message = format!("{status} is not the status of a response; use 200 to 599");
        report.error(at.field("httpStatus"), message);
    }
    if let Some(status) = grpc_status
        && grpc_code(status).is_none()
    {
        report.error(
            at.field("grpcStatus"),
            "is not a status of gRPC; use a name such as UNAVAILABLE, or a number from 0 to 16",
        );
    }
    match (http_status, grpc_status) {
        (Some(_), Some(_)) => report.error(at, "has both httpStatus and grpcStatus; keep one"),
        (None, None) if http2_error.is_none() => {
            report.error(
                at,
                "has no status to answer with; give it httpStatus or grpcStatus",
            );
        }
        (Some(_), None) | (None, Some(_) | None) => {}
    }
    match percentage {
        Some(Percent { value }) => percent(report, at.field("percentage").field("value"), Some(*value)),
        None => without_share(report, at),
    }
}

fn without_share(report: &mut Report, at: At<'_>) {
    report.warning(
        at.field("percentage"),
        "is missing, which means no request; give it the share that is meant",
    );
}
