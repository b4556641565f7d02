//! What the kernel keeps of the proxy's failed connections, and that it does not lead the app's past the proxy.

use std::time::Duration;

use proxy::interception::{Backend, InitArgs, Report, run};

use crate::{
    Case, case,
    cases::with,
    pod::{LIMIT, Pod, SHORT, dial, dial_from, fail_by, printed},
    root_case,
};

const MARK: u32 = 0x539;
/// Routed to the far end, which drops what is not for itself.
const SILENT: [&str; 2] = ["192.0.2.77:443", "[2001:db8::77]:443"];

pub(crate) const ALL: &[Case] = &[
    case("a_failed_connection_of_the_mark_is_soon_forgotten", |pod| {
        forgotten(pod, |port, target| {
            dial_from(Some(port), target, Some(MARK), SHORT)
        });
    }),
    root_case(
        "a_failed_connection_of_the_proxy_s_user_is_soon_forgotten",
        |pod| {
            forgotten(pod, |port, target| fail_by(1337, port, target));
        },
    ),
    Case {
        nft_refuses: Some("ct timeout"),
        ..case(
            "a_kernel_that_cannot_forget_sooner_redirects_all_the_same",
            refused,
        )
    },
];

fn install(pod: &Pod) -> Report {
    pod.add_default_routes();
    let report = run(&InitArgs {
        exclude_mark: Some(MARK),
        ..with(Backend::Nft)
    })
    .unwrap();
    pod.start_listeners();
    report
}

/// `fail` dials from a port, as the proxy does, an address that does not answer.
fn forgotten(pod: &Pod, fail: fn(u16, &str) -> String) {
    let report = install(pod).to_string();
    assert!(!report.contains("warning"), "{report}");
    for target in SILENT {
        assert_eq!(fail(40_001, target), "TimedOut");
        assert_eq!(
            dial_from(Some(40_001), target, None, LIMIT),
            format!("outbound {target}")
        );
    }
    // It is the chain that does it: without, the app's connection is taken for the proxy's.
    printed("nft", &["flush", "chain", "inet", "hauberk", "forget"]);
    for target in SILENT {
        assert_eq!(fail(40_002, target), "TimedOut");
        let several_attempts = Duration::from_secs(4);
        let said = dial_from(Some(40_002), target, None, several_attempts);
        assert!(
            ["TimedOut", "NetworkUnreachable"].contains(&said.as_str()),
            "{target}, beyond the far end: {said}"
        );
    }
}

fn refused(pod: &Pod) {
    let report = install(pod).to_string();
    assert!(
        report.contains("warning") && report.contains("CONFIG_NF_CONNTRACK_TIMEOUT"),
        "{report}"
    );
    assert_eq!(dial("192.0.2.77:80", None), "outbound 192.0.2.77:80");
    assert!(!printed("nft", &["list", "ruleset"]).contains("ct timeout"));
}
