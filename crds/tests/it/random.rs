//! Random input: no text panics, and what is written reads back.

use crds::{
    DestinationRule, DestinationRuleSpec, Duration, Object, StringMatch, VirtualService, VirtualServiceSpec,
    check,
    destination_rule::{
        CircuitBreaker, OutlierDetection, RetryBudget, Subset, TrafficPolicy,
        load_balancer::{LoadBalancer, SimpleBalancer},
    },
    virtual_service::{
        Destination, HttpMatch, HttpRoute, HttpRouteDestination,
        http::{HeaderChanges, Headers, Redirect},
        resilience::{Percent, Retry},
        route::PortSelector,
    },
};
use proptest::{collection, option, prelude::*};

/// Texts as people and machines write them, those that YAML likes to misread among them.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,12}",
        "\\PC{0,20}",
        prop::sample::select(vec![
            "yes",
            "no",
            "null",
            "~",
            "1",
            "1.0",
            "0x1",
            "true",
            "",
            " ",
            "# a",
            "- a",
            "a: b",
            "---",
            "\n",
            "'",
            "\"",
            "1e3",
            ".inf",
            "2026-01-01",
            "<<"
        ])
        .prop_map(str::to_owned),
    ]
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..=Duration::MAX.get().as_millis() as u64).prop_map(Duration::from_millis)
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    (0..4, text()).prop_map(|(which, text)| match which {
        0 => StringMatch::exact(text),
        1 => StringMatch::prefix(text),
        2 => StringMatch::regex(text),
        _ => StringMatch::default(),
    })
}

fn headers() -> impl Strategy<Value = Headers> {
    let changes = || {
        let map = || collection::btree_map(text(), text(), 0..3);
        (map(), map(), collection::vec(text(), 0..3)).prop_map(|(set, add, remove)| HeaderChanges {
            set,
            add,
            remove,
        })
    };
    (option::of(changes()), option::of(changes()))
        .prop_map(|(request, response)| Headers { request, response })
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let map = || collection::btree_map(text(), string_match(), 0..3);
    (
        option::of(string_match()),
        map(),
        map(),
        option::of(0..70_000u32),
        option::of(any::<bool>()),
    )
        .prop_map(|(uri, headers, query_params, port, ignore_uri_case)| HttpMatch {
            uri,
            headers,
            query_params,
            port,
            ignore_uri_case,
            ..HttpMatch::default()
        })
}

fn destination() -> impl Strategy<Value = HttpRouteDestination> {
    (
        text(),
        option::of(text()),
        option::of(any::<u32>()),
        option::of(any::<i32>()),
        option::of(headers()),
    )
        .prop_map(|(host, subset, port, weight, headers)| HttpRouteDestination {
            destination: Destination {
                host,
                subset,
                port: port.map(|number| PortSelector { number }),
            },
            weight,
            headers,
        })
}

fn retry() -> impl Strategy<Value = Retry> {
    (
        option::of(any::<u32>()),
        option::of(duration()),
        option::of(text()),
    )
        .prop_map(|(attempts, per_try_timeout, retry_on)| Retry {
            attempts,
            per_try_timeout,
            retry_on,
            ..Retry::default()
        })
}

fn virtual_service() -> impl Strategy<Value = VirtualService> {
    let redirect = option::of(
        (option::of(text()), option::of(text()), option::of(any::<u32>())).prop_map(
            |(uri, authority, redirect_code)| Redirect {
                uri,
                authority,
                redirect_code,
                ..Redirect::default()
            },
        ),
    );
    let percent = option::of((0.0..=100.0).prop_map(|value| Percent { value }));
    let rule = (
        collection::vec(http_match(), 0..3),
        collection::vec(destination(), 0..3),
        redirect,
        option::of(duration()),
        option::of(retry()),
        percent,
        option::of(headers()),
    )
        .prop_map(
            |(r#match, route, redirect, timeout, retries, mirror_percentage, headers)| HttpRoute {
                r#match,
                route,
                redirect,
                timeout,
                retries,
                mirror_percentage,
                headers,
                ..HttpRoute::default()
            },
        );
    (collection::vec(text(), 0..3), collection::vec(rule, 0..4)).prop_map(|(hosts, http)| {
        let spec = VirtualServiceSpec {
            hosts,
            http,
            ..VirtualServiceSpec::default()
        };
        let mut object = VirtualService::new("random", spec);
        object.metadata.namespace = Some("default".to_owned());
        object
    })
}

