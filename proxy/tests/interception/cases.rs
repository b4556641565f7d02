//! The cases: what `hauberk-proxy init` promises, each in a fresh namespace.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::Command,
};

use crate::{
    Case, case,
    pod::{self, FAR, FAR_V6, POD, POD_V6, Pod, dial, dial_by, ip, printed},
    root_case,
};
use proxy::interception::{Backend, InitArgs, InterceptionError, Report, Verified, run};

pub(crate) const ALL: &[Case] = &[
    case(
        "with_nft_the_right_connections_reach_the_proxy_and_no_other",
        |pod| redirects(pod, Backend::Nft),
    ),
    case(
        "with_iptables_the_right_connections_reach_the_proxy_and_no_other",
        |pod| {
            redirects(pod, Backend::Iptables);
        },
    ),
    case("with_nft_twice_is_once_and_removal_leaves_nothing", |pod| {
        twice_and_remove(pod, Backend::Nft)
    }),
    case("with_iptables_twice_is_once_and_removal_leaves_nothing", |pod| {
        twice_and_remove(pod, Backend::Iptables);
    }),
    case(
        "changing_the_tool_leaves_no_rules_of_the_other",
        changing_the_tool,
    ),
    root_case("the_iptables_flavour_already_in_use_is_chosen", flavour_in_use),
    case("rules_of_others_stay", rules_of_others_stay),
    case(
        "connections_open_before_the_rules_live_on",
        open_connections_live_on,
    ),
    case(
        "without_a_default_route_a_neighbour_is_dialled",
        without_default_route,
    ),
    case(
        "without_any_route_the_report_says_that_nothing_was_dialled",
        without_any_route,
    ),
    case(
        "without_ipv6_addresses_ipv4_is_verified_alone",
        without_ipv6_addresses,
    ),
    case(
        "a_redirect_that_does_not_work_is_an_error_and_is_taken_back",
        broken_redirect,
    ),
    case(
        "while_a_proxy_listens_the_rules_are_read_back_instead",
        proxy_already_listens,
    ),
    root_case(
        "a_run_without_rights_says_which_capability_it_needs",
        without_rights,
    ),
    root_case("the_proxy_s_own_user_cannot_verify", as_the_proxy),
    Case {
        name: "without_nft_iptables_is_used",
        needs_real_root: true,
        without: Some(&["nft"]),
        nft_refuses: None,
        run: |pod| {
            pod.add_default_routes();
            let report = run(&args()).unwrap();
            assert_eq!(tool(&report), "iptables-nft");
            assert!(report.to_string().contains("warning: only nft"), "{report}");
        },
    },
    Case {
        name: "with_iptables_legacy_alone_it_works_too",
        needs_real_root: true,
        without: Some(&["nft", "iptables-nft", "ip6tables-nft"]),
        nft_refuses: None,
        run: |pod| {
            pod.add_default_routes();
            assert_eq!(tool(&run(&args()).unwrap()), "iptables-legacy");
            pod.start_listeners();
            assert_eq!(dial("192.0.2.1:80", None), "outbound 192.0.2.1:80");
            assert_eq!(pod.dial_in(&format!("{POD}:8080")), format!("inbound {POD}:8080"));
        },
    },
    Case {
        name: "without_any_tool_the_error_names_the_package",
        needs_real_root: false,
        without: Some(&["nft", "ip6tables", "iptables"]),
        nft_refuses: None,
        run: |_| {
            let error = run(&args()).unwrap_err();
            assert!(matches!(error, InterceptionError::NoTool), "{error}");
        },
    },
];

/// The defaults, or as near to them as a namespace with a single user allows.
fn args() -> InitArgs {
    let rootless = !std::fs::read_to_string("/proc/self/uid_map")
        .unwrap()
        .contains("4294967295");
    InitArgs {
        exclude_mark: rootless.then_some(0x539),
        ..InitArgs::default()
    }
}

