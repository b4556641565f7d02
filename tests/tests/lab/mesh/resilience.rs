//! Retries, breakers, ejections and limits: what they do for the client, and what they must never do to a server.

mod balance;
mod breaker;
mod limits;
mod locality;
mod retry;
mod sticky;
mod warmup;

use anyhow::ensure;
use libtest_mimic::Trial;
use tests::lab::Lab;

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = retry::trials();
    trials.extend(breaker::trials());
    trials.extend(limits::trials());
    trials.extend(balance::trials());
    trials.extend(sticky::trials());
    trials.extend(warmup::trials());
    trials.extend(locality::trials());
    trials
}

/// Requests that a pod's HTTP application has received.
pub(super) async fn requests(lab: &Lab, pod: &str) -> anyhow::Result<u64> {
    Ok(lab.app(pod).counters().await?.requests)
}

/// Requests that all of a service's applications have received.
pub(super) async fn all_requests(lab: &Lab, service: &str) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pod in lab.pods_of(service) {
        sum += requests(lab, &pod).await?;
    }
    ensure!(!lab.pods_of(service).is_empty(), "{service} has no pods");
    Ok(sum)
}
