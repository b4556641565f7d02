//! The command `hauberk inject` from outside: what goes to which stream, and the exit code.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
        - { name: app, image: app }
";

fn inject(text: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hauberk"))
        .args(["inject", "-f", "-", "--image", "here:2"])
        // It must ask no cluster.
        .env("KUBECONFIG", "/none")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_file_goes_out_with_proxies_and_the_notes_go_beside_it() {
    let output = inject(DEPLOYMENT);
    let (out, notes) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{notes}");
    let object: serde_json::Value = serde_saphyr::from_str(&out).unwrap();
    let pod = &object["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"][api::names::INJECTED_LABEL], "true");
    let init = &pod["spec"]["initContainers"][0];
    assert_eq!(
        (&init["name"], &init["image"]),
        (&"hauberk-init".into(), &"here:2".into())
    );
    assert!(notes.contains("Deployment shop/web"), "{notes}");
}

#[test]
fn what_cannot_be_injected_leaves_nothing_on_the_output() {
    let broken = DEPLOYMENT.replace(
        "labels: { app: web } }\n    spec",
        "annotations: { hauberk.dev/log-level: loud } }\n    spec",
    );
    let output = inject(&format!("{DEPLOYMENT}---\n{broken}"));
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(1), 0),
        "{notes}"
    );
    assert!(
        notes.contains("document 2") && notes.contains("hauberk.dev/log-level"),
        "{notes}"
    );
}
