//! An intermediate certificate that the user brings, to sign with instead of a root made here. Called by `store`. Pure:
//! time and files are the callers'. Whether it is fit is not worked out from its fields but tried: a certificate is issued
//! as for the operator, and verified as peers verify it, so names, path lengths, usages and ends all count as they do there.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::SpiffeId;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::SERVER_NAME;
use super::signer::{self, Signer};

/// Name of the certificate's file, or of its key in the Secret: as in a Secret of type `kubernetes.io/tls`.
pub(crate) const CERTIFICATE: &str = "tls.crt";
/// Name of the private key's.
pub(crate) const KEY: &str = "tls.key";
/// Name of the roots'.
pub(crate) const ROOTS: &str = "ca.crt";

/// More would only make every handshake longer.
const MAX_INTERMEDIATES: usize = 5;
const MAX_ROOTS: usize = 10;

/// A user's intermediate as it is kept.
pub(crate) struct IssuerPem {
    /// The intermediate that signs, and those between it and the root.
    pub(crate) certificate: String,
    /// The key of the first of them.
    pub(crate) key: String,
    /// The roots to trust.
    pub(crate) roots: String,
}

/// A user's intermediate.
#[derive(Debug)]
pub(crate) struct UserIssuer {
    pub(crate) signer: Signer,
    /// The roots to trust.
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

impl UserIssuer {
    /// Reads an intermediate and tries it, for the identity of the operator.
    ///
    /// # Errors
    /// Which of its parts is wrong, and why.
    pub(crate) fn parse(pem: &IssuerPem, identity: &SpiffeId, now: SystemTime) -> Result<Self, String> {
        let chain = certificates(CERTIFICATE, &pem.certificate)?;
        let roots = certificates(ROOTS, &pem.roots)?;
        if roots.len() > MAX_ROOTS {
            return Err(format!(
                "{ROOTS}: has {} certificates, more than {MAX_ROOTS}",
                roots.len()
            ));
        }
        let mut store = RootCertStore::empty();
        for root in &roots {
            require_ca(ROOTS, root)?;
            store.add(root.clone()).map_err(|e| format!("{ROOTS}: {e}"))?;
        }
        for certificate in &chain {
            require_ca(CERTIFICATE, certificate)?;
        }
        let mut signer = Signer::new(chain[0].clone(), &pem.key)
            .map_err(|e| format!("{KEY} and the first certificate of {CERTIFICATE}: {e}"))?;
        // A root is known to peers; sent along, it would only make handshakes longer.
        signer.intermediates = chain.into_iter().filter(|c| !roots.contains(c)).collect();
        if signer.intermediates.len() > MAX_INTERMEDIATES {
            return Err(format!(
                "{CERTIFICATE}: has more than {MAX_INTERMEDIATES} intermediates"
            ));
        }
        for intermediate in &signer.intermediates {
            signer.not_after = signer
                .not_after
                .min(signer::not_after(&signer::parse(intermediate)?));
        }
        let issuer = Self { signer, roots };
        issuer.try_out(store, identity, now)?;
        Ok(issuer)
    }

    fn try_out(&self, roots: RootCertStore, identity: &SpiffeId, now: SystemTime) -> Result<(), String> {
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let client = client.build().map_err(|e| format!("{ROOTS}: {e}"))?;
        let server = WebPkiServerVerifier::builder_with_provider(roots, provider);
        let server = server.build().map_err(|e| format!("{ROOTS}: {e}"))?;

        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let issued = self
            .signer
            .issue(identity, &[SERVER_NAME], &key, now, Duration::from_secs(3600))
            .map_err(|e| format!("{CERTIFICATE}: cannot sign: {e}"))?;
        let time = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let name = ServerName::try_from(SERVER_NAME).map_err(|e| e.to_string())?;
        let (leaf, intermediates) = issued.chain.split_first().expect("a chain begins with its leaf");
        client
            .verify_client_cert(leaf, intermediates, time)
            .map(drop)
            .and_then(|()| {
                server
                    .verify_server_cert(leaf, intermediates, &name, &[], time)
                    .map(drop)
            })
            .map_err(|e| {
                format!(
                    "{CERTIFICATE}: a certificate that it issues for {identity} does not verify against {ROOTS}: {e}; \
                     {CERTIFICATE} must hold the intermediate first and then all that stand between it and a root in \
                     {ROOTS}, all of them valid now, and none may forbid such names or a certificate below the \
                     intermediate"
                )
            })
    }
}

fn certificates(name: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{name}: is no PEM: {e}"))?;
    if all.is_empty() {
        return Err(format!("{name}: holds no certificate"));
    }
    Ok(all)
}

fn require_ca(name: &str, der: &CertificateDer<'_>) -> Result<(), String> {
    let parsed = signer::parse(der).map_err(|e| format!("{name}: {e}"))?;
    let key_usage = parsed.key_usage().ok().flatten();
    let signs = key_usage.is_none_or(|usage| usage.value.key_cert_sign());
    if parsed.is_ca() && signs {
        return Ok(());
    }
    Err(format!(
        "{name}: the certificate of {:?} is not one of an authority: it needs CA:TRUE, and keyCertSign where it names \
         usages",
        parsed.subject().to_string()
    ))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, GeneralSubtree, IsCa, NameConstraints};

