//! Tests of the layers: which value wins, and how a wrong one is refused.

use super::*;

const RUN: [&str; 5] = ["run", "--config-dir", "/config", "--state-dir", "/state"];

fn read(args: &[&str], env: &[(&str, &str)]) -> Result<Command, SettingsError> {
    let args = std::iter::once("hauberk-control-plane").chain(args.iter().copied());
    read_from(args.map(OsString::from), |name| {
        env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
    })
}

fn run_settings(args: &[&str], env: &[(&str, &str)]) -> Run {
    match read(args, env).unwrap() {
        Command::Run(run) => *run,
        other => panic!("{other:?}"),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file_and_that_over_the_default() {
    let file = file("listen: 127.0.0.1:1\nadmin: 127.0.0.1:1\nlog: debug\n");
    let mut args = RUN.to_vec();
    args.extend([
        "--settings",
        file.path().to_str().unwrap(),
        "--listen",
        "127.0.0.1:3",
    ]);
    let env = [
        ("HAUBERK_LISTEN", "127.0.0.1:2"),
        ("HAUBERK_ADMIN", "127.0.0.1:2"),
        ("RUST_LOG", "trace"),
    ];
    let run = run_settings(&args, &env);
    assert_eq!(run.listen, "127.0.0.1:3".parse().unwrap());
    assert_eq!(run.admin, "127.0.0.1:2".parse().unwrap());
    assert_eq!(run.log, "debug");
    assert_eq!(run.authority.trust_domain, "cluster.local");
    assert_eq!(run.authority.lifetime, Duration::from_secs(86400));
}

/// The environment that the chart sets, and this.
fn in_a_pod<'a>(name: &'a str, value: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("HAUBERK_SOURCE", "kubernetes"),
        ("HAUBERK_POD", "operator-0"),
        ("HAUBERK_NAMESPACE", "hauberk-system"),
        (name, value),
    ]
}

#[test]
fn what_injected_proxies_are_like_is_read_from_its_file_and_a_wrong_one_is_refused() {
    let injection = |path: &str| match run_settings(&["run"], &in_a_pod("HAUBERK_INJECTION", path)).source {
        SourceSettings::Kubernetes(settings) => settings.injection,
        SourceSettings::Directory { .. } => panic!("not in a pod"),
    };
    assert_eq!(injection(""), inject::Config::default());
    let good = file("image: here:2\n");
    assert_eq!(injection(good.path().to_str().unwrap()).image, "here:2");
    let bad = file("colour: red\n");
    for (path, says) in [
        (bad.path().to_str().unwrap(), "colour"),
        ("/none", "cannot be read"),
    ] {
        let error = read(&["run"], &in_a_pod("HAUBERK_INJECTION", path))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("injection:") && error.contains(says), "{error}");
    }
}

#[test]
fn what_only_kubernetes_asks_for_is_refused_elsewhere() {
    for (name, value) in [("HAUBERK_WEBHOOK", "0.0.0.0:1"), ("HAUBERK_INJECTION", "/i.yaml")] {
        let error = read(&RUN, &[(name, value)]).unwrap_err().to_string();
        assert!(error.contains("`kubernetes` only: remove it"), "{error}");
    }
}

#[test]
fn rust_log_counts_where_nothing_of_ours_is_said() {
    assert_eq!(run_settings(&RUN, &[("RUST_LOG", "warn")]).log, "warn");
    let both = [("RUST_LOG", "warn"), ("HAUBERK_LOG", "error")];
    assert_eq!(run_settings(&RUN, &both).log, "error");
}

