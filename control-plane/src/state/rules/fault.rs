//! `fault` of an HTTP rule, in the contract's types.

use api::{Fault, FaultAbort, FaultDelay, Fraction, Invalid};
use crds::virtual_service::resilience::{self as crd, Percent, grpc_code};
use http::StatusCode;

use super::{refuse, whole_ms};

/// The fault; empty where no request gets any, which is something else than not to say anything of it.
pub(super) fn fault(fault: &crd::Fault) -> Result<Fault, Invalid> {
    let crd::Fault { delay, abort } = fault;
    let delay = delay
        .as_ref()
        .map(self::delay)
        .transpose()
        .map_err(|e| e.under("delay"))?;
    let abort = abort
        .as_ref()
        .map(self::abort)
        .transpose()
        .map_err(|e| e.under("abort"))?;
    let delay = delay.filter(|delay| !delay.share.is_nothing());
    let abort = abort.filter(|abort| !abort.share.is_nothing());
    Ok(Fault { delay, abort })
}

/// A share in percent, or the deprecated field with whole ones in its place.
pub(super) fn share(
    percentage: Option<&Percent>,
    percent: Option<u32>,
    unless: Fraction,
) -> Result<Fraction, Invalid> {
    match (percentage, percent) {
        (Some(Percent { value }), _) => Fraction::of_percent(*value).map_err(|e| e.under("percentage.value")),
        (None, Some(percent)) => Fraction::of_percent(percent.into()).map_err(|e| e.under("percent")),
        (None, None) => Ok(unless),
    }
}

fn delay(delay: &crd::FaultDelay) -> Result<FaultDelay, Invalid> {
    let crd::FaultDelay {
        fixed_delay,
        exponential_delay,
        percentage,
        percent,
    } = delay;
    refuse(&[("exponentialDelay", exponential_delay.is_some())])?;
    let delay = fixed_delay.map(|d| whole_ms(d.get())).filter(|d| !d.is_zero());
    Ok(FaultDelay {
        delay: delay.ok_or_else(|| Invalid::new("fixedDelay", "is missing: write how long"))?,
        share: share(percentage.as_ref(), *percent, Fraction::NONE)?,
    })
}

fn abort(abort: &crd::FaultAbort) -> Result<FaultAbort, Invalid> {
    let crd::FaultAbort {
        http_status,
        grpc_status,
        http2_error,
        percentage,
    } = abort;
    refuse(&[("http2Error", http2_error.is_some())])?;
    let (status, grpc) = match (http_status, grpc_status.as_deref()) {
        (Some(code), None) => {
            let status = u16::try_from(*code)
                .ok()
                .and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.filter(|status| (200..600).contains(&status.as_u16()));
            let status = status.ok_or_else(|| {
                Invalid::new(
                    "httpStatus",
                    format!("{code} is not a response status: use 200 to 599"),
                )
            })?;
            (status, grpc_of(status))
        }
        (None, Some(name)) => {
            let code = grpc_code(name);
            let code = code.ok_or_else(|| Invalid::new("grpcStatus", "is not a status of gRPC"))?;
            (http_of(code), code)
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(Invalid::new("", "needs one of httpStatus and grpcStatus"));
        }
    };
    Ok(FaultAbort {
        grpc,
        status,
        share: share(percentage.as_ref(), None, Fraction::NONE)?,
    })
}

/// What a gRPC client makes of an HTTP status (gRPC, "HTTP to gRPC Status Code Mapping").
fn grpc_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// The HTTP status that `google/rpc/code.proto` documents for a gRPC status.
fn http_of(code: u8) -> StatusCode {
    let status = match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(yaml: &str) -> Result<Fault, Invalid> {
        fault(&serde_saphyr::from_str(yaml).unwrap())
    }

    fn percent(percent: f64) -> Fraction {
        Fraction::of_percent(percent).unwrap()
    }

    #[test]
    fn both_faults_carry_their_fields() {
        let both = read(
            "{delay: {fixedDelay: 1500us, percentage: {value: 12.5}, percent: 90},
              abort: {httpStatus: 429, percentage: {value: 1}}}",
        );
        let Fault { delay, abort } = both.unwrap();
        let (delay, abort) = (delay.unwrap(), abort.unwrap());
        assert_eq!(
            (delay.delay, delay.share),
            (Duration::from_millis(2), percent(12.5))
        );
        assert_eq!(
            (abort.status.as_u16(), abort.grpc, abort.share),
            (429, 14, percent(1.0))
        );
    }

    #[test]
    fn a_grpc_status_has_an_http_status_for_other_requests() {
        for (name, grpc, http) in [("UNAVAILABLE", 14, 503), ("5", 5, 404), ("CANCELLED", 1, 499)] {
            let yaml = format!("{{abort: {{grpcStatus: '{name}', percentage: {{value: 100}}}}}}");
            let abort = read(&yaml).unwrap().abort.unwrap();
            assert_eq!((abort.grpc, abort.status.as_u16()), (grpc, http), "{name}");
        }
    }

    #[test]
    fn without_a_share_no_request_gets_a_fault() {
        for yaml in [
            "{delay: {fixedDelay: 1s}}",
            "{delay: {fixedDelay: 1s, percent: 0}, abort: {httpStatus: 500}}",
        ] {
            let nothing = Fault {
                delay: None,
                abort: None,
            };
            assert_eq!(read(yaml).unwrap(), nothing, "{yaml}");
        }
        let old = read("{delay: {fixedDelay: 1s, percent: 10}}").unwrap();
        assert_eq!(old.delay.unwrap().share, percent(10.0));
    }

    #[test]
    fn what_cannot_be_injected_is_refused_by_field() {
        for (yaml, field) in [
            ("{delay: {exponentialDelay: 1s}}", "delay.exponentialDelay"),
            ("{delay: {percent: 10}}", "delay.fixedDelay"),
            ("{delay: {fixedDelay: 1s, percent: 101}}", "delay.percent"),
            ("{abort: {http2Error: CANCEL}}", "abort.http2Error"),
            ("{abort: {httpStatus: 100}}", "abort.httpStatus"),
            ("{abort: {grpcStatus: no}}", "abort.grpcStatus"),
            ("{abort: {percentage: {value: 1}}}", "abort"),
        ] {
            assert_eq!(read(yaml).unwrap_err().field, field, "{yaml}");
        }
    }
}
