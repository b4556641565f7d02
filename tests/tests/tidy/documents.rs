//! What the documents say must be there: links, commands, environment variables, the numbers of decisions.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::hold;
use crate::tree::{Text, files, read, root, sources};

/// The lines of a document, numbered from 1, each with whether it stands in a fenced block.
fn lines(document: &Text) -> impl Iterator<Item = (usize, &str, bool)> {
    let mut fenced = false;
    document.text.lines().enumerate().filter_map(move |(i, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        Some((i + 1, line, fenced))
    })
}

/// Those outside fenced blocks.
fn prose(document: &Text) -> impl Iterator<Item = (usize, &str)> {
    lines(document).filter_map(|(number, line, fenced)| (!fenced).then_some((number, line)))
}

/// What a reader would type: the lines of fenced blocks, and the code spans of the prose.
fn commands(document: &Text) -> impl Iterator<Item = (usize, &str)> {
    lines(document).flat_map(|(number, line, fenced)| {
        let (skip, step) = if fenced { (0, 1) } else { (1, 2) };
        let between = if fenced { '\n' } else { '`' };
        let typed = line.split(between).skip(skip).step_by(step);
        typed.map(move |text| (number, text.trim().trim_start_matches("$ ")))
    })
}

/// The targets of `[text](target)` in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchor that a heading gets: lower case, blanks to hyphens, no other punctuation.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// `folder/../x` without the detour.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

fn check_link(from: &Text, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
    let folder = Path::new(&from.path).parent().unwrap_or(Path::new(""));
    let path = if path.is_empty() {
        PathBuf::from(&from.path)
    } else {
        plain(&folder.join(path))
    };
    if !root().join(&path).exists() {
        return Err(format!("there is no {}", path.display()));
    }
    if fragment.is_empty() || path.extension().is_none_or(|e| e != "md") {
        return Ok(());
    }
    let document = read(&path.to_string_lossy());
    let found = prose(&document).any(|(_, l)| l.starts_with('#') && anchor(l) == fragment);
    if found {
        Ok(())
    } else {
        Err(format!("{} has no heading #{fragment}", path.display()))
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for document in files(".md") {
        for (number, line) in prose(&document) {
            for target in links(line) {
                if let Err(why) = check_link(&document, target) {
                    broken.push(format!("{}: ({target}): {why}", document.at(number)));
                }
            }
        }
    }
    hold("mend the link, or write the page", broken);
}

#[test]
fn every_make_command_in_the_documents_is_a_target() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile
        .text
        .lines()
        .filter(|l| l.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|l| l.split_once(':').map(|(name, _)| name))
        .collect();
    let mut broken = Vec::new();
    for document in files(".md") {
        for (number, command) in commands(&document) {
            let Some(rest) = command.strip_prefix("make ") else {
                continue;
            };
            let target = rest.split_whitespace().next().unwrap_or_default();
            if !targets.contains(target) {
                broken.push(format!("{}: make {target}", document.at(number)));
            }
        }
    }
    hold("name a target of the Makefile, or add it there", broken);
}

/// The code spans of a line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn every_file_that_the_documents_name_is_there() {
    let endings = [".rs", ".md", ".toml", ".sh", ".proto"];
    let mut broken = Vec::new();
    for document in files(".md") {
        let folder = Path::new(&document.path)
            .parent()
            .unwrap_or(Path::new(""))
            .to_owned();
        for (number, line) in prose(&document) {
            let named = |span: &&str| {
                span.contains('/')
                    && !span.contains("://")
                    && !span.contains([' ', '*', '<', '{', '…'])
                    && !span.starts_with(['/', '~'])
                    && (span.ends_with('/') || endings.iter().any(|e| span.ends_with(e)))
            };
            for span in spans(line).filter(named) {
                let there = |base: &Path| root().join(base).join(span).exists();
                if !there(Path::new("")) && !there(&folder) {
                    broken.push(format!("{}: {span}", document.at(number)));
                }
            }
        }
    }
    hold("name the file where it is now", broken);
}

