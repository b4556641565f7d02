use std::fs;
use std::os::unix::fs::symlink;

use crds::Object;
use tempfile::TempDir;

use super::*;

fn rule(name: &str, host: &str) -> String {
    format!(
        "apiVersion: hauberk.dev/v1alpha1
kind: DestinationRule
metadata: {{name: {name}, namespace: shop}}
spec: {{host: {host}}}
"
    )
}

/// Only what must not depend on the rescan waits for events alone.
const EVENTS_ONLY: Options = Options {
    debounce: Duration::from_millis(20),
    rescan: Duration::from_secs(3600),
};

fn told(batch: &Batch) -> Vec<String> {
    let tell = |change: &Change| match change {
        Change::Set(Object::DestinationRule(rule)) => {
            format!(
                "+{} {}",
                rule.metadata.name.as_deref().unwrap_or_default(),
                rule.spec.host
            )
        }
        Change::Set(object) => format!("+{}", object.key()),
        Change::Remove(key) => format!("-{}", key.name),
    };
    batch.changes.iter().map(tell).collect()
}

struct Watched {
    dir: TempDir,
    batches: mpsc::Receiver<Batch>,
    last: Batch,
}

impl Watched {
    async fn start(options: Options, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let (last, batches) = watch(dir.path(), options).await.unwrap();
        Self { dir, batches, last }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Batches until one tells `what`; events may come in several.
    async fn until(&mut self, what: &str) {
        let wait = async {
            loop {
                if told(&self.last).iter().any(|t| t == what) {
                    return;
                }
                self.last = self.batches.recv().await.expect("watching goes on");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap_or_else(|_| panic!("{what} never came"));
    }

    async fn until_problem(&mut self, what: &str) {
        let wait = async {
            while !self.last.problems.iter().any(|p| p.to_string().contains(what)) {
                self.last = self.batches.recv().await.expect("watching goes on");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap_or_else(|_| panic!("{what} never came"));
    }
}

#[tokio::test]
async fn what_is_there_comes_first_and_what_is_no_manifest_is_passed_over() {
    let watched = Watched::start(EVENTS_ONLY, |dir| {
        fs::create_dir_all(dir.join("deep/er")).unwrap();
        fs::create_dir(dir.join(".git")).unwrap();
        fs::write(dir.join("deep/er/a.yaml"), rule("a", "x")).unwrap();
        fs::write(dir.join("b.yml"), rule("b", "x")).unwrap();
        let json = r#"{"apiVersion": "hauberk.dev/v1alpha1", "kind": "DestinationRule",
                       "metadata": {"name": "c", "namespace": "shop"}, "spec": {"host": "x"}}"#;
        fs::write(dir.join("c.json"), json).unwrap();
        for passed_over in [".hidden.yaml", ".git/d.yaml", "e.yaml~", "f.txt"] {
            fs::write(dir.join(passed_over), rule("never", "x")).unwrap();
        }
        fs::write(dir.join("g.yaml"), b"\xff\xfe").unwrap();
    })
    .await;
    assert_eq!(told(&watched.last), ["+a x", "+b x", "+c x"]);
    let problems: Vec<_> = watched.last.problems.iter().map(ToString::to_string).collect();
    assert!(
        problems.len() == 1 && problems[0].contains("g.yaml") && problems[0].contains("UTF-8"),
        "{problems:?}"
    );
}

#[tokio::test]
async fn events_bring_atomic_renames_new_folders_and_deletions() {
    let mut watched = Watched::start(EVENTS_ONLY, |dir| {
        fs::write(dir.join("a.yaml"), rule("a", "x")).unwrap()
    })
    .await;
    fs::write(watched.path(".a.yaml.tmp"), rule("a", "z")).unwrap();
    fs::rename(watched.path(".a.yaml.tmp"), watched.path("a.yaml")).unwrap();
    watched.until("+a z").await;
    fs::create_dir(watched.path("new")).unwrap();
    fs::write(watched.path("new/b.yaml"), rule("b", "x")).unwrap();
    watched.until("+b x").await;
    fs::write(watched.path("new/b.yaml"), rule("b", "z")).unwrap();
    watched.until("+b z").await;
    fs::remove_file(watched.path("a.yaml")).unwrap();
    watched.until("-a").await;
    fs::remove_dir_all(watched.path("new")).unwrap();
    watched.until("-b").await;
}

#[tokio::test]
async fn a_truncated_file_keeps_its_objects_until_it_is_whole_again() {
    let mut watched = Watched::start(EVENTS_ONLY, |dir| {
        fs::write(dir.join("a.yaml"), rule("a", "x")).unwrap()
    })
    .await;
    fs::write(watched.path("a.yaml"), "").unwrap();
    watched.until_problem("remove the file").await;
    assert_eq!(told(&watched.last), [""; 0]);
    fs::write(watched.path("a.yaml"), &rule("a", "z")[..60]).unwrap();
    watched.until_problem("a.yaml:").await;
    assert_eq!(told(&watched.last), [""; 0]);
    fs::write(watched.path("a.yaml"), rule("a", "z")).unwrap();
    watched.until("+a z").await;
    assert_eq!(watched.last.problems, []);
}

#[tokio::test]
async fn a_mounted_config_map_is_swapped_at_once() {
    let mut watched = Watched::start(EVENTS_ONLY, |dir| {
        fs::create_dir(dir.join("..1")).unwrap();
        fs::write(dir.join("..1/a.yaml"), rule("a", "x")).unwrap();
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/a.yaml", dir.join("a.yaml")).unwrap();
    })
    .await;
    assert_eq!(told(&watched.last), ["+a x"]);
    fs::create_dir(watched.path("..2")).unwrap();
    fs::write(watched.path("..2/a.yaml"), rule("a", "z")).unwrap();
    symlink("..2", watched.path("..data_tmp")).unwrap();
    fs::rename(watched.path("..data_tmp"), watched.path("..data")).unwrap();
    watched.until("+a z").await;
}

#[tokio::test]
async fn the_rescan_finds_the_folder_when_it_is_made_anew() {
    let often = Options {
        rescan: Duration::from_millis(50),
        ..EVENTS_ONLY
    };
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("manifests");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.yaml"), rule("a", "x")).unwrap();
    let (last, batches) = watch(&root, often).await.unwrap();
    let mut watched = Watched {
        dir: outer,
        batches,
        last,
    };
    fs::rename(&root, watched.path("moved")).unwrap();
    watched.until_problem("cannot be read").await;
    assert_eq!(
        told(&watched.last),
        [""; 0],
        "a folder that is away takes nothing away"
    );
    fs::create_dir(&root).unwrap();
    fs::write(root.join("b.yaml"), rule("b", "x")).unwrap();
    watched.until("+b x").await;
    watched.until("-a").await;
    assert_eq!(watched.last.problems, []);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let error = watch(Path::new("/no/such/folder"), Options::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}

#[tokio::test]
async fn links_in_circles_end() {
    let watched = Watched::start(EVENTS_ONLY, |dir| {
        fs::create_dir(dir.join("sub")).unwrap();
        symlink("..", dir.join("sub/up")).unwrap();
        fs::write(dir.join("sub/a.yaml"), rule("a", "x")).unwrap();
    })
    .await;
    assert_eq!(told(&watched.last), ["+a x"]);
}

#[test]
fn looking_at_all_files_takes_a_bounded_share_of_the_time_and_is_never_given_up() {
    let least = Duration::from_secs(5);
    let after = |ms| until_next_look(least, Duration::from_millis(ms));
    assert_eq!(after(1), least);
    assert_eq!(after(100), Duration::from_secs(20));
    assert_eq!(after(100_000), LOOK_AT_LEAST);
    assert_eq!(
        until_next_look(Duration::from_secs(90), Duration::ZERO),
        Duration::from_secs(90)
    );
}
