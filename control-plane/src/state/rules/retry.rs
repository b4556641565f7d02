//! `retries` of an HTTP rule, in the contract's types.

use api::{Invalid, Retry, RetryCondition as Condition, proto};
use crds::virtual_service::resilience::{Retry as Crd, RetryCondition};

use super::whole_ms;

/// What is left out is as for every request, see [`Retry::default`].
pub(super) fn retry(retries: &Crd) -> Result<Retry, Invalid> {
    let Crd {
        attempts,
        per_try_timeout,
        retry_on,
        retry_remote_localities,
        retry_ignore_previous_hosts,
        backoff,
    } = retries;
    let mut retry = Retry::default();
    if let Some(text) = retry_on.as_deref().filter(|text| !text.trim().is_empty()) {
        (retry.conditions, retry.statuses) = (Vec::new(), Vec::new());
        for entry in RetryCondition::list(text) {
            let entry = entry.map_err(|e| Invalid::new("retryOn", e.to_string()))?;
            add(&mut retry, entry)?;
        }
    }
    retry.attempts = attempts.unwrap_or(retry.attempts);
    retry.per_try_timeout = per_try_timeout
        .map(|t| whole_ms(t.get()))
        .filter(|t| !t.is_zero());
    retry.avoid_previous = retry_ignore_previous_hosts.unwrap_or(retry.avoid_previous);
    retry.avoid_previous_places = *retry_remote_localities == Some(true);
    retry.backoff = backoff.map_or(retry.backoff, |b| whole_ms(b.get()));
    // Through the proxy's own conversion, for the bounds it holds.
    Retry::try_from(proto::Retry::from(retry))
}

fn add(retry: &mut Retry, entry: RetryCondition) -> Result<(), Invalid> {
    let condition = match entry {
        RetryCondition::FiveXx => Condition::ServerError,
        RetryCondition::GatewayError => Condition::GatewayError,
        RetryCondition::Reset => Condition::Reset,
        RetryCondition::ResetBeforeRequest => Condition::ResetBeforeRequest,
        RetryCondition::ConnectFailure => Condition::ConnectFailure,
        RetryCondition::Retriable4xx => Condition::Retriable4xx,
        RetryCondition::RefusedStream => Condition::RefusedStream,
        RetryCondition::GrpcCancelled => Condition::GrpcCancelled,
        RetryCondition::GrpcDeadlineExceeded => Condition::GrpcDeadlineExceeded,
        RetryCondition::GrpcInternal => Condition::GrpcInternal,
        RetryCondition::GrpcResourceExhausted => Condition::GrpcResourceExhausted,
        RetryCondition::GrpcUnavailable => Condition::GrpcUnavailable,
        // The codes listed beside it say which.
        RetryCondition::RetriableStatusCodes => return Ok(()),
        RetryCondition::Status(code) => {
            let status = http::StatusCode::from_u16(code)
                .ok()
                .filter(|s| !s.is_informational());
            let status = status.ok_or_else(|| {
                Invalid::new(
                    "retryOn",
                    format!("{code} does not end a response: use 200 to 599"),
                )
            })?;
            if !retry.statuses.contains(&status) {
                retry.statuses.push(status);
            }
            return Ok(());
        }
        RetryCondition::EnvoyRatelimited => Condition::RateLimited,
        RetryCondition::RetriableHeaders => Condition::RetriableHeaders,
        // It never occurs here, and the check says so in a warning.
        RetryCondition::Http3PostConnectFailure => return Ok(()),
    };
    if !retry.conditions.contains(&condition) {
        retry.conditions.push(condition);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Retry, Invalid> {
        retry(&serde_saphyr::from_str(yaml).unwrap())
    }

    #[test]
    fn what_is_left_out_is_as_for_every_request() {
        assert_eq!(read("{}").unwrap(), Retry::default());
        let only = read(
            "{retryOn: '5xx, 503, 503, retriable-status-codes,unavailable,retriable-headers', backoff: 10ms}",
        )
        .unwrap();
        assert_eq!(
            only.conditions,
            [
                Condition::ServerError,
                Condition::GrpcUnavailable,
                Condition::RetriableHeaders
            ]
        );
        assert_eq!(only.statuses, [503]);
        assert_eq!(
            (only.attempts, only.backoff.as_millis()),
            (Retry::default().attempts, 10)
        );
    }

    #[test]
    fn attempts_of_zero_switch_off_and_a_short_bound_is_kept() {
        let retry = read("{attempts: 0, perTryTimeout: 1us, retryIgnorePreviousHosts: false}").unwrap();
        assert_eq!((retry.attempts, retry.avoid_previous), (0, false));
        let remote = |yaml| read(yaml).unwrap().avoid_previous_places;
        assert!(!remote("{}") && remote("{retryRemoteLocalities: true}"));
        assert_eq!(retry.per_try_timeout.map(|t| t.as_millis()), Some(1));
    }

    #[test]
    fn what_the_proxy_would_refuse_is_refused() {
        for (yaml, field) in [
            ("{attempts: 101}", "attempts"),
            ("{retryOn: nonsense}", "retryOn"),
            ("{retryOn: '100'}", "retryOn"),
        ] {
            assert_eq!(read(yaml).unwrap_err().field, field, "{yaml}");
        }
    }
}
