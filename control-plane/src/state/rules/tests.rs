use api::StringMatch;

use super::*;

fn rules(yaml: &str) -> Result<Rules, Vec<Invalid>> {
    Rules::new(&serde_saphyr::from_str(yaml).unwrap(), "shop")
}

fn first(yaml: &str) -> HttpTemplate {
    rules(&format!("{{hosts: [reviews], http: [{yaml}]}}"))
        .unwrap()
        .http
        .remove(0)
}

const ROUTE: &str = "route: [{destination: {host: a}}]";

#[test]
fn conditions_are_compiled_once_with_spellings_that_mean_the_same() {
    let rule = first(&format!(
        "{{match: [{{uri: {{prefix: /a}}, authority: {{exact: Shop.Local}}, scheme: {{exact: HTTPS}},
          headers: {{X-User: {{exact: Jason}}, x-any: {{}}}}, withoutHeaders: {{x-no: {{regex: 'a|b'}}}},
          queryParams: {{q: {{prefix: z}}}}, ignoreUriCase: true, port: 80, sourceNamespace: shop,
          sourceLabels: {{app: web}}}}], {ROUTE}}}"
    ));
    let (filter, condition) = &rule.blocks[0];
    assert_eq!(
        (filter.port, filter.source_namespace.as_deref()),
        (Some(80), Some("shop"))
    );
    assert_eq!(condition.authority, Some(StringMatch::Exact("shop.local".into())));
    assert_eq!(condition.scheme, Some(StringMatch::Exact("https".into())));
    let names: Vec<_> = condition
        .headers
        .iter()
        .map(|h| (h.name.as_str(), h.value.clone()))
        .collect();
    assert!(names.contains(&("x-user", StringMatch::Exact("Jason".into()))));
    assert!(names.contains(&("x-any", StringMatch::Present)));
    assert!(condition.without_headers[0].value.is_match("b") && condition.ignore_uri_case);
    assert_eq!(condition.query[0].name, "q");
}

#[test]
fn a_single_destination_gets_everything_and_several_their_weights() {
    let weights = |route: &str| {
        let rule = first(&format!("{{route: {route}}}"));
        let ActionTemplate::Forward(forward) = rule.action else {
            panic!("{rule:?}")
        };
        forward.shares.iter().map(|s| s.weight).collect::<Vec<_>>()
    };
    assert_eq!(weights("[{destination: {host: a}, weight: 0}]"), [1]);
    let three = "[{destination: {host: a}, weight: 90}, {destination: {host: b}}, {destination: {host: c}, weight: 10}]";
    assert_eq!(weights(three), [90, 0, 10]);
}

#[test]
fn actions_carry_their_fields() {
    let forward = first(
        "{route: [{destination: {host: a}}], timeout: 0s, rewrite: {uri: /new, authority: other},
          headers: {request: {set: {x-a: '1'}, remove: [x-b]}, response: {add: {x-c: '2'}}}}",
    );
    let ActionTemplate::Forward(to) = &forward.action else {
        panic!("{forward:?}")
    };
    assert_eq!((to.timeout, &to.retry), (Some(Duration::ZERO), &None));
    assert_eq!(to.rewrite.as_ref().and_then(|r| r.uri.as_deref()), Some("/new"));
    let regex = first(
        "{route: [{destination: {host: a}}], rewrite: {uriRegexRewrite: {match: '/(a)', rewrite: '/b\\1'}}}",
    );
    let ActionTemplate::Forward(to) = &regex.action else {
        panic!("{regex:?}")
    };
    let rewrite = to.rewrite.as_ref().and_then(|r| r.uri_regex.as_ref()).unwrap();
    assert_eq!(rewrite.apply("/ac", 10).as_deref(), Some("/bac"));
    assert_eq!(
        (
            forward.request_headers.set.len(),
            forward.request_headers.remove.len()
        ),
        (1, 1)
    );
    assert_eq!(forward.response_headers.add.len(), 1);

    let redirect = first("{redirect: {uri: /x, authority: 'a:81', redirectCode: 308, port: 82}}");
    let ActionTemplate::Redirect {
        redirect,
        to_own_port: false,
    } = redirect.action
    else {
        panic!("{redirect:?}")
    };
    assert_eq!((redirect.status.as_u16(), redirect.port), (308, Some(82)));
    assert_eq!(redirect.authority.as_ref().map(|a| a.as_str()), Some("a:81"));

    let own = first("{redirect: {prefixRewrite: /v2, derivePort: FROM_REQUEST_PORT}}");
    let ActionTemplate::Redirect {
        redirect,
        to_own_port: true,
    } = own.action
    else {
        panic!("{own:?}")
    };
    assert_eq!(redirect.prefix_rewrite.as_deref(), Some("/v2"));

    for (body, expected) in [("{string: hi}", "hi"), ("{bytes: aGk=}", "hi")] {
        let direct = first(&format!("{{directResponse: {{status: 418, body: {body}}}}}"));
        let ActionTemplate::Direct(direct) = direct.action else {
            panic!("{direct:?}")
        };
        assert_eq!(
            (direct.status.as_u16(), &direct.body[..]),
            (418, expected.as_bytes())
        );
    }
}

