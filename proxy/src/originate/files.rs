//! The files that a block names: when they have changed, and what they hold. Only `originate` reads them, when a block is
//! first used and after changes.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use api::{ClientCertificate, ClientTls};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList};

use crate::identity::verify::provider;

/// Where systems keep the roots that they trust: Debian and Alpine, Fedora, SUSE, others. The first that is there counts.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The most that is read of a file: a list of all authorities there are has a quarter of a MiB.
const LARGEST: u64 = 16 << 20;

/// When each of a block's files was last changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

/// Any change makes another: a mounted Secret is replaced by a new file, others may be written over.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamps {
    pub(super) fn of(spec: &ClientTls) -> Self {
        let ClientTls {
            certificate,
            ca_certificates,
            ca_crl,
            subject_alt_names: _,
            sni: _,
            insecure_skip_verify: _,
        } = spec;
        let own = certificate.iter().flat_map(|c| [c.chain.as_str(), &c.key]);
        let roots: &[&str] = match ca_certificates {
            Some(path) => &[path],
            None => &SYSTEM_ROOTS,
        };
        let all = own.chain(roots.iter().copied()).chain(ca_crl.as_deref());
        Self(all.map(stamp).collect())
    }
}

fn stamp(path: &str) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        file: (metadata.dev(), metadata.ino()),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// What the files hold.
pub(super) struct Loaded {
    /// `None`: whoever answers is trusted.
    pub(super) roots: Option<Vec<TrustAnchor<'static>>>,
    /// Where the roots come from, in words.
    pub(super) roots_from: String,
    pub(super) lists: Vec<CertRevocationList<'static>>,
    pub(super) certificate: Option<Arc<SingleCertAndKey>>,
}

pub(super) fn load(spec: &ClientTls) -> io::Result<Loaded> {
    let (roots, roots_from) = match &spec.ca_certificates {
        _ if spec.insecure_skip_verify => (None, String::new()),
        Some(path) => (Some(roots(path)?), path.clone()),
        None => {
            let (roots, path) = system_roots()?;
            (Some(roots), format!("the system ({path})"))
        }
    };
    let lists = spec.ca_crl.as_deref().map(lists).transpose()?.unwrap_or_default();
    let certificate = spec.certificate.as_ref().map(certificate).transpose()?;
    Ok(Loaded {
        roots,
        roots_from,
        lists,
        certificate,
    })
}

fn roots(path: &str) -> io::Result<Vec<TrustAnchor<'static>>> {
    let certificates: Vec<CertificateDer<'_>> = all(path, "certificate")?;
    let anchors = certificates.iter().enumerate().map(|(n, der)| {
        let anchor = webpki::anchor_from_trusted_cert(der);
        anchor
            .map(|anchor| anchor.to_owned())
            .map_err(|e| in_file(path, format!("certificate {n} (from 0) cannot be used: {e}")))
    });
    anchors.collect()
}

/// Some systems trust certificates that are not as they should be: those are left out, as by everybody else.
fn system_roots() -> io::Result<(Vec<TrustAnchor<'static>>, &'static str)> {
    let there = SYSTEM_ROOTS.iter().find(|path| std::fs::metadata(path).is_ok());
    let path = there.ok_or_else(|| {
        let all = SYSTEM_ROOTS.join(", ");
        let problem = format!(
            "caCertificates is left out, but this container holds no roots of a system ({all}): name a file"
        );
        io::Error::new(io::ErrorKind::NotFound, problem)
    })?;
    let certificates: Vec<CertificateDer<'_>> = all(path, "certificate")?;
    let anchors = certificates
        .iter()
        .filter_map(|der| webpki::anchor_from_trusted_cert(der).ok());
    Ok((anchors.map(|anchor| anchor.to_owned()).collect(), path))
}

fn lists(path: &str) -> io::Result<Vec<CertRevocationList<'static>>> {
    let lists: Vec<CertificateRevocationListDer<'_>> = all(path, "revocation list (X509 CRL)")?;
    let lists = lists.iter().map(|der| {
        let list = OwnedCertRevocationList::from_der(der);
        list.map(CertRevocationList::from)
            .map_err(|e| in_file(path, format!("a revocation list cannot be used: {e}")))
    });
    lists.collect()
}

fn certificate(files: &ClientCertificate) -> io::Result<Arc<SingleCertAndKey>> {
    let ClientCertificate { chain, key } = files;
    let certificates = all(chain, "certificate")?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| match e {
        pem::Error::NoItemsFound => in_file(key, "holds no private key in PEM without a passphrase"),
        other => in_file(key, format!("is no PEM: {other}")),
    })?;
    let certified = CertifiedKey::from_der(certificates, private, provider()).map_err(|e| {
        let problem = match e {
            rustls::Error::InconsistentKeys(_) => format!("is not the key of the certificate in {chain}"),
            other => format!("cannot be used with {chain}: {other}"),
        };
        in_file(key, problem)
    })?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

/// Everything of one kind in a PEM file; at least one.
fn all<T: PemObject>(path: &str, kind: &str) -> io::Result<Vec<T>> {
    let pem = read(path)?;
    let items: Result<Vec<T>, _> = T::pem_slice_iter(&pem).collect();
    let items = items.map_err(|e| in_file(path, format!("is no PEM: {e}")))?;
    if items.is_empty() {
        return Err(in_file(path, format!("holds no {kind} in PEM")));
    }
    Ok(items)
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    let failed = |e: io::Error| io::Error::new(e.kind(), format!("{path}: {e}"));
    // Before it is opened: opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(in_file(path, "is no file of a usable size"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn in_file(path: &str, problem: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {problem}"))
}
