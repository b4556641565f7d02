//! Whether and how endpoints are reached by TLS: as the mesh does it, or as servers outside the mesh want it.

use std::sync::Arc;

use crate::invalid::{Invalid, Under};
use crate::proto;

/// Whether endpoints are reached by TLS, and by which.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Mutual TLS where the endpoint has an identity, plaintext where not.
    Auto,
    /// Plaintext.
    Disable,
    /// Mutual TLS; an endpoint without identity is not used.
    Mutual,
    /// TLS to servers outside the mesh, whatever identity an endpoint has.
    Originate(Arc<ClientTls>),
}

/// TLS to servers outside the mesh. Files are those of the proxy's container, in PEM; the proxy follows their changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ClientTls {
    /// What the proxy shows of itself; `None` for nothing.
    pub certificate: Option<ClientCertificate>,
    /// A file with the roots to trust; `None` for those of the system.
    pub ca_certificates: Option<String>,
    /// A file with lists of revoked certificates.
    pub ca_crl: Option<String>,
    /// Names of which the server's certificate must have one; empty for the name that it is asked for by.
    pub subject_alt_names: Vec<String>,
    /// The name to ask for; `None` for the host of the request or of the cluster.
    pub sni: Option<String>,
    /// Trust whoever answers.
    pub insecure_skip_verify: bool,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// A file with the certificate, followed by those between it and its root.
    pub chain: String,
    /// A file with its key.
    pub key: String,
}

pub(super) fn from(mode: proto::TlsMode, tls: Option<proto::ClientTls>) -> Result<TlsMode, Invalid> {
    let own = |certified| {
        let tls = tls.clone().ok_or_else(|| {
            Invalid::new(
                "client_tls",
                "is missing: TLS to servers outside the mesh needs it",
            )
        })?;
        let tls = client_tls(tls, certified).under("client_tls")?;
        Ok(TlsMode::Originate(Arc::new(tls)))
    };
    let mode = match mode {
        proto::TlsMode::Simple => return own(false),
        proto::TlsMode::OwnCertificate => return own(true),
        proto::TlsMode::Auto => TlsMode::Auto,
        proto::TlsMode::Disable => TlsMode::Disable,
        proto::TlsMode::Mutual => TlsMode::Mutual,
        proto::TlsMode::Unspecified => return Err(Invalid::new("tls", "is not a mode this build knows")),
    };
    match tls {
        Some(_) => Err(Invalid::new(
            "client_tls",
            "is given with a mode that has no use for it: use SIMPLE or OWN_CERTIFICATE",
        )),
        None => Ok(mode),
    }
}

fn client_tls(pb: proto::ClientTls, certified: bool) -> Result<ClientTls, Invalid> {
    let proto::ClientTls {
        client_certificate,
        private_key,
        ca_certificates,
        subject_alt_names,
        sni,
        insecure_skip_verify,
        ca_crl,
    } = pb;
    let certificate = match (certified, given(client_certificate), given(private_key)) {
        (false, None, None) => None,
        (true, Some(chain), Some(key)) => Some(ClientCertificate { chain, key }),
        (true, None, _) => {
            return Err(Invalid::new(
                "client_certificate",
                "is missing: the mode needs it",
            ));
        }
        (true, _, None) => return Err(Invalid::new("private_key", "is missing: the mode needs it")),
        (false, ..) => {
            return Err(Invalid::new(
                "client_certificate",
                "or its key is given with mode SIMPLE: use OWN_CERTIFICATE",
            ));
        }
    };
    if subject_alt_names.iter().any(String::is_empty) {
        return Err(Invalid::new("subject_alt_names", "holds an empty name"));
    }
    Ok(ClientTls {
        certificate,
        ca_certificates: given(ca_certificates),
        ca_crl: given(ca_crl),
        subject_alt_names,
        sni: given(sni),
        insecure_skip_verify,
    })
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

pub(super) fn to(tls: TlsMode) -> (proto::TlsMode, Option<proto::ClientTls>) {
    match tls {
        TlsMode::Auto => (proto::TlsMode::Auto, None),
        TlsMode::Disable => (proto::TlsMode::Disable, None),
        TlsMode::Mutual => (proto::TlsMode::Mutual, None),
        TlsMode::Originate(tls) => {
            let ClientTls {
                certificate,
                ca_certificates,
                ca_crl,
                subject_alt_names,
                sni,
                insecure_skip_verify,
            } = Arc::unwrap_or_clone(tls);
            let (mode, client_certificate, private_key) = match certificate {
                Some(ClientCertificate { chain, key }) => (proto::TlsMode::OwnCertificate, chain, key),
                None => (proto::TlsMode::Simple, String::new(), String::new()),
            };
            let tls = proto::ClientTls {
                client_certificate,
                private_key,
                ca_certificates: ca_certificates.unwrap_or_default(),
                subject_alt_names,
                sni: sni.unwrap_or_default(),
                insecure_skip_verify,
                ca_crl: ca_crl.unwrap_or_default(),
            };
            (mode, Some(tls))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_has_what_it_needs_and_nothing_else() {
        use proto::TlsMode as Mode;
        let files = |certificate: &str, key: &str| {
            Some(proto::ClientTls {
                client_certificate: certificate.to_owned(),
                private_key: key.to_owned(),
                ..Default::default()
            })
        };
        for (mode, tls, field) in [
            (Mode::Simple, None, "client_tls"),
            (Mode::Mutual, files("", ""), "client_tls"),
            (Mode::Auto, files("", ""), "client_tls"),
            (Mode::Simple, files("c", ""), "client_tls.client_certificate"),
            (Mode::Simple, files("", "k"), "client_tls.client_certificate"),
            (
                Mode::OwnCertificate,
                files("", "k"),
                "client_tls.client_certificate",
            ),
            (Mode::OwnCertificate, files("c", ""), "client_tls.private_key"),
            (Mode::Unspecified, None, "tls"),
        ] {
            assert_eq!(from(mode, tls).unwrap_err().field, field, "{mode:?}");
        }
        assert!(from(Mode::Simple, files("", "")).is_ok());
        assert!(from(Mode::OwnCertificate, files("c", "k")).is_ok());
    }
}
