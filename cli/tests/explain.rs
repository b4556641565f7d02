//! The command `hauberk explain` from outside: a folder, compiled by the operator and decided by the proxy.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {containers: []}
status: {podIP: 10.0.0.9, podIPs: [{ip: 10.0.0.9}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-1, namespace: shop, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: reviews-v1, namespace: shop}}
- {addresses: [10.0.0.2], conditions: {ready: true}, targetRef: {kind: Pod, name: reviews-v2, namespace: shop}}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1, namespace: shop, labels: {app: reviews, version: v1}}
spec: {containers: []}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v2, namespace: shop, labels: {app: reviews, version: v2}}
spec: {containers: []}
status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: hauberk.dev/v1alpha1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy:
    circuitBreaker: {failureThreshold: 3, recoveryTimeout: 2s}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: hauberk.dev/v1alpha1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - name: testers
    match: [{headers: {x-user: {exact: alice}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - name: batch
    match: [{sourceLabels: {app: batch}}]
    directResponse: {status: 429}
  - name: everybody
    timeout: 2s
    route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
---
apiVersion: hauberk.dev/v1alpha1
kind: VirtualService
metadata: {name: ratings, namespace: shop}
spec:
  hosts: [ratings]
  http: [{route: [{destination: {host: ratings, subset: v7}}]}]
"#;

/// Exit code, output and errors of a question about the folder.
fn ask(asked: &[&str]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("shop.yaml"), MANIFESTS).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hauberk"))
        .args(["explain", "-f"])
        .arg(dir.path())
        .args(asked)
        // It must ask no cluster.
        .env("KUBECONFIG", "/none")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn explained(asked: &[&str]) -> Value {
    let (code, out, errors) = ask(&[asked, &["-o", "json"]].concat());
    assert_eq!(code, Some(0), "{errors}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_folder_says_rule_split_policies_endpoints_and_what_is_not_in_force() {
    let (code, out, errors) = ask(&["--from", "shop/web", "GET", "http://reviews:8080/a"]);
    assert_eq!(code, Some(0), "{errors}");
    for says in [
        "from  shop/web-1 with app=web",
        "request  GET http://reviews:8080/a",
        "rule `testers` (#1) of VirtualService shop/reviews: header x-user is \"alice\" is not met, there is none",
        "rule `everybody` (#2) of VirtualService shop/reviews: takes every request",
        "timeout 2s",
        "90 %  reviews.shop.svc.cluster.local:8080|v1",
        "10 %  reviews.shop.svc.cluster.local:8080|v2",
        "as DestinationRule shop/reviews says:",
        "breaker: 3 failures in a row open it for 2s",
        "10.0.0.1:8080 reviews-v1",
        "10.0.0.2:8080 reviews-v2",
        "may be chosen",
    ] {
        assert!(out.contains(says), "{says}\nis not in\n{out}");
    }
    assert!(
        errors.contains("VirtualService shop/ratings: not in force: "),
        "{errors}"
    );
    assert!(
        errors.contains("Deployment"),
        "what is passed over is named: {errors}"
    );
}

#[test]
fn the_request_and_its_caller_decide() {
    for (asked, outcome, clusters) in [
        (
            &["--from", "shop/web", "-H", "x-user: alice"][..],
            "is sent to an endpoint of the cluster",
            1,
        ),
        (
            &["--from", "shop/batch", "-l", "app=batch"],
            "is answered by the proxy with 429",
            0,
        ),
        (&["--from", "bank/web"], "one of the clusters", 2),
    ] {
        let told = explained(&[asked, &["GET", "http://reviews.shop:8080/"]].concat());
        assert!(
            told["outcome"].as_str().unwrap().contains(outcome),
            "{asked:?} {told}"
        );
        let found = told["clusters"].as_array().map_or(0, Vec::len);
        assert_eq!(found, clusters, "{asked:?} {told}");
    }
    let outside = explained(&[
        "--from",
        "shop/web",
        "--address",
        "192.0.2.1:80",
        "GET",
        "http://example.com/",
    ]);
    assert!(
        outside["outcome"].as_str().unwrap().contains("passed on"),
        "{outside}"
    );
}

#[test]
fn what_cannot_be_explained_says_why_with_exit_code_2() {
    for (asked, says) in [
        (
            &["--from", "shop/web", "GET", "http://nothing/"][..],
            "no Service nothing",
        ),
        (
            &["--from", "shop/web", "GET", "https://reviews/"],
            "TLS is passed on",
        ),
        (&["--from", "shop/web", "GET", "/a"], "no host"),
        (&["--from", "web", "GET", "http://reviews/"], "NAMESPACE/NAME"),
        (&["GET", "http://reviews/"], "--from"),
    ] {
        let (code, out, errors) = ask(asked);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{asked:?} {errors}");
        assert!(errors.contains(says), "{asked:?} {errors}");
    }
}

/// Asks a proxy that answers with `answer`; gives what it was asked beside the outcome.
fn ask_proxy(answer: &'static str, asked: &[&str]) -> (String, (Option<i32>, String, String)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let proxy = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(head).unwrap()
    });
    let output = Command::new(env!("CARGO_BIN_EXE_hauberk"))
        .args(["explain", "--proxy", &address])
        .args(asked)
        .env("KUBECONFIG", "/none")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let told = (output.status.code(), text(output.stdout), text(output.stderr));
    (proxy.join().unwrap(), told)
}

#[test]
fn a_proxy_is_asked_the_same_question_and_its_words_are_printed() {
    let asked = ["-H", "x-user: a&b", "PUT", "http://reviews:8080/a?b=c"];
    let (head, told) = ask_proxy("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhy\n\n", &asked);
    assert_eq!(told, (Some(0), "why\n\n".to_owned(), String::new()));
    let line = "GET /explain?url=http%3A%2F%2Freviews%3A8080%2Fa%3Fb%3Dc&method=PUT&header=x-user%3A%20a%26b HTTP/1.1\r\n";
    assert!(head.starts_with(line), "{head}");

    let (_, (code, out, errors)) = ask_proxy("HTTP/1.1 404 Not Found\r\n\r\nno such Service\n", &asked);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(
        errors.contains("404") && errors.contains("no such Service"),
        "{errors}"
    );
}
