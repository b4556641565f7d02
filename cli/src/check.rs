//! What facts mean: each check says how something is, and what to do where it is not well. Pure; `ask` has the facts.

mod definitions;
mod installation;
mod mesh;
mod pre;

use std::io::IsTerminal as _;

use serde::Serialize;

use crate::facts::Known;

pub(crate) use installation::check as installation;
pub(crate) use pre::check as before;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Ok,
    /// Works, but someone should look; or it could not be found out.
    Warn,
    /// Does not work.
    Fail,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Its name.
    pub(crate) check: &'static str,
    pub(crate) outcome: Outcome,
    /// What there is to say.
    pub(crate) says: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

fn ok(check: &'static str, says: impl Into<String>) -> Finding {
    Finding {
        check,
        outcome: Outcome::Ok,
        says: says.into(),
        remedy: None,
    }
}

fn warn(check: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        check,
        outcome: Outcome::Warn,
        says: says.into(),
        remedy: Some(remedy.into()),
    }
}

fn fail(check: &'static str, says: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        outcome: Outcome::Fail,
        ..warn(check, says, remedy)
    }
}

/// Looks at what is known; what is not is a warning, as nobody can say that it is well.
fn of<T>(check: &'static str, known: &Known<T>, look: impl FnOnce(&T) -> Finding) -> Finding {
    match known {
        Ok(fact) => look(fact),
        Err(why) => warn(
            check,
            format!("could not be looked at: {why}"),
            "call as someone who may read this in the cluster",
        ),
    }
}

/// `1 pod`, `2 pods`.
fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// The findings as text, with colours where a person looks.
pub(crate) fn text(findings: &[Finding]) -> String {
    render(findings, std::io::stdout().is_terminal())
}

fn render(findings: &[Finding], colours: bool) -> String {
    let width = findings.iter().map(|f| f.check.len()).max().unwrap_or_default();
    let mut out = String::new();
    for finding in findings {
        let (word, colour) = match finding.outcome {
            Outcome::Ok => ("ok  ", 32),
            Outcome::Warn => ("warn", 33),
            Outcome::Fail => ("FAIL", 31),
        };
        let word = if colours {
            format!("\x1b[{colour}m{word}\x1b[0m")
        } else {
            word.to_owned()
        };
        out.push_str(&format!("{word}  {:width$}  {}\n", finding.check, finding.says));
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!("      {:width$}  remedy: {remedy}\n", ""));
        }
    }
    let number = |outcome| findings.iter().filter(|f| f.outcome == outcome).count();
    let (warnings, failures) = (number(Outcome::Warn), number(Outcome::Fail));
    out.push_str(&match (failures, warnings) {
        (0, 0) => "\nall is well\n".to_owned(),
        _ => format!(
            "\n{}, {}\n",
            count(failures, "failure", "failures"),
            count(warnings, "warning", "warnings")
        ),
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_aligned_and_added_up() {
        let findings = [ok("lease", "held by a"), fail("webhooks", "none", "install")];
        let text = render(&findings, false);
        assert_eq!(
            text,
            "\
ok    lease     held by a
FAIL  webhooks  none
                remedy: install

1 failure, 0 warnings
"
        );
        assert!(render(&findings, true).contains("\x1b[31mFAIL\x1b[0m"));
        assert!(render(&findings[..1], false).ends_with("\nall is well\n"));
    }

    #[test]
    fn what_cannot_be_found_out_is_a_warning_with_the_reason() {
        let finding = of::<()>("secret", &Err("forbidden (403)".to_owned()), |()| unreachable!());
        assert_eq!(finding.outcome, Outcome::Warn);
        assert!(finding.says.contains("forbidden (403)"));
    }
}