pub(crate) fn with(backend: Backend) -> InitArgs {
    InitArgs { backend, ..args() }
}

fn tool(report: &Report) -> &'static str {
    match report {
        Report::Installed { backend, .. } => backend,
        other => panic!("nothing was installed: {other}"),
    }
}

fn verified(report: &Report) -> &[Verified] {
    match report {
        Report::Installed { outbound, .. } => outbound,
        other => panic!("nothing was installed: {other}"),
    }
}

fn dialled(address: &str) -> Verified {
    Verified::ByDialling(address.parse().unwrap())
}

fn redirects(pod: &Pod, backend: Backend) {
    pod.add_default_routes();
    let report = run(&InitArgs {
        exclude_mark: Some(0x539),
        skip_outbound_ports: "22,8000-8010".parse().unwrap(),
        skip_outbound_cidrs: "198.51.100.0/24".parse().unwrap(),
        skip_inbound_ports: "9100".parse().unwrap(),
        ..with(backend)
    })
    .unwrap();
    assert_eq!(
        verified(&report),
        [dialled("192.0.2.1:9"), dialled("[2001:db8::1]:9")]
    );
    assert!(
        pod::is_free(15_001),
        "the probe leaves the port as free as it was"
    );
    pod.start_listeners();
    outbound_dials(pod);
    inbound_dials(pod);
}

fn outbound_dials(pod: &Pod) {
    let far = |port: u16| format!("{FAR}:{port}");

    assert_eq!(dial(&far(80), None), format!("outbound {FAR}:80"));
    assert_eq!(dial("192.0.2.77:443", None), "outbound 192.0.2.77:443");
    assert_eq!(
        dial(&format!("[{FAR_V6}]:80"), None),
        format!("outbound [{FAR_V6}]:80")
    );
    for port in [22, 8005] {
        assert_eq!(
            dial(&far(port), None),
            format!("far {FAR}:{port}"),
            "skipped port"
        );
    }
    assert_eq!(
        dial(&far(80), Some(0x539)),
        format!("far {FAR}:80"),
        "excluded mark"
    );
    assert_eq!(
        dial(&far(80), Some(0x53a)),
        format!("outbound {FAR}:80"),
        "another mark"
    );
    ip("addr add 198.51.100.2/24 dev pod0").unwrap();
    assert_ne!(
        dial("198.51.100.7:80", None),
        "outbound 198.51.100.7:80",
        "skipped network"
    );
    if pod.real_root {
        assert_eq!(
            dial_by(1337, &far(80)),
            format!("far {FAR}:80"),
            "the proxy itself"
        );
        assert_eq!(
            dial_by(1338, &far(80)),
            format!("outbound {FAR}:80"),
            "another user"
        );
    }
    // Calls that stay in the pod are left alone, by whichever of its addresses.
    for own in [
        "127.0.0.1".to_owned(),
        "[::1]".to_owned(),
        POD.to_owned(),
        format!("[{POD_V6}]"),
    ] {
        assert_eq!(dial(&format!("{own}:8080"), None), format!("app {own}:8080"));
    }
}

fn inbound_dials(pod: &Pod) {
    // Everything, unless listed. Where nothing listens the inbound side is who has to say so.
    assert_eq!(pod.dial_in(&format!("{POD}:8080")), format!("inbound {POD}:8080"));
    assert_eq!(
        pod.dial_in(&format!("[{POD_V6}]:8080")),
        format!("inbound [{POD_V6}]:8080")
    );
    assert_eq!(pod.dial_in(&format!("{POD}:7")), format!("inbound {POD}:7"));
    assert_eq!(
        pod.dial_in(&format!("{POD}:9100")),
        format!("app {POD}:9100"),
        "skipped port"
    );
    // A dial to the proxy's own ports names that very port as the destination, by which the proxy can refuse it.
    assert_eq!(
        pod.dial_in(&format!("{POD}:15001")),
        format!("outbound {POD}:15001")
    );
    assert_eq!(
        pod.dial_in(&format!("{POD}:15006")),
        format!("inbound {POD}:15006")
    );
}

