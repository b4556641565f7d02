//! What is too large is refused by name, quickly, and what is just large enough is taken.

use std::fmt::Write;

use crds::{Object, check, parse::MAX_BYTES, virtual_service::MAX_HTTP_RULES};

const HEAD: &str = "apiVersion: hauberk.dev/v1alpha1\nkind: VirtualService\nmetadata: {name: big}\nspec:\n  hosts: [a]\n  http:\n";

fn rules(count: usize) -> String {
    let mut text = HEAD.to_owned();
    for n in 0..count {
        writeln!(
            text,
            "  - match: [{{uri: {{exact: /item/{n}}}, headers: {{x-user: {{exact: u{n}}}}}}}]"
        )
        .unwrap();
        writeln!(text, "    route: [{{destination: {{host: a, subset: v1}}, weight: 90}}, {{destination: {{host: b}}, weight: 10}}]").unwrap();
    }
    text
}

fn virtual_service(text: &str) -> Box<crds::VirtualService> {
    match crds::parse(text).pop() {
        Some(Ok(Object::VirtualService(object))) => object,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ten_thousand_rules_are_taken_and_one_more_is_refused_by_name() {
    let object = virtual_service(&rules(MAX_HTTP_RULES));
    assert_eq!(object.spec.http.len(), MAX_HTTP_RULES);
    assert_eq!(check::virtual_service(&object), []);

    let findings = check::virtual_service(&virtual_service(&rules(MAX_HTTP_RULES + 1)));
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].field, "spec.http");
    assert!(
        findings[0].message.contains("10001 rules, and 10000 is the most"),
        "{}",
        findings[0]
    );
}

#[test]
fn ten_thousand_broken_rules_give_a_bounded_answer() {
    let text = rules(MAX_HTTP_RULES).replace("exact: /item", "exact: item");
    let findings = check::virtual_service(&virtual_service(&text));
    assert_eq!(findings.len(), check::MAX_FINDINGS + 1);
    assert!(findings.last().unwrap().severity.refuses());
    assert!(
        findings.last().unwrap().message.contains("9900 more"),
        "{:?}",
        findings.last()
    );
}

#[test]
fn a_text_beyond_the_most_bytes_is_refused() {
    let text = format!("{HEAD}#{}", "x".repeat(MAX_BYTES));
    let error = crds::parse(&text).pop().unwrap().unwrap_err();
    assert!(error.message.contains("4194304 is the most"), "{error}");
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\na0: &a0 [x, x, x, x, x, x, x, x, x]\n"
            .to_owned();
    for n in 1..=9 {
        let list = vec![format!("*a{}", n - 1); 9].join(", ");
        writeln!(text, "a{n}: &a{n} [{list}]").unwrap();
    }
    let error = crds::parse(&text).pop().unwrap().unwrap_err();
    assert!(error.line.is_some(), "{error}");
}

#[test]
fn a_few_aliases_are_fine() {
    let text = format!(
        "{HEAD}  - &rule\n    match: [{{uri: {{prefix: /a}}}}]\n    route: &route [{{destination: {{host: a}}}}]\n  - route: *route\n"
    );
    let object = virtual_service(&text);
    assert_eq!(object.spec.http[0].route, object.spec.http[1].route);
}

#[test]
fn nesting_without_end_is_refused() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "a:\n ".to_owned(),
    ] {
        assert!(crds::parse(&text).iter().all(Result::is_err));
    }
}

#[test]
fn a_list_of_broken_items_gives_every_error_in_bounded_time() {
    let mut text = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
    for _ in 0..20_000 {
        text += "- {kind: Nonsense, apiVersion: v1}\n";
    }
    let results = crds::parse(&text);
    assert_eq!(results.len(), 20_000);
    assert_eq!(results[3].as_ref().unwrap_err().line, Some(7));
    assert_eq!(
        results[19_999].as_ref().unwrap_err().field.as_deref(),
        Some("items[19999].kind")
    );
}

#[test]
fn documents_without_number_are_refused() {
    let results = crds::parse(&"--- a\n".repeat(crds::parse::MAX_DOCUMENTS + 1));
    assert_eq!(results.len(), 1);
    assert!(
        results[0]
            .as_ref()
            .unwrap_err()
            .message
            .contains("more than 50000 documents")
    );
}
