//! The certificates that the peers prove themselves to each other with: one root, one leaf, P-256, like Hauberk's own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The name that peers ask each other for.
pub(crate) const NAME: &str = "bench.local";

/// Writes `root.pem`, `cert.pem` and `key.pem`, and both of the latter as `both.pem`, which HAProxy wants.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    let root_key = KeyPair::generate()?;
    let mut root = CertificateParams::new(Vec::new())?;
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate for its own issuer's when both have one name.
    root.distinguished_name.push(DnType::CommonName, "bench root");
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_certificate = root.self_signed(&root_key)?;
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![NAME.to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, NAME);
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let leaf = leaf.signed_by(&key, &issuer)?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let both = format!("{}{}", leaf.pem(), key.serialize_pem());
    for (file, text) in [
        ("root.pem", root_certificate.pem()),
        ("cert.pem", leaf.pem()),
        ("key.pem", key.serialize_pem()),
        ("both.pem", both),
    ] {
        let path = folder.join(file);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        // The proxies' user reads them.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
            .with_context(|| format!("cannot open {} to the proxies", path.display()))?;
    }
    Ok(())
}