/// Everything that is set in this namespace, without the counters.
fn rules() -> String {
    let mut all = printed("nft", &["list", "ruleset"]);
    for program in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        // In a user namespace the legacy tables may not be looked at, and so not be written either.
        let saved = Command::new(program).output().unwrap().stdout;
        all.extend(
            String::from_utf8(saved)
                .unwrap()
                .lines()
                .filter(|line| line.starts_with("-A")),
        );
    }
    let without_counters = |line: &str| match line.split_once("counter packets") {
        Some((before, after)) => format!("{before}{}\n", after.splitn(5, ' ').last().unwrap_or_default()),
        None => format!("{line}\n"),
    };
    all.lines().map(without_counters).collect()
}

fn ours(rules: &str) -> usize {
    rules
        .lines()
        .filter(|line| line.to_lowercase().contains("hauberk"))
        .count()
}

fn twice_and_remove(pod: &Pod, backend: Backend) {
    pod.add_default_routes();
    run(&with(backend)).unwrap();
    let once = rules();
    assert!(ours(&once) > 0 && run(&with(backend)).is_ok());
    assert_eq!(rules(), once);

    // Other options replace, they do not add.
    let other = InitArgs {
        skip_outbound_ports: "4242".parse().unwrap(),
        ..with(backend)
    };
    run(&other).unwrap();
    assert!(rules().contains("4242"));
    run(&with(backend)).unwrap();
    assert_eq!(rules(), once);

    let remove = InitArgs {
        remove: true,
        ..with(backend)
    };
    let Report::Removed(removed) = run(&remove).unwrap() else {
        panic!("not a removal")
    };
    assert!(!removed.is_empty());
    assert_eq!(ours(&rules()), 0, "{}", rules());
    assert_eq!(run(&remove).unwrap(), Report::Removed(Vec::new()));
}

fn changing_the_tool(pod: &Pod) {
    pod.add_default_routes();
    run(&with(Backend::Nft)).unwrap();
    let by_nft = rules();
    run(&with(Backend::Iptables)).unwrap();
    let tables = printed("nft", &["list", "tables"]);
    assert!(!tables.contains("hauberk"), "{tables}");
    run(&with(Backend::Nft)).unwrap();
    let chains = printed("iptables-nft-save", &[]);
    assert!(!chains.contains("HAUBERK"), "{chains}");
    assert_eq!(ours(&rules()), ours(&by_nft));
}

fn flavour_in_use(pod: &Pod) {
    pod.add_default_routes();
    assert_eq!(tool(&run(&with(Backend::Iptables)).unwrap()), "iptables-nft");
    run(&InitArgs {
        remove: true,
        ..with(Backend::Iptables)
    })
    .unwrap();
    printed(
        "iptables-legacy",
        &["-t", "nat", "-A", "POSTROUTING", "-p", "udp", "-j", "ACCEPT"],
    );
    assert_eq!(tool(&run(&with(Backend::Iptables)).unwrap()), "iptables-legacy");
}

fn rules_of_others_stay(pod: &Pod) {
    pod.add_default_routes();
    printed(
        "nft",
        &["add table inet other; add chain inet other keep; add rule inet other keep udp dport 5 drop"],
    );
    printed(
        "iptables-nft",
        &[
            "-t", "nat", "-A", "OUTPUT", "-p", "udp", "--dport", "5", "-j", "ACCEPT",
        ],
    );
    let before = rules();
    for backend in [Backend::Nft, Backend::Iptables] {
        run(&with(backend)).unwrap();
        for line in before.lines().filter(|line| line.contains("dport 5")) {
            assert!(rules().contains(line), "{line}");
        }
    }
    run(&InitArgs {
        remove: true,
        ..args()
    })
    .unwrap();
    let rest = rules();
    assert!(
        rest.contains("udp dport 5 drop") && rest.contains("udp dport 5 accept"),
        "{rest}"
    );
}

