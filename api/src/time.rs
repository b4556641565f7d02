//! Times as settings and annotations write them: one reading for the proxy that takes them and for whoever writes them.

use std::time::Duration;

/// Reads a time: a whole number and a unit, such as `250ms`, `5s`, `10m` or `1h`.
///
/// # Errors
/// What is wrong, and how a time is written.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: write a number and ms, s, m or h, as in 250ms or 5s");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let milliseconds = number.checked_mul(scale).ok_or_else(wrong)?;
    Ok(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_whole_number_and_a_unit() {
        assert_eq!(parse_time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_time("2h"), Ok(Duration::from_secs(7200)));
        for bad in [
            "",
            "5",
            "s",
            "1d",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "9999999999999999h",
        ] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
