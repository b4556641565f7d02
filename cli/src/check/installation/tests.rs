use super::*;
use crate::check::Outcome;
use crate::check::mesh::replica;
use crate::facts::{Dependency, Object, Pod, Unreadable};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----\n";
const SAME: &str = "# root\n-----BEGIN CERTIFICATE-----\r\nAAAABBBB\r\n-----END CERTIFICATE-----";
const OTHER: &str = "-----BEGIN CERTIFICATE-----\nCCCC\n-----END CERTIFICATE-----\n";
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn pod(namespace: &str, name: &str, injected: bool) -> Pod {
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        injected,
        exempt: false,
        running: true,
    }
}

fn webhook(kind: &'static str, pem: &str) -> Webhook {
    let bundles = Ok(Some(vec![pem.to_owned(); 2]));
    Webhook { kind, bundles }
}

/// An installation with nothing to complain of.
fn healthy() -> Installation {
    let bundle = |namespace: &str| (namespace.to_owned(), PEM.to_owned());
    Installation {
        server: Ok(pre::tests::server(33)),
        definitions: definitions::tests::current(),
        deployment: Ok(Some(Deployment {
            wanted: 2,
            ready: 2,
            updated: 2,
        })),
        endpoints: Ok(Some(2)),
        webhooks: vec![webhook("mutating", SAME), webhook("validating", PEM)],
        lease: Ok(Some(Lease {
            holder: Some("op-a".to_owned()),
            renewed_seconds_ago: Some(3),
            duration_seconds: 15,
        })),
        secret: Ok(true),
        replicas: Ok(vec![
            replica("op-a", &[("shop", "web-0", VERSION)]),
            replica("op-b", &[("shop", "web-1", VERSION)]),
        ]),
        bundles: Ok([bundle("hauberk-system"), bundle("shop")].into()),
        namespaces: Ok(["shop".to_owned()].into()),
        pods: Ok(vec![pod("shop", "web-0", true), pod("shop", "web-1", true)]),
    }
}

/// The findings that are not well, of a healthy installation in which something was changed.
fn after(change: impl FnOnce(&mut Installation)) -> Vec<(&'static str, Outcome)> {
    let mut facts = healthy();
    change(&mut facts);
    let findings = check(&facts).into_iter();
    let bad = findings.filter(|f| f.outcome != Outcome::Ok);
    bad.map(|f| {
        assert!(f.remedy.is_some(), "{f:?}");
        (f.check, f.outcome)
    })
    .collect()
}

#[test]
fn a_healthy_installation_passes_every_check() {
    assert_eq!(after(|_| {}), []);
}

#[test]
fn each_thing_that_can_be_wrong_with_the_operators_is_found() {
    use Outcome::{Fail, Warn};
    type Change = fn(&mut Installation);
    for (found, outcome) in [
        (None, Fail),
        (Some((2, 0, 2)), Fail),
        (Some((2, 1, 2)), Warn),
        (Some((2, 2, 1)), Warn),
        (Some((1, 1, 1)), Warn),
    ] {
        let found = found.map(|(wanted, ready, updated)| Deployment {
            wanted,
            ready,
            updated,
        });
        assert_eq!(after(|f| f.deployment = Ok(found)), [("operators", outcome)]);
    }
    let more: [(Change, &str, Outcome); 11] = [
        (|f| f.endpoints = Ok(None), "service", Fail),
        (|f| f.endpoints = Ok(Some(0)), "service", Fail),
        (|f| f.lease = Ok(None), "lease", Fail),
        (
            |f| f.lease.as_mut().unwrap().as_mut().unwrap().holder = None,
            "lease",
            Fail,
        ),
        (
            |f| f.lease.as_mut().unwrap().as_mut().unwrap().renewed_seconds_ago = Some(60),
            "lease",
            Fail,
        ),
        (
            |f| f.lease.as_mut().unwrap().as_mut().unwrap().holder = Some("gone".to_owned()),
            "lease",
            Warn,
        ),
        (|f| f.secret = Ok(false), "authority", Fail),
        (|f| f.secret = Err("forbidden".to_owned()), "authority", Warn),
        (|f| f.webhooks[0].bundles = Ok(None), "webhook for pods", Warn),
        (
            |f| f.webhooks[0] = webhook("mutating", ""),
            "webhook for pods",
            Fail,
        ),
        (
            |f| f.webhooks[1] = webhook("validating", OTHER),
            "webhook for objects",
            Fail,
        ),
    ];
    for (change, check, outcome) in more {
        assert_eq!(after(change), [(check, outcome)]);
    }
}

