//! Amounts of CPU and memory as Kubernetes writes them, such as `100m` or `64Mi`, checked before a pod is made with them:
//! a typing error in an annotation is to be answered by us, by name, and not by whoever creates the pod much later.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// An amount of CPU in cores or of memory in bytes. Kept as it was written.
#[derive(Debug, Clone)]
pub struct Quantity {
    text: String,
    thousandths: u128,
}

impl Quantity {
    /// The amount, rounded up to a whole number of cores or bytes.
    #[must_use]
    pub fn rounded_up(&self) -> u128 {
        self.thousandths.div_ceil(1000)
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.thousandths == 0
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is not an amount: write for example 100m or 2 of CPU, 64Mi or 1Gi of memory")
        };
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(wrong());
        }
        let unit = thousandths_of(suffix).ok_or_else(wrong)?;
        // Digits behind the thousandth of a unit say nothing that anybody could measure.
        let fraction = fraction.get(..fraction.len().min(9)).unwrap_or_default();
        let digits: u128 = format!("0{whole}{fraction}").parse().map_err(|_| wrong())?;
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        let scaled = digits.checked_mul(unit).ok_or_else(wrong)?;
        Ok(Self {
            text: text.to_owned(),
            thousandths: scaled.div_ceil(scale),
        })
    }
}

/// What one of the unit is, in thousandths.
fn thousandths_of(suffix: &str) -> Option<u128> {
    let unit = match suffix {
        "m" => return Some(1),
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (exponent <= 15).then(|| 10u128.pow(exponent))?
        }
    };
    Some(unit * 1000)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.thousandths.cmp(&other.thousandths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn equal_amounts_are_equal_however_they_are_written() {
        for (one, other) in [
            ("1", "1000m"),
            ("0.1", "100m"),
            (".5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("2.", "2"),
        ] {
            assert_eq!(quantity(one), quantity(other), "{one} {other}");
        }
        assert!(quantity("1G") < quantity("1Gi"));
    }

    #[test]
    fn cores_are_rounded_up() {
        for (text, cores) in [("1m", 1), ("1", 1), ("1001m", 2), ("2.5", 3), ("0", 0)] {
            assert_eq!(quantity(text).rounded_up(), cores, "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        let endless = "9".repeat(60);
        for bad in [
            "", ".", "m", "Mi", "1.2.3", "-1", "1 Mi", "64MB", "64mi", "1e99", "ten", &endless, "1e-3",
        ] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }
}
