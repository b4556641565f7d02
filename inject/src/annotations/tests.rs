use super::*;

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries
        .iter()
        .map(|(k, v)| (format!("{NAME_PREFIX}{k}"), (*v).to_owned()))
        .collect()
}

fn overlaid(annotations: &[(&str, &str)]) -> Result<Config, Vec<Invalid>> {
    overlay(&Config::default(), &map(annotations), &BTreeMap::new())
}

#[test]
fn a_pod_changes_what_it_names_and_nothing_else() {
    let config = overlaid(&[
        ("skip-outbound-ports", "5432, 25"),
        ("proxy-cpu-limit", "2"),
        ("proxy-memory-request", "64Mi"),
        ("log-level", "debug"),
        ("access-log", "json"),
        ("proxy-image", "mirror.example:5000/hauberk-proxy@sha256:00ff"),
        ("drain-delay", "15s"),
        ("drain-timeout", "1m"),
        ("weight", "5"),
        ("inject", "true"),
    ])
    .unwrap();
    let mut expected = Config {
        skip_outbound_ports: "25,5432".parse().unwrap(),
        log: "debug".parse().unwrap(),
        access_log: crate::AccessLog::Json,
        image: "mirror.example:5000/hauberk-proxy@sha256:00ff".to_owned(),
        drain_delay: "15s".parse().unwrap(),
        drain_timeout: "60s".parse().unwrap(),
        ..Config::default()
    };
    expected.resources.limits.cpu = Some("2".parse().unwrap());
    expected.resources.requests.memory = Some("64Mi".parse().unwrap());
    assert_eq!(config, expected);
}

#[test]
fn lists_of_a_pod_are_added_to_those_of_the_installation() {
    let installation = Config {
        skip_outbound_cidrs: "169.254.169.254/32".parse().unwrap(),
        ..Config::default()
    };
    let annotations = map(&[("skip-outbound-cidrs", "10.0.0.0/8")]);
    let config = overlay(&installation, &annotations, &BTreeMap::new()).unwrap();
    assert_eq!(
        config.skip_outbound_cidrs.to_string(),
        "10.0.0.0/8,169.254.169.254/32"
    );
}

#[test]
fn what_cannot_be_honoured_is_refused_with_its_name_and_the_remedy() {
    for (name, value, remedy) in [
        ("skip-outbound-ports", "http", "a number from 1 to 65535"),
        ("skip-outbound-ports", "0", "a number from 1 to 65535"),
        ("skip-inbound-ports", "90-80", "the smaller port first"),
        ("skip-outbound-cidrs", "example.org", "10.0.0.0/8"),
        ("skip-outbound-cidrs", "10.1.0.0/8", "10.0.0.0/8 for the network"),
        ("skip-inbound-cidrs", "10.0.0.0/33", "fd00::/8"),
        ("proxy-cpu-request", "lots", "100m or 2 of CPU"),
        ("proxy-cpu-request", "0", "100m"),
        ("proxy-cpu-limit", "", "100m or 2 of CPU"),
        (
            "proxy-cpu-limit",
            "10m",
            "set hauberk.dev/proxy-cpu-limit as well",
        ),
        ("proxy-memory-request", "64", "with the unit"),
        ("proxy-memory-request", "128m", "with the unit"),
        (
            "proxy-memory-request",
            "1Gi",
            "set hauberk.dev/proxy-memory-limit as well",
        ),
        ("proxy-memory-limit", "64MB", "64Mi"),
        ("log-level", "loud", "off, error, warn, info, debug, trace"),
        ("access-log", "yes", "off, text or json"),
        ("proxy-image", "", "name:tag"),
        ("proxy-image", "hauberk proxy", "name:tag"),
        ("drain-delay", "5", "250ms or 5s"),
        ("drain-timeout", "two minutes", "250ms or 5s"),
        ("drain-timeout", "2000h", "24h at most"),
        (
            "skip-outbond-ports",
            "25",
            "did you mean hauberk.dev/skip-outbound-ports?",
        ),
        ("injct", "true", "did you mean hauberk.dev/inject?"),
        ("colour-of-the-mail", "grey", "docs/guide/injection.md"),
    ] {
        let problems = overlaid(&[(name, value)]).unwrap_err();
        let [problem] = &problems[..] else {
            panic!("{name}: {value}: {problems:?}");
        };
        // A limit below the installation's request is seen at the request.
        if name != "proxy-cpu-limit" || value.is_empty() {
            assert_eq!(problem.field, format!("metadata.annotations[hauberk.dev/{name}]"));
        }
        assert!(
            problem.problem.contains(remedy),
            "{name}: {value}: {}",
            problem.problem
        );
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let problems = overlaid(&[("drain-delay", "x"), ("log-level", "x"), ("nonsense", "x")]).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn an_annotation_that_was_written_as_a_label_is_not_passed_over() {
    let labels = map(&[("inject", "true"), ("log-level", "debug"), ("injectd", "true")]);
    let problems = overlay(&Config::default(), &BTreeMap::new(), &labels).unwrap_err();
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("metadata.labels[hauberk.dev/injectd]") && told[0].contains("did you mean"),
        "{told:?}"
    );
    assert!(told[1].contains("move it to metadata.annotations"), "{told:?}");
}

#[test]
fn annotations_of_others_are_no_business_of_ours() {
    let annotations = BTreeMap::from([("example.org/log-level".to_owned(), "loud".to_owned())]);
    assert!(overlay(&Config::default(), &annotations, &BTreeMap::new()).is_ok());
}

#[test]
fn distances_count_letters() {
    for (one, other, expected) in [
        ("", "abc", 3),
        ("abc", "abc", 0),
        ("abc", "axc", 1),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!(distance(one, other), expected, "{one} {other}");
    }
}