#[test]
fn what_a_proxy_would_refuse_is_refused_by_field() {
    for (rule, field) in [
        (
            format!("{{match: [{{}}, {{uri: {{regex: '('}}}}], {ROUTE}}}"),
            "spec.http[0].match[1].uri.regex",
        ),
        (
            format!("{{match: [{{uri: {{exact: a, prefix: b}}}}], {ROUTE}}}"),
            "spec.http[0].match[0].uri",
        ),
        (
            format!("{{match: [{{port: 70000}}], {ROUTE}}}"),
            "spec.http[0].match[0].port",
        ),
        (
            "{route: [{destination: {host: api.example.com}}]}".into(),
            "spec.http[0].route[0].destination.host",
        ),
        ("{route: []}".into(), "spec.http[0].route"),
        (
            "{route: [{destination: {host: a}}, {destination: {host: b}}]}".into(),
            "spec.http[0].route",
        ),
        (
            format!("{{{ROUTE}, headers: {{request: {{set: {{Host: x}}}}}}}}"),
            "spec.http[0].headers.request.set[0].name",
        ),
        (
            format!("{{{ROUTE}, retries: {{attempts: 1000}}}}"),
            "spec.http[0].retries.attempts",
        ),
        (
            format!("{{{ROUTE}, fault: {{delay: {{percent: 1}}}}}}"),
            "spec.http[0].fault.delay.fixedDelay",
        ),
        (
            format!("{{{ROUTE}, mirror: {{host: api.example.com}}}}"),
            "spec.http[0].mirror.host",
        ),
        (
            format!("{{{ROUTE}, mirrors: [{{destination: {{host: b}}, percentage: {{value: 101}}}}]}}"),
            "spec.http[0].mirrors[0].percentage.value",
        ),
        (
            "{redirect: {uri: /a}, mirror: {host: a}}".into(),
            "spec.http[0].mirror",
        ),
        ("{redirect: {uri: /a}, fault: {}}".into(), "spec.http[0].fault"),
        (
            format!("{{{ROUTE}, rewrite: {{uri: nowhere}}}}"),
            "spec.http[0].rewrite.uri",
        ),
        (
            format!("{{{ROUTE}, rewrite: {{uriRegexRewrite: {{match: a, rewrite: '\\1'}}}}}}"),
            "spec.http[0].rewrite.uri_regex.replacement",
        ),
        (
            "{redirect: {redirectCode: 200}}".into(),
            "spec.http[0].redirect.status",
        ),
        (
            "{directResponse: {status: 100}}".into(),
            "spec.http[0].directResponse.status",
        ),
        (
            "{directResponse: {status: 200, body: {bytes: '?'}}}".into(),
            "spec.http[0].directResponse.body.bytes",
        ),
    ] {
        let problems = rules(&format!("{{hosts: [reviews], http: [{rule}]}}")).unwrap_err();
        assert_eq!(problems[0].field, field, "{rule}");
    }
    let gateways = rules(&format!("{{hosts: [a], gateways: [ns/g], http: [{{{ROUTE}}}]}}")).unwrap_err();
    assert_eq!(gateways[0].field, "spec.gateways");
    let names = rules(&format!(
        "{{hosts: [a], tls: [{{match: [{{sniHosts: ['a b']}}], {ROUTE}}}]}}"
    ))
    .unwrap_err();
    assert_eq!(names[0].field, "spec.tls[0].match[0].sniHosts[0]");
}

#[test]
fn each_target_is_referred_to_once_where_it_comes_first() {
    let rules = rules(
        "{hosts: [reviews, api.example.com],
          http: [{route: [{destination: {host: a}}], mirror: {host: a}}, {route: [{destination: {host: a}}, {destination: {host: b.x, subset: v1}, weight: 1}],
                  mirrors: [{destination: {host: b.x}, percentage: {value: 0}}, {destination: {host: a, subset: v2}}]}],
          tcp: [{route: [{destination: {host: a.shop.svc.cluster.local}}]}]}",
    )
    .unwrap();
    let fields: Vec<_> = rules.references.iter().map(|r| r.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.http[0].route[0].destination",
            "spec.http[1].route[1].destination",
            "spec.http[1].mirrors[1].destination"
        ]
    );
    assert_eq!(
        rules.steered().collect::<Vec<_>>(),
        [&ServiceName::new("shop", "reviews")]
    );
    let named: BTreeSet<_> = rules.services().map(ToString::to_string).collect();
    assert_eq!(named.len(), 3);
}

#[test]
fn a_filter_holds_for_the_client_and_port_it_names() {
    let proxy = Proxy {
        namespace: "shop".into(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        ..Proxy::default()
    };
    let labels = |value: &str| BTreeMap::from([("app".to_owned(), value.to_owned())]);
    for (port, namespace, labels, expected) in [
        (None, None, BTreeMap::new(), true),
        (Some(80), None, BTreeMap::new(), true),
        (Some(81), None, BTreeMap::new(), false),
        (None, Some("shop"), BTreeMap::new(), true),
        (None, Some("other"), BTreeMap::new(), false),
        (None, None, labels("web"), true),
        (None, None, labels("db"), false),
    ] {
        let filter = Filter {
            port,
            source_namespace: namespace.map(str::to_owned),
            source_labels: labels,
        };
        assert_eq!(filter.holds(&proxy, 80), expected, "{filter:?}");
    }
}

#[test]
fn a_duration_shorter_than_a_millisecond_does_not_become_none() {
    assert_eq!(whole_ms(Duration::from_nanos(1)), Duration::from_millis(1));
    assert_eq!(whole_ms(Duration::from_micros(1500)), Duration::from_millis(2));
    assert_eq!(whole_ms(Duration::ZERO), Duration::ZERO);
}
