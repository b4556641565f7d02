//! Waits for a state instead of for a time.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `look` until it succeeds, at most `deadline` long; then fails with the last reason it gave.
///
/// One look may itself take no longer than what is left, so a look that hangs fails like one that refuses.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    eventually_every(PAUSE, deadline, what, look).await
}

/// [`eventually`] with a longer pause between two looks, where a look costs others something.
pub async fn eventually_every<T>(
    pause: Duration,
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    let mut last = None;
    loop {
        match tokio::time::timeout_at(end, look()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(reason)) => last = Some(reason),
            Err(_elapsed) => {}
        }
        if Instant::now() + pause >= end {
            let reason = last.map_or_else(
                || "the first look never returned".to_owned(),
                |last| format!("{last:#}"),
            );
            bail!("not within {deadline:?}: {what} (last: {reason})");
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_returns_what_the_first_successful_look_found() {
        let mut looks = 0;
        let found = eventually(Duration::from_secs(1), "three looks", async || {
            looks += 1;
            if looks < 3 {
                bail!("only {looks}")
            } else {
                Ok(looks)
            }
        });
        assert_eq!(found.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_says_what_was_awaited_and_why_the_last_look_failed() {
        let result = eventually(
            Duration::from_secs(1),
            "the sun rises",
            async || -> anyhow::Result<()> { bail!("still dark") },
        );
        let text = result.await.unwrap_err().to_string();
        assert!(
            text.contains("the sun rises") && text.contains("still dark"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_fails_at_the_deadline() {
        let result = eventually(Duration::from_secs(1), "an answer", async || {
            std::future::pending::<anyhow::Result<()>>().await
        });
        assert!(result.await.unwrap_err().to_string().contains("never returned"));
    }
}
