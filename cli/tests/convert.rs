//! The command `hauberk convert` from outside: what goes to which stream, and the exit code.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::Path;
use std::process::Command;

const SAME: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop} # whose
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
";

/// Exit code, output and notes of a conversion of files.
fn convert(path: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hauberk"))
        .args(["convert", "-f"])
        .arg(path)
        // It must ask no cluster.
        .env("KUBECONFIG", "/none")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_exit_code_says_whether_anything_differs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    let differs = SAME.replace("subsets", "trafficPolicy: {outlierDetection: {}}, subsets");
    let refused = SAME.replace("subsets", "exportTo: ['*', a], subsets");
    let absent = SAME.replace("DestinationRule", "ServiceEntry");
    for (text, code, says) in [
        (SAME, 0, ""),
        (
            differs.as_str(),
            3,
            "spec.trafficPolicy.outlierDetection: differs: ",
        ),
        (
            refused.as_str(),
            1,
            "DestinationRule shop/reviews: spec.exportTo[0]: refused: ",
        ),
        (absent.as_str(), 3, "ServiceEntry shop/reviews: not here: "),
    ] {
        std::fs::write(&file, text).unwrap();
        let (found, out, notes) = convert(&file);
        assert_eq!(found, Some(code), "{text}{notes}");
        assert!(
            notes.contains(says) && notes.is_empty() == says.is_empty(),
            "{text}{notes}"
        );
        let expected = match code {
            _ if text == absent => text.to_owned(),
            _ => text.replace("networking.istio.io/v1", "hauberk.dev/v1alpha1"),
        };
        assert_eq!(out, expected);
    }
}

#[test]
fn a_folder_goes_out_as_one_text_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("more")).unwrap();
    for (name, text) in [
        ("b.yaml", SAME),
        ("more/c.yml", SAME),
        ("notes.txt", "{"),
        (".hidden.yaml", "{"),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let (code, out, notes) = convert(dir.path());
    assert_eq!((code, notes.as_str()), (Some(0), ""));
    let ours: Vec<_> = crds::parse(&out).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(ours.len(), 2);
    assert!(out.find("b.yaml").unwrap() < out.find("c.yml").unwrap(), "{out}");

    // What only a stream may begin with.
    std::fs::write(dir.path().join("d.yaml"), format!("\u{feff}{SAME}")).unwrap();
    std::fs::write(dir.path().join("e.yaml"), format!("%YAML 1.2\n---\n{SAME}")).unwrap();
    let (_, out, _) = convert(dir.path());
    assert!(!out.contains('\u{feff}'), "{out}");
    assert!(out.contains("...\n# ") && out.contains("e.yaml\n%YAML"), "{out}");
    let ours: Vec<_> = crds::parse(&out).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(ours.len(), 4);

    std::fs::write(dir.path().join("d.yaml"), "a: [\n").unwrap();
    let (code, out, notes) = convert(dir.path());
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(notes.contains("d.yaml"), "{notes}");
    assert_eq!(convert(Path::new("/none")).0, Some(2));
}
