//! Fills in the configurations of the peers, which stand as files in `bench/peers`.
//!
//! `{{name}}` is replaced by a value; lines between `#if flag` and `#end` stay when the flag is set. Both may be nested
//! as a reader would expect, and a name or flag that nobody knows is an error rather than a hole.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};

/// What a template may name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    values: BTreeMap<&'static str, String>,
    set: BTreeSet<&'static str>,
}

impl Values {
    pub(crate) fn value(mut self, name: &'static str, value: impl ToString) -> Values {
        self.values.insert(name, value.to_string());
        self
    }

    pub(crate) fn flag(mut self, name: &'static str, on: bool) -> Values {
        if on {
            self.set.insert(name);
        }
        self
    }
}

/// The configuration that `template` stands for.
pub(crate) fn render(template: &str, values: &Values) -> anyhow::Result<String> {
    let mut open: Vec<bool> = Vec::new();
    let mut text = String::new();
    for (number, line) in template.lines().enumerate() {
        let at = || format!("line {}", number + 1);
        if let Some(flag) = line.trim().strip_prefix("#if ") {
            open.push(values.set.contains(flag.trim()));
        } else if line.trim() == "#end" {
            open.pop()
                .with_context(|| format!("{}: #end without #if", at()))?;
        } else if open.iter().all(|shown| *shown) {
            text += &fill(line, &values.values).with_context(at)?;
            text.push('\n');
        }
    }
    if !open.is_empty() {
        bail!("#if without #end");
    }
    Ok(text)
}

fn fill(line: &str, values: &BTreeMap<&'static str, String>) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").context("{{ without }}")?;
        let value = values
            .get(name)
            .with_context(|| format!("nothing is called {name}"))?;
        text += before;
        text += value;
        rest = after;
    }
    Ok(text + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_in_and_blocks_stay_only_when_asked_for() {
        let template = "a {{x}}{{y}}\n#if one\nb\n  #if two\nc\n  #end\n#end\nd {e}\n";
        let values = Values::default().value("x", 1).value("y", "z");
        assert_eq!(render(template, &values).unwrap(), "a 1z\nd {e}\n");
        let one = values.clone().flag("one", true).flag("two", false);
        assert_eq!(render(template, &one).unwrap(), "a 1z\nb\nd {e}\n");
        let inner_alone = values.flag("two", true);
        assert_eq!(render(template, &inner_alone).unwrap(), "a 1z\nd {e}\n");
    }

    #[test]
    fn what_cannot_be_filled_in_is_an_error_with_its_line() {
        for (template, reason) in [
            ("a\n{{x}}", "line 2: nothing is called x"),
            ("{{x", "{{ without }}"),
            ("#if x\n", "#if without #end"),
            ("#end\n", "#end without #if"),
        ] {
            let error = format!("{:#}", render(template, &Values::default()).unwrap_err());
            assert!(error.contains(reason), "{error}");
        }
    }
}