#[test]
fn what_an_operator_says_of_its_parts_is_passed_on() {
    let sick = |status: &'static str| {
        after(move |f| {
            let health = f.replicas.as_mut().unwrap()[1].health.as_mut().unwrap();
            health.status = status.to_owned();
            health.dependencies = vec![Dependency {
                name: "authority".to_owned(),
                status: status.to_owned(),
                detail: "the one that signs ends in 9 days".to_owned(),
            }];
        })
    };
    assert_eq!(sick("degraded"), [("health", Outcome::Warn)]);
    assert_eq!(sick("failing"), [("health", Outcome::Fail)]);
    let silent = after(|f| f.replicas.as_mut().unwrap()[1].health = Err("refused".to_owned()));
    assert_eq!(silent, [("health", Outcome::Warn)]);
}

#[test]
fn each_thing_that_can_be_wrong_with_the_mesh_is_found() {
    use Outcome::{Fail, Warn};
    type Change = fn(&mut Installation);
    fn bundles(f: &mut Installation) -> &mut std::collections::BTreeMap<String, String> {
        f.bundles.as_mut().unwrap()
    }
    fn status(f: &mut Installation) -> &mut crate::facts::Status {
        f.replicas.as_mut().unwrap()[0].status.as_mut().unwrap()
    }
    let cases: [(Change, &str, Outcome); 8] = [
        (|f| drop(bundles(f).remove("shop")), "trust bundles", Fail),
        (
            |f| drop(bundles(f).insert("shop".to_owned(), OTHER.to_owned())),
            "trust bundles",
            Fail,
        ),
        (
            |f| f.pods.as_mut().unwrap().push(pod("shop", "old", false)),
            "injection",
            Warn,
        ),
        (
            |f| f.pods.as_mut().unwrap().push(pod("shop", "web-2", true)),
            "proxies",
            Warn,
        ),
        (
            |f| status(f).proxies[0].proxy_version = "0.0.9".to_owned(),
            "versions",
            Warn,
        ),
        (|f| status(f).proxies[0].refused = 1, "objects", Warn),
        (|f| status(f).objects.push(Object::default()), "objects", Warn),
        (
            |f| status(f).unreadable.push(Unreadable::default()),
            "objects",
            Warn,
        ),
    ];
    for (change, check, outcome) in cases {
        assert_eq!(after(change), [(check, outcome)]);
    }
}

#[test]
fn pods_that_declined_or_do_not_run_yet_are_no_complaint() {
    let found = after(|f| {
        let exempt = Pod {
            exempt: true,
            ..pod("shop", "host", false)
        };
        let starting = Pod {
            running: false,
            ..pod("shop", "starting", true)
        };
        f.pods.as_mut().unwrap().extend([exempt, starting]);
    });
    assert_eq!(found, []);
}

#[test]
fn the_remedy_for_old_pods_names_their_namespace() {
    let mut facts = healthy();
    facts.pods.as_mut().unwrap().push(pod("shop", "old", false));
    let finding = check(&facts)
        .into_iter()
        .find(|f| f.check == "injection")
        .unwrap();
    assert!(finding.says.ends_with("1 pod in shop"), "{}", finding.says);
    assert!(finding.remedy.unwrap().ends_with("--namespace shop"));
}
