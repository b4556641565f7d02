use super::*;

fn rule(name: &str, host: &str) -> String {
    format!(
        "---
apiVersion: hauberk.dev/v1alpha1
kind: DestinationRule
metadata: {{name: {name}, namespace: shop}}
spec: {{host: {host}}}
"
    )
}

const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}
";

impl Folder {
    fn write(&mut self, path: &str, text: &str) -> Vec<String> {
        self.told([(path.into(), Content::Text(text.to_owned()))])
    }

    fn delete(&mut self, path: &str) -> Vec<String> {
        self.told([(path.into(), Content::Gone)])
    }

    /// Changes as `+name generation host` and `-name`.
    fn told<const N: usize>(&mut self, updates: [(PathBuf, Content); N]) -> Vec<String> {
        let tell = |change| match change {
            Change::Set(Object::DestinationRule(rule)) => {
                let (name, generation) = (rule.metadata.name.unwrap(), rule.metadata.generation.unwrap());
                format!("+{name} {generation} {}", rule.spec.host)
            }
            Change::Set(object) => format!("+{}", object.key().name),
            Change::Remove(key) => format!("-{}", key.name),
        };
        self.apply(updates).into_iter().map(tell).collect()
    }

    fn told_problems(&self) -> Vec<String> {
        self.problems().iter().map(ToString::to_string).collect()
    }
}

#[test]
fn objects_come_change_and_go_with_their_file() {
    let mut folder = Folder::default();
    assert_eq!(
        folder.write("a.yaml", &(rule("one", "a") + SERVICE)),
        ["+web", "+one 1 a"]
    );
    assert!(folder.write("a.yaml", &(rule("one", "a") + SERVICE)).is_empty());
    assert_eq!(
        folder.write("a.yaml", &(rule("one", "b") + SERVICE)),
        ["+one 2 b"]
    );
    assert_eq!(
        folder.write("a.yaml", &rule("two", "a")),
        ["-web", "-one", "+two 1 a"]
    );
    assert_eq!(folder.delete("a.yaml"), ["-two"]);
    assert!(folder.delete("a.yaml").is_empty());
    assert_eq!(folder.problems(), []);
}

#[test]
fn the_generation_counts_specs_and_nothing_else() {
    let mut folder = Folder::default();
    folder.write("a.yaml", &rule("one", "a"));
    let labelled = rule("one", "a").replace("namespace: shop", "namespace: shop, labels: {l: v}");
    assert_eq!(folder.write("a.yaml", &labelled), ["+one 1 a"]);
    let own = labelled.replace("name: one", "name: one, generation: 7");
    assert_eq!(folder.write("a.yaml", &own), ["+one 7 a"]);
    assert_eq!(
        folder.write("a.yaml", &own.replace("host: a", "host: b")),
        ["+one 8 b"]
    );
    assert_eq!(folder.write("a.yaml", &rule("one", "c")), ["+one 9 c"]);
}

#[test]
fn a_broken_document_takes_nothing_away_and_is_reported_by_line_and_field() {
    let mut folder = Folder::default();
    let good = rule("one", "a") + &rule("two", "a");
    folder.write("a.yaml", &good);
    let broken = rule("one", "b") + &rule("two", "a").replace("host", "hots");
    assert_eq!(
        folder.write("a.yaml", &broken),
        ["+one 2 b"],
        "the good document counts, the other stays"
    );
    let [problem] = &folder.problems()[..] else {
        panic!("{:?}", folder.problems())
    };
    assert_eq!((problem.document, problem.line), (Some(2), Some(10)), "{problem}");
    assert!(problem.to_string().starts_with("a.yaml:10:"), "{problem}");
    assert!(
        problem.field.as_deref().is_some_and(|f| f.starts_with("spec")),
        "{problem}"
    );
    assert_eq!(
        folder.write("a.yaml", &rule("one", "b")),
        ["-two"],
        "once all can be read, what is gone is gone"
    );
    assert_eq!(folder.problems(), []);
}

#[test]
fn a_file_cut_off_or_emptied_keeps_what_it_gave() {
    let whole = rule("one", "a") + &rule("two", "b");
    for end in 0..whole.len() {
        let mut folder = Folder::default();
        folder.write("a.yaml", &whole);
        let told = folder.write("a.yaml", &whole[..end]);
        let gone: Vec<_> = told.iter().filter(|t| t.starts_with('-')).collect();
        // At the end of a document the rest is simply not there, and `kubectl` would say the same.
        let at_a_seam = (rule("one", "a").len() - 3..=rule("one", "a").len() + 4).contains(&end);
        assert!(gone.is_empty() || at_a_seam, "cut at {end}: {told:?}");
    }
    let mut folder = Folder::default();
    folder.write("a.yaml", &whole);
    assert!(folder.write("a.yaml", "").is_empty());
    assert!(
        folder.told_problems()[0].contains("remove the file"),
        "{:?}",
        folder.told_problems()
    );
    assert_eq!(folder.delete("a.yaml"), ["-one", "-two"]);
    assert!(folder.write("new.yaml", "# nothing yet\n").is_empty());
    assert_eq!(folder.problems(), []);
}

#[test]
fn a_file_that_cannot_be_read_counts_as_it_was() {
    let mut folder = Folder::default();
    folder.write("a.yaml", &rule("one", "a"));
    assert!(
        folder
            .told([("a.yaml".into(), Content::Unreadable("no permission".into()))])
            .is_empty()
    );
    assert!(folder.told_problems()[0].contains("no permission"));
    assert!(folder.write("a.yaml", &rule("one", "a")).is_empty());
    assert_eq!(folder.problems(), []);
}

#[test]
fn the_first_path_has_an_object_and_the_other_is_reported() {
    let mut folder = Folder::default();
    folder.write("b.yaml", &rule("one", "b"));
    assert_eq!(folder.write("a.yaml", &rule("one", "a")), ["+one 2 a"]);
    let problems = folder.told_problems();
    assert!(
        problems[0].starts_with("b.yaml: DestinationRule shop/one is in a.yaml too"),
        "{problems:?}"
    );
    assert_eq!(problems.len(), 1);
    assert!(folder.write("b.yaml", &rule("one", "x")).is_empty());
    assert_eq!(folder.delete("a.yaml"), ["+one 3 x"]);
    assert_eq!(folder.problems(), []);
    assert!(
        folder
            .write("b.yaml", &(rule("one", "x") + &rule("one", "z")))
            .is_empty()
    );
    assert!(folder.told_problems()[0].contains("in this file twice"));
}

#[test]
fn a_rename_in_one_batch_is_no_change() {
    let mut folder = Folder::default();
    folder.write("a.yaml", &rule("one", "a"));
    let moved = folder.told([
        ("a.yaml".into(), Content::Gone),
        ("b.yaml".into(), Content::Text(rule("one", "a"))),
    ]);
    assert!(moved.is_empty(), "{moved:?}");
    assert_eq!(folder.delete("b.yaml"), ["-one"]);
}