    use super::*;
    use crate::authority::testing::{Ca, brought};

    fn parse(pem: &IssuerPem) -> Result<UserIssuer, String> {
        let identity = crate::authority::operator("cluster.local").unwrap();
        UserIssuer::parse(pem, &identity, SystemTime::now())
    }

    #[test]
    fn what_it_issues_comes_with_the_intermediates_and_ends_with_the_first_of_them() {
        let root = Ca::root("root");
        let upper = root.below("upper", |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
            params.not_after = (SystemTime::now() + Duration::from_secs(7200)).into();
        });
        let lower = upper.below("lower", |_| {});
        let pem = IssuerPem {
            // The root at the end is superfluous, and common.
            certificate: format!("{}{}{}", lower.pem, upper.pem, root.pem),
            key: lower.key,
            roots: root.pem,
        };
        let issuer = parse(&pem).unwrap();
        assert_eq!((issuer.signer.intermediates.len(), issuer.roots.len()), (2, 1));
        let left = issuer.signer.not_after.duration_since(SystemTime::now()).unwrap();
        assert!(left <= Duration::from_secs(7200), "{left:?}");
    }

    #[test]
    fn the_key_may_be_in_the_form_of_sec1_and_of_rsa() {
        // What `openssl` and others write for such keys, rather than PKCS#8, which has the same within.
        for (algorithm, label) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, "EC PRIVATE KEY"),
            (&rcgen::PKCS_RSA_SHA256, "RSA PRIVATE KEY"),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let der = key.serialize_der();
            let (_, pkcs8) = x509_parser::der_parser::parse_der(&der).unwrap();
            let inner = pkcs8.as_sequence().unwrap()[2].as_slice().unwrap();
            let root = Ca::of_key("root", key);
            let pem = IssuerPem {
                certificate: root.pem.clone(),
                key: crate::authority::keys::pem([inner]).replace("CERTIFICATE", label),
                roots: root.pem,
            };
            let issuer = parse(&pem).unwrap();
            assert!(issuer.signer.intermediates.is_empty(), "a root is not sent along");
        }
    }

    #[test]
    fn each_way_to_be_unfit_is_told() {
        type Harm = fn(&mut IssuerPem);
        let cases: [(Harm, &str); 9] = [
            (|pem| pem.certificate.clear(), "tls.crt: holds no certificate"),
            (|pem| pem.roots.clear(), "ca.crt: holds no certificate"),
            (|pem| pem.key = "no key".to_owned(), "the key cannot be read"),
            (|pem| pem.key = brought().key, "does not belong"),
            (
                |pem| pem.roots = brought().roots,
                "does not verify against ca.crt",
            ),
            (
                |pem| *pem = below(|params| params.is_ca = IsCa::ExplicitNoCa),
                "needs CA:TRUE",
            ),
            (
                |pem| {
                    *pem = below(|params| {
                        params.not_after = (SystemTime::now() - Duration::from_secs(600)).into();
                    });
                },
                "does not verify",
            ),
            (
                |pem| {
                    *pem = below(|params| {
                        params.name_constraints = Some(NameConstraints {
                            permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
                            excluded_subtrees: Vec::new(),
                        });
                    });
                },
                "does not verify",
            ),
            (
                |pem| {
                    // The upper one allows none below it but leaves.
                    let root = Ca::root("root");
                    let upper = root.below("upper", |_| {});
                    let lower = upper.below("lower", |_| {});
                    *pem = IssuerPem {
                        certificate: lower.pem + &upper.pem,
                        key: lower.key,
                        roots: root.pem,
                    };
                },
                "does not verify",
            ),
        ];
        for (harm, says) in cases {
            let mut pem = brought();
            parse(&pem).unwrap();
            harm(&mut pem);
            let error = parse(&pem).unwrap_err();
            assert!(error.contains(says), "{error} does not say {says}");
        }
    }

    fn below(change: impl FnOnce(&mut rcgen::CertificateParams)) -> IssuerPem {
        let root = Ca::root("root");
        let lower = root.below("lower", change);
        IssuerPem {
            certificate: lower.pem,
            key: lower.key,
            roots: root.pem,
        }
    }
}