#[test]
fn a_wrong_value_is_refused_with_its_name_its_origin_and_the_remedy() {
    let file = file("certificate-lifetime: 24\n");
    let path = file.path().to_str().unwrap();
    for (flags, env, says) in [
        (
            vec!["--listen", "here"],
            vec![],
            vec!["listen", "\"here\"", "the flag", "0.0.0.0:15010"],
        ),
        (
            vec![],
            vec![("HAUBERK_LOG_FORMAT", "xml")],
            vec!["log-format", "HAUBERK_LOG_FORMAT", "`json`"],
        ),
        (
            vec!["--settings", path],
            vec![],
            vec!["certificate-lifetime", "\"24\"", path, "`24h`"],
        ),
        (
            vec!["--source", "etcd"],
            vec![],
            vec!["source", "`directory` or `kubernetes`"],
        ),
        (
            vec!["--source", "kubernetes"],
            vec![],
            vec!["config-dir", "the flag", "remove it"],
        ),
        (vec!["--log", "a=b=c"], vec![], vec!["log", "filter"]),
    ] {
        let mut args = RUN.to_vec();
        args.extend(flags);
        let error = read(&args, &env).unwrap_err().to_string();
        for part in says {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }
}

#[test]
fn what_must_be_said_is_asked_for_by_every_name_it_has() {
    let error = read(&["run", "--config-dir", "/c"], &[]).unwrap_err().to_string();
    for part in ["--state-dir", "HAUBERK_STATE_DIR", "`state-dir`"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn each_source_asks_for_its_own_settings() {
    let run = run_settings(&RUN, &[]);
    let directory = SourceSettings::Directory {
        config_dir: "/config".into(),
        state_dir: "/state".into(),
    };
    assert_eq!(run.source, directory);
    let kubernetes = ["run", "--source", "kubernetes"];
    let pod = ("HAUBERK_POD", "operator-0");
    let both = [pod, ("HAUBERK_NAMESPACE", "hauberk-system")];
    let expected = SourceSettings::Kubernetes(Box::new(KubernetesSettings {
        pod: "operator-0".to_owned(),
        namespace: "hauberk-system".to_owned(),
        webhook: "0.0.0.0:15017".parse().unwrap(),
        injection: inject::Config::default(),
    }));
    assert_eq!(run_settings(&kubernetes, &both).source, expected);
    for (env, says) in [(&[][..], "--pod"), (&[pod], "--namespace")] {
        let error = read(&kubernetes, env).unwrap_err().to_string();
        assert!(
            error.contains(says) && error.contains("the operator's own"),
            "{error}"
        );
    }
    let wrong = [pod, both[1], ("HAUBERK_STATE_DIR", "/s")];
    let error = read(&kubernetes, &wrong).unwrap_err().to_string();
    assert!(error.contains("state-dir") && error.contains("Secret"), "{error}");
    let file = file("state-dir: /s\nconfig-dir: /c\n");
    let args = [
        "run",
        "--source",
        "kubernetes",
        "--settings",
        file.path().to_str().unwrap(),
    ];
    assert_eq!(
        run_settings(&args, &both).source,
        expected,
        "a file may serve other commands too"
    );
}

#[test]
fn a_settings_file_with_an_unknown_key_or_shape_is_refused() {
    for (text, says) in [
        ("listn: 1\n", "listn"),
        ("listen: [1]\n", "one value"),
        ("- a\n", "settings file"),
    ] {
        let file = file(text);
        let mut args = RUN.to_vec();
        args.extend(["--settings", file.path().to_str().unwrap()]);
        let error = read(&args, &[]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn the_other_commands_read_their_own_settings() {
    let token = read(
        &[
            "token",
            "--state-dir",
            "/s",
            "--namespace",
            "shop",
            "--service-account",
            "web",
            "--pod",
            "web-0",
        ],
        &[("HAUBERK_LIFETIME", "10m")],
    );
    let Ok(Command::Token(token)) = token else {
        panic!("{token:?}")
    };
    assert_eq!(
        (token.namespace.as_str(), token.lifetime),
        ("shop", Duration::from_secs(600))
    );
    let status = read(&["status", "--admin", "127.0.0.1:15020", "--json"], &[]).unwrap();
    assert!(matches!(
        status,
        Command::Status(Status {
            output: Format::Json,
            ..
        })
    ));
    assert!(matches!(
        read(&["rotate-root", "--state-dir", "/s"], &[]).unwrap(),
        Command::RotateRoot(_)
    ));
}

#[test]
fn the_user_guide_has_every_setting_as_it_is() {
    let mut text = String::from(
        "# Settings of the operator\n\n\
         Said in a YAML file (`--settings`, or `HAUBERK_SETTINGS`), in the environment, or as flags; the later wins.\n\
         A value that cannot be used keeps the operator from starting, and the message says where it came from.\n\n\
         | Flag and file key | Environment | Default | Commands | Meaning |\n|---|---|---|---|---|\n",
    );
    for setting in &TABLE {
        let commands: Vec<_> = setting.commands.iter().map(|c| c.as_str()).collect();
        let default = setting.default.map_or("must be set".to_owned(), |d| {
            if d.is_empty() {
                "none".to_owned()
            } else {
                format!("`{d}`")
            }
        });
        let (name, env, commands) = (setting.name, setting.env(), commands.join(", "));
        text.push_str(&format!(
            "| `{name}` | `{env}` | {default} | {commands} | {} |\n",
            setting.help
        ));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/operator-settings.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, text).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/guide/operator-settings.md is out of date: run `UPDATE=1 cargo test -p control-plane guide`"
    );
}

#[test]
fn a_rotation_needs_a_state_directory_only_where_there_is_one() {
    let rotate = |args: &[&str]| match read(args, &[]) {
        Ok(Command::RotateRoot(settings)) => Ok(settings.keys),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    };
    let kubernetes = rotate(&["rotate-root", "--source", "kubernetes"]).unwrap();
    assert_eq!(kubernetes, KeysAt::Kubernetes);
    let directory = rotate(&["rotate-root", "--state-dir", "/s"]).unwrap();
    assert_eq!(directory, KeysAt::Directory("/s".into()));
    assert!(
        rotate(&["rotate-root"])
            .unwrap_err()
            .contains("state-dir: must be set")
    );
    assert!(
        rotate(&["rotate-root", "--source", "x"])
            .unwrap_err()
            .contains("`kubernetes`")
    );
}

#[test]
fn each_setting_has_one_name() {
    let names: std::collections::BTreeSet<_> = TABLE.iter().map(|s| s.name).collect();
    assert_eq!(names.len(), TABLE.len());
}