fn open_connections_live_on(pod: &Pod) {
    pod.add_default_routes();
    let mut stream = TcpStream::connect((FAR, 7000)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut echo = |text: &str| {
        writeln!(stream, "{text}").unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), text);
    };
    echo("before any rules");
    run(&with(Backend::Nft)).unwrap();
    pod.start_listeners();
    assert_eq!(dial(&format!("{FAR}:80"), None), format!("outbound {FAR}:80"));
    echo("with rules");
    run(&InitArgs {
        remove: true,
        ..args()
    })
    .unwrap();
    echo("without rules again");
}

fn without_default_route(_: &Pod) {
    for backend in [Backend::Nft, Backend::Iptables] {
        let report = run(&with(backend)).unwrap();
        assert_eq!(
            verified(&report),
            [dialled("10.99.0.254:9"), dialled("[fd99::ffff:ffff:ffff:fffe]:9")]
        );
    }
}

fn without_any_route(_: &Pod) {
    ip("link set pod0 down").unwrap();
    let report = run(&with(Backend::Nft)).unwrap();
    for verified in verified(&report) {
        assert!(
            matches!(verified, Verified::ByListing(reason) if reason.contains("route")),
            "{verified}"
        );
    }
    assert!(
        report.to_string().contains("reading the rules back only"),
        "{report}"
    );
}

fn without_ipv6_addresses(pod: &Pod) {
    pod.add_default_routes();
    ip("-6 addr flush dev pod0").unwrap();
    let report = run(&with(Backend::Nft)).unwrap();
    let [v4, v6] = verified(&report) else {
        panic!("{report}")
    };
    assert_eq!(*v4, dialled("192.0.2.1:9"));
    assert!(matches!(v6, Verified::ByListing(_)), "{v6}");
}

fn broken_redirect(pod: &Pod) {
    pod.add_default_routes();
    // Somebody's rule stands before ours and sends everything elsewhere.
    printed(
        "nft",
        &["add table inet other; \
           add chain inet other first { type nat hook output priority -150; }; \
           add rule inet other first meta l4proto tcp redirect to :1"],
    );
    let error = run(&with(Backend::Nft)).unwrap_err();
    assert!(
        matches!(error, InterceptionError::NotRedirected { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("192.0.2.1:9"), "{error}");
    assert_eq!(ours(&rules()), 0, "{}", rules());

    // Left to choose, it tries the other tool too, and tells both stories.
    let error = run(&args()).unwrap_err();
    let InterceptionError::NothingWorked(failures) = &error else {
        panic!("{error}")
    };
    assert!(failures.len() >= 2, "{error}");
    assert_eq!(ours(&rules()), 0, "{}", rules());
}

fn proxy_already_listens(pod: &Pod) {
    pod.add_default_routes();
    pod.start_listeners();
    let report = run(&args()).unwrap();
    for verified in verified(&report) {
        assert!(
            matches!(verified, Verified::ByListing(reason) if reason.contains("15001")),
            "{verified}"
        );
    }
}

fn without_rights(_: &Pod) {
    let nobody = nix::unistd::Uid::from_raw(65_534);
    nix::unistd::setresuid(nobody, nobody, nobody).unwrap();
    for backend in [Backend::Auto, Backend::Nft, Backend::Iptables] {
        let error = run(&with(backend)).unwrap_err();
        assert!(
            matches!(error, InterceptionError::NotPermitted { .. }),
            "{backend:?}: {error}"
        );
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }
}

fn as_the_proxy(_: &Pod) {
    let error = run(&InitArgs {
        proxy_uid: 0,
        ..InitArgs::default()
    })
    .unwrap_err();
    assert!(
        matches!(error, InterceptionError::RunsAsProxy { uid: 0 }),
        "{error}"
    );
    assert_eq!(
        Command::new("nft")
            .args(["list", "tables"])
            .output()
            .unwrap()
            .stdout,
        b""
    );
}
