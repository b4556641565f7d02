//! `tls`: whether and how endpoints are reached by TLS.

use std::sync::Arc;

use api::{ClientCertificate, ClientTls, Invalid, TlsMode};
use crds::destination_rule::{ClientTls as Block, tls};

use crate::state::rules::refuse;

pub(super) fn tls_mode(block: &Block) -> Result<TlsMode, Invalid> {
    let Block {
        mode,
        client_certificate,
        private_key,
        ca_certificates,
        credential_name,
        subject_alt_names,
        sni,
        insecure_skip_verify,
        ca_crl,
    } = block;
    refuse(&[("credentialName", credential_name.is_some())])?;
    let mode = mode.unwrap_or_default();
    let certificate = match (mode, client_certificate, private_key) {
        (tls::TlsMode::Mutual, Some(chain), Some(key)) => Some(ClientCertificate {
            chain: chain.clone(),
            key: key.clone(),
        }),
        (tls::TlsMode::Mutual, None, _) => return Err(missing("clientCertificate")),
        (tls::TlsMode::Mutual, _, None) => return Err(missing("privateKey")),
        (_, None, None) => None,
        (_, Some(_), _) => return Err(useless("clientCertificate")),
        (_, _, Some(_)) => return Err(useless("privateKey")),
    };
    let client = ClientTls {
        certificate,
        ca_certificates: ca_certificates.clone(),
        ca_crl: ca_crl.clone(),
        subject_alt_names: subject_alt_names.clone(),
        sni: sni.clone(),
        insecure_skip_verify: *insecure_skip_verify == Some(true),
    };
    let of_the_mesh = match mode {
        tls::TlsMode::Disable => TlsMode::Disable,
        tls::TlsMode::IstioMutual => TlsMode::Mutual,
        tls::TlsMode::Simple | tls::TlsMode::Mutual => return Ok(TlsMode::Originate(Arc::new(client))),
    };
    let given = [
        ("caCertificates", ca_certificates.is_some()),
        ("subjectAltNames", !subject_alt_names.is_empty()),
        ("sni", sni.is_some()),
        ("insecureSkipVerify", *insecure_skip_verify == Some(true)),
        ("caCrl", ca_crl.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(useless(field)),
        None => Ok(of_the_mesh),
    }
}

fn missing(field: &str) -> Invalid {
    Invalid::new(field, "is missing: mode MUTUAL needs it")
}

fn useless(field: &str) -> Invalid {
    Invalid::new(field, "has no use with this mode: leave it out")
}
