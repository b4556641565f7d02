//! How bytes get to a destination: TLS, a tunnel, the PROXY protocol.

use std::net::IpAddr;

use super::{
    Report,
    shape::{dns_problem, port},
};
use crate::{
    destination_rule::{ClientTls, TrafficPolicy, Tunnel, tls::TlsMode},
    path::At,
};

/// The most names of `subjectAltNames`.
const MAX_NAMES: usize = 64;

pub(super) fn tls(report: &mut Report, at: At<'_>, tls: &ClientTls) {
    let ClientTls {
        mode,
        client_certificate,
        private_key,
        ca_certificates,
        credential_name,
        subject_alt_names,
        sni,
        insecure_skip_verify,
        ca_crl,
    } = tls;
    if mode.is_none() {
        let message = "is missing, which means DISABLE: connections would be plain; say which one is meant";
        report.warning(at.field("mode"), message);
    }
    report.unsupported_if(
        credential_name.is_some(),
        at.field("credentialName"),
        "mount the Secret into the proxy's container and name its files in caCertificates, clientCertificate and privateKey",
    );
    let outside = matches!(mode, Some(TlsMode::Simple | TlsMode::Mutual));
    for (field, set) in [
        ("caCertificates", ca_certificates.is_some()),
        ("subjectAltNames", !subject_alt_names.is_empty()),
        ("sni", sni.is_some()),
        ("insecureSkipVerify", *insecure_skip_verify == Some(true)),
        ("caCrl", ca_crl.is_some()),
    ] {
        if set && !outside {
            report.error(
                at.field(field),
                "has no use with this mode; remove it, or use SIMPLE or MUTUAL",
            );
        }
    }
    certificate(
        report,
        at,
        *mode,
        client_certificate.as_deref(),
        private_key.as_deref(),
    );
    file(report, at.field("caCertificates"), ca_certificates.as_deref());
    file(report, at.field("caCrl"), ca_crl.as_deref());
    names(report, at.field("subjectAltNames"), subject_alt_names);
    if let Some(name) = sni {
        server_name(report, at.field("sni"), name);
    }
    if *insecure_skip_verify == Some(true) && outside {
        for (field, set) in [
            ("caCertificates", ca_certificates.is_some()),
            ("subjectAltNames", !subject_alt_names.is_empty()),
            ("caCrl", ca_crl.is_some()),
        ] {
            if set {
                let message =
                    "is for verifying the server, which insecureSkipVerify turns off; remove one of the two";
                report.error(at.field(field), message);
            }
        }
        let message = "trusts whoever answers; name the server's roots in caCertificates instead";
        report.warning(at.field("insecureSkipVerify"), message);
    }
}

pub(super) fn tunnel(report: &mut Report, at: At<'_>, tunnel: &Tunnel) {
    let Tunnel {
        protocol,
        target_host,
        target_port,
    } = tunnel;
    if let Some(protocol) = protocol
        && !["CONNECT", "POST"].contains(&protocol.as_str())
    {
        report.error(
            at.field("protocol"),
            "is no way to ask for a tunnel; use CONNECT or POST",
        );
    }
    if target_host.parse::<IpAddr>().is_err()
        && let Some(problem) = dns_problem(target_host)
    {
        report.error(at.field("targetHost"), problem);
    }
    port(report, at.field("targetPort"), *target_port);
}

/// A PROXY header is for servers outside the mesh, so it must be said of every port that endpoints are such.
pub(super) fn proxy_protocol(report: &mut Report, at: At<'_>, policy: &TrafficPolicy) {
    if policy.proxy_protocol.is_none() {
        return;
    }
    let is_outside = |tls: &Option<ClientTls>| {
        let tls = tls.as_ref();
        tls.is_some_and(|tls| tls.mode != Some(TlsMode::IstioMutual))
    };
    let needs = "needs tls.mode DISABLE, SIMPLE or MUTUAL";
    let why = "the mesh's own TLS ends at a proxy, which reads no PROXY header";
    if !is_outside(&policy.tls) {
        report.error(
            at.field("proxyProtocol"),
            format!("{needs} in the same policy: {why}"),
        );
    }
    for setting in &policy.port_level_settings {
        if !is_outside(&setting.tls) {
            let number = setting.port.number;
            let message = format!("{needs} in the entry of port {number} of portLevelSettings, too: {why}");
            report.error(at.field("proxyProtocol"), message);
        }
    }
}

/// Certificate and key come together, and only with MUTUAL.
fn certificate(
    report: &mut Report,
    at: At<'_>,
    mode: Option<TlsMode>,
    chain: Option<&str>,
    key: Option<&str>,
) {
    for (field, path) in [("clientCertificate", chain), ("privateKey", key)] {
        let at = at.field(field);
        match (mode, path) {
            (Some(TlsMode::Mutual), None) => {
                report.error(at, "is missing, and mode MUTUAL needs it; name a file")
            }
            (Some(TlsMode::Mutual), Some(_)) => file(report, at, path),
            (_, Some(_)) => report.error(at, "has no use with this mode; remove it, or use MUTUAL"),
            (_, None) => {}
        }
    }
}

/// A file in the proxy's container.
fn file(report: &mut Report, at: At<'_>, path: Option<&str>) {
    if let Some(path) = path
        && (!path.starts_with('/') || path.ends_with('/') || path.contains('\0'))
    {
        report.error(
            at,
            "is no file; write its whole path in the proxy's container, from /",
        );
    }
}

fn names(report: &mut Report, at: At<'_>, names: &[String]) {
    if names.len() > MAX_NAMES {
        let len = names.len();
        return report.error(at, format!("has {len} names, and {MAX_NAMES} is the most"));
    }
    for (n, name) in names.iter().enumerate() {
        let is_uri = name.split_once("://").is_some_and(|(scheme, rest)| {
            !scheme.is_empty() && !rest.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())
        });
        if is_uri || name.parse::<IpAddr>().is_ok() {
            continue;
        }
        if name.contains('*') {
            report.error(
                at.index(n),
                "has a wildcard; name the servers (a wildcard in a server's certificate covers them)",
            );
        } else if dns_problem(&name.to_ascii_lowercase()).is_some() {
            report.error(at.index(n), "is neither a DNS name nor a URI nor an address");
        }
    }
}

fn server_name(report: &mut Report, at: At<'_>, name: &str) {
    if name.parse::<IpAddr>().is_ok() {
        report.error(
            at,
            "is an address, and servers are asked for by name; remove it or write a name",
        );
    } else if let Some(problem) = dns_problem(name) {
        report.error(at, problem);
    }
}