/// `a::b` of ARCHITECTURE.md: the module `a` of some package, and in it the module or the name `b`. Of `a::B::c` the
/// type is left out.
fn is_in_the_code(path: &str, all: &[Text]) -> bool {
    let (module, name) = path.rsplit_once("::").unwrap_or(("", path));
    let module: Vec<&str> = module
        .split("::")
        .take_while(|part| part.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    let module = module.join("/");
    let introduces = |text: &str| {
        ["fn ", "struct ", "enum ", "mod ", "trait "].iter().any(|kind| {
            let introduction = format!("{kind}{name}");
            text.split(&introduction)
                .skip(1)
                .any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    };
    ["proxy/src", "control-plane/src", "crds/src", "api/src"]
        .iter()
        .any(|src| {
            let inside = format!("{src}/{module}");
            let file = format!("{}/{name}.rs", inside.trim_end_matches('/'));
            all.iter().any(|f| {
                let in_module = f.path == format!("{inside}.rs") || f.path.starts_with(&format!("{inside}/"));
                f.path == file || (!module.is_empty() && in_module && introduces(&f.text))
            })
        })
}

#[test]
fn architecture_names_modules_that_exist() {
    let all = sources();
    let page = read("ARCHITECTURE.md");
    let mut broken = Vec::new();
    for (number, line) in prose(&page) {
        let paths = spans(line).filter(|span| {
            span.contains("::")
                && span
                    .chars()
                    .all(|c| c.is_alphanumeric() || matches!(c, ':' | '_'))
        });
        let modules = line.starts_with('|').then(|| {
            // The first column that holds code, in a table of modules.
            let cell = line
                .split('|')
                .find(|cell| cell.contains('`'))
                .unwrap_or_default();
            spans(cell).filter(|s| {
                s.chars()
                    .all(|c| c.is_ascii_lowercase() || matches!(c, ':' | '_'))
            })
        });
        for path in paths.chain(modules.into_iter().flatten()) {
            if !is_in_the_code(path, &all) {
                broken.push(format!("{}: {path}", page.at(number)));
            }
        }
    }
    broken.dedup();
    hold("follow the code: name what does it now", broken);
}

/// `HAUBERK_…` words of a text.
fn variables(text: &str) -> BTreeSet<&str> {
    let ends = |c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    text.split(ends)
        .filter(|w| w.starts_with("HAUBERK_") && w.len() > "HAUBERK_".len())
        .collect()
}

/// The variables that words such as `drain-delay` or `drain_delay` stand for.
fn settings_named_in(text: &str) -> impl Iterator<Item = String> {
    let ends = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    text.split(ends)
        .map(|word| format!("HAUBERK_{}", word.replace('-', "_").to_uppercase()))
}

#[test]
fn every_variable_in_the_documents_is_read_somewhere() {
    let sources = sources();
    let mut known: BTreeSet<&str> = sources.iter().flat_map(|s| variables(&s.text)).collect();
    let others = ["Makefile", ".ci/run"].map(read);
    known.extend(others.iter().flat_map(|o| variables(&o.text)));
    // Settings make the variable from the setting's own name.
    let settings = sources.iter().filter(|s| s.path.contains("/src/settings"));
    let made: BTreeSet<String> = settings.flat_map(|s| settings_named_in(&s.text)).collect();
    known.extend(made.iter().map(String::as_str));
    let mut broken = Vec::new();
    for document in files(".md") {
        let unknown = variables(&document.text);
        broken.extend(
            unknown
                .difference(&known)
                .map(|v| format!("{}: {v}", document.path)),
        );
    }
    hold("name a variable that a settings.rs reads", broken);
}

#[test]
fn decisions_are_numbered_listed_and_of_one_form() {
    let index = read("docs/decisions/README.md");
    let mut broken = Vec::new();
    let pages = files(".md")
        .into_iter()
        .filter(|d| d.path.starts_with("docs/decisions/") && d.path != index.path);
    for (i, page) in pages.enumerate() {
        let name = page.path.trim_start_matches("docs/decisions/");
        if !name.starts_with(&format!("{:04}-", i + 1)) {
            broken.push(format!("{}: its number should be {:04}", page.path, i + 1));
        }
        if !index.text.contains(&format!("]({name})")) {
            broken.push(format!(
                "{}: docs/decisions/README.md does not list it",
                page.path
            ));
        }
        for heading in ["## Context", "## Decision", "## Cost"] {
            if !page.text.lines().any(|l| l == heading) {
                broken.push(format!("{}: has no `{heading}`", page.path));
            }
        }
    }
    hold(
        "number pages without gaps, list each in the index, keep the three headings",
        broken,
    );
}