fn destination_rule() -> impl Strategy<Value = DestinationRule> {
    use SimpleBalancer::{LeastConn, LeastRequest, Passthrough, PeakEwma, Random, RoundRobin, Unspecified};
    let simple = prop::sample::select(vec![
        LeastConn,
        LeastRequest,
        Passthrough,
        PeakEwma,
        Random,
        RoundRobin,
        Unspecified,
    ]);
    let balancer = simple.prop_map(|simple| LoadBalancer {
        simple: Some(simple),
        ..LoadBalancer::default()
    });
    let breaker = (any::<u32>(), duration(), any::<u32>()).prop_map(
        |(failure_threshold, recovery_timeout, half_open_requests)| CircuitBreaker {
            failure_threshold,
            recovery_timeout,
            half_open_requests,
        },
    );
    let detection =
        (option::of(any::<u32>()), option::of(duration())).prop_map(|(consecutive_5xx_errors, interval)| {
            OutlierDetection {
                consecutive_5xx_errors,
                interval,
                ..OutlierDetection::default()
            }
        });
    let budget =
        option::of(any::<f64>().prop_filter("finite", |f| f.is_finite())).prop_map(|percent| RetryBudget {
            percent,
            ..RetryBudget::default()
        });
    let policy = (
        option::of(balancer),
        option::of(breaker),
        option::of(detection),
        option::of(budget),
    )
        .prop_map(
            |(load_balancer, circuit_breaker, outlier_detection, retry_budget)| TrafficPolicy {
                load_balancer,
                circuit_breaker,
                outlier_detection,
                retry_budget,
                ..TrafficPolicy::default()
            },
        );
    let policy = option::of(policy).boxed();
    let labels = collection::btree_map(text(), text(), 0..3);
    let subset = (text(), labels, policy.clone()).prop_map(|(name, labels, traffic_policy)| Subset {
        name,
        labels,
        traffic_policy,
    });
    (text(), policy, collection::vec(subset, 0..3)).prop_map(|(host, traffic_policy, subsets)| {
        let spec = DestinationRuleSpec {
            host,
            traffic_policy,
            subsets,
            ..DestinationRuleSpec::default()
        };
        let mut object = DestinationRule::new("random", spec);
        object.metadata.namespace = Some("default".to_owned());
        object
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_text_panics(text in "(\\PC|\n|\t|: |- |---\n|[\\[\\]{}&*!|>'\"%@`#,?<]){0,80}") {
        let _ = crds::parse(&text);
    }

    #[test]
    fn no_damaged_manifest_panics(at in 0..400usize, len in 0..20usize, with in "\\PC{0,5}") {
        let text = "apiVersion: hauberk.dev/v1alpha1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  \
                    http:\n  - match: &m\n    - uri: {regex: '^/[a-z]+'}\n      headers: {x: {exact: \"1\"}}\n    timeout: 1.5s\n    \
                    route:\n    - {destination: {host: a, port: {number: 80}}, weight: 5}\n  - match: *m\n    redirect: {uri: /x}\n";
        let at = text.floor_char_boundary(at.min(text.len()));
        let end = text.floor_char_boundary((at + len).min(text.len()));
        let damaged = format!("{}{with}{}", &text[..at], &text[end..]);
        for object in crds::parse(&damaged).into_iter().flatten() {
            crate::examples::findings(&object);
        }
    }

    #[test]
    fn a_virtual_service_reads_back_and_is_judged(object in virtual_service()) {
        let text = serde_saphyr::to_string(&object).unwrap();
        let findings = check::virtual_service(&object);
        prop_assert_eq!(crds::parse(&text), [Ok(Object::VirtualService(Box::new(object)))], "{}", text);
        for finding in findings {
            prop_assert!(!finding.to_string().chars().any(char::is_control), "{finding:?}");
        }
    }

    #[test]
    fn a_destination_rule_reads_back_and_is_judged(object in destination_rule()) {
        let text = serde_saphyr::to_string(&object).unwrap();
        let findings = check::destination_rule(&object);
        prop_assert_eq!(crds::parse(&text), [Ok(Object::DestinationRule(Box::new(object)))], "{}", text);
        for finding in findings {
            prop_assert!(!finding.to_string().chars().any(char::is_control), "{finding:?}");
        }
    }
}
