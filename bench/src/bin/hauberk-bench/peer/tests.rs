use std::process::Command;

use super::*;
use crate::certificates;

/// Every leg that a scenario may ask for.
fn legs() -> Vec<Leg> {
    let mut legs = Vec::new();
    let ends = [Protocol::Http1, Protocol::Http2];
    let mut pairs: Vec<(Protocol, Protocol)> = vec![(Protocol::Tcp, Protocol::Tcp)];
    for downstream in ends {
        pairs.extend(ends.map(|upstream| (downstream, upstream)));
    }
    for (downstream, upstream) in pairs {
        for (downstream_tls, upstream_tls) in [(false, false), (true, false), (false, true)] {
            for resumption in [true, false] {
                legs.push(Leg {
                    listen: 15_001,
                    to: ([127, 0, 0, 1], 8080).into(),
                    downstream,
                    upstream,
                    downstream_tls,
                    upstream_tls,
                    resumption,
                });
            }
        }
    }
    legs
}

fn takes(peer: Peer, leg: Leg) -> bool {
    peer != Peer::Nginx || (leg.downstream != Protocol::Http2 && leg.upstream != Protocol::Http2)
}

#[test]
fn every_template_can_be_filled_in_for_every_leg() {
    for peer in Peer::foreign() {
        for leg in legs() {
            let text = configuration(peer, leg, Path::new("/c"), Path::new("/f"), Path::new("/m"));
            let text = text.unwrap_or_else(|error| panic!("{} {leg:?}: {error:#}", peer.name()));
            let left = |line: &&str| line.contains("{{") || line.trim().starts_with("#if ");
            assert_eq!(text.lines().find(left), None);
            let tls = text.contains("/c/cert.pem") || text.contains("/c/both.pem");
            assert_eq!(tls, leg.downstream_tls || leg.upstream_tls, "{text}");
        }
    }
}

/// The programs where `scripts/bench-peers.sh` put them. Where it did not run there is nothing to ask.
fn programs() -> Vec<(Peer, PathBuf, PathBuf)> {
    let cache = std::env::var_os("HAUBERK_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/hauberk"),
        PathBuf::from,
    );
    let folders = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let brought = folders
        .map(|entry| entry.path())
        .filter(|path| path.join("complete").is_file());
    brought
        .flat_map(|home| {
            Peer::foreign().map(|peer| (peer, home.join("bin").join(peer.name()), home.join("unpacked")))
        })
        .filter(|(_, program, _)| program.is_file())
        .collect()
}

#[test]
fn the_peers_themselves_accept_their_configurations() {
    let temp = tempfile::tempdir().unwrap();
    let certificates = temp.path().join("certificates");
    certificates::write(&certificates).unwrap();
    let folder = temp.path();
    for (peer, program, unpacked) in programs() {
        let modules = unpacked.join("usr/lib/nginx/modules");
        for leg in legs().into_iter().filter(|leg| takes(peer, *leg)) {
            let text = configuration(peer, leg, &certificates, folder, &modules).unwrap();
            let file = folder.join(if peer == Peer::Envoy { "c.yaml" } else { "c.conf" });
            std::fs::write(&file, &text).unwrap();
            let mut command = Command::new(&program);
            match peer {
                Peer::Envoy => command.args(["--mode", "validate", "-l", "error", "-c"]),
                Peer::Nginx => command.arg("-p").arg(folder).args(["-e", "stderr", "-t", "-c"]),
                _ => command.args(["-c", "-f"]),
            };
            command
                .arg(&file)
                .env("LD_LIBRARY_PATH", unpacked.join("usr/lib/x86_64-linux-gnu"));
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{} {leg:?}: {said}\n{text}", peer.name());
        }
    }
}
