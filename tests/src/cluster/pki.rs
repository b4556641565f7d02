//! Keys, certificates and kubeconfigs of a cluster: made anew for each, and worth nothing outside of it.
//!
//! Called by [`Node::start`](super::Node). Everything has subject alternative names: Go heeds no common name of a server.

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::{API_SERVER, NODE, NODE_IP, SERVICE_IP};

/// Who may have a kubeconfig, with the groups they are in.
const USERS: [(&str, &str, Option<&str>); 5] = [
    ("admin", "admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("kube-proxy", "system:kube-proxy", None),
    ("kubelet", "system:node:node1", Some("system:nodes")),
];

/// A folder with a cluster's keys.
#[derive(Debug)]
pub(super) struct Pki {
    folder: PathBuf,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes everything.
    pub(super) fn create(folder: &Path) -> anyhow::Result<Pki> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let pki = Pki {
            folder: folder.to_owned(),
        };
        let authority = pki.authority("ca")?;
        let front = pki.authority("front-proxy-ca")?;
        let servers = |more: &[&str]| -> Vec<String> {
            let mut names = vec![
                "localhost".to_owned(),
                "127.0.0.1".to_owned(),
                NODE_IP.to_string(),
            ];
            names.extend(more.iter().map(|name| (*name).to_owned()));
            names
        };
        let service = SERVICE_IP.to_string();
        let names = servers(&[
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            &service,
        ]);
        let both = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        pki.issue(
            &authority,
            "apiserver",
            "kube-apiserver",
            None,
            &names,
            &both[..1],
        )?;
        for (name, user, group) in USERS {
            // The kubelet is a server too, under the same certificate.
            let names = if name == "kubelet" {
                servers(&[NODE])
            } else {
                Vec::new()
            };
            let usages = if name == "kubelet" { &both[..] } else { &both[1..] };
            let (certificate, key) = pki.issue(&authority, name, user, group, &names, usages)?;
            let text = kubeconfig(name, &authority.pem, &certificate, &key);
            pki.write(&format!("{name}.conf"), &text)?;
        }
        let masters = Some("system:masters");
        pki.issue(
            &authority,
            "apiserver-kubelet-client",
            "kube-apiserver-kubelet-client",
            masters,
            &[],
            &both[1..],
        )?;
        pki.issue(
            &front,
            "front-proxy-client",
            "front-proxy-client",
            None,
            &[],
            &both[1..],
        )?;
        let tokens = KeyPair::generate().context("cannot make a key")?;
        pki.write("sa.key", &tokens.serialize_pem())?;
        pki.write("sa.pub", &tokens.public_key_pem())?;
        Ok(pki)
    }

    /// The file with the key or certificate of this name.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn authority(&self, name: &str) -> anyhow::Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().context("cannot make a key")?;
        let pem = params
            .self_signed(&key)
            .with_context(|| format!("cannot sign {name}"))?
            .pem();
        self.write(&format!("{name}.crt"), &pem)?;
        self.write(&format!("{name}.key"), &key.serialize_pem())?;
        Ok(Authority {
            pem,
            issuer: Issuer::new(params, key),
        })
    }

    /// Issues a certificate into `name.crt` and `name.key`, and returns both.
    fn issue(
        &self,
        authority: &Authority,
        name: &str,
        user: &str,
        group: Option<&str>,
        servers: &[String],
        usages: &[ExtendedKeyUsagePurpose],
    ) -> anyhow::Result<(String, String)> {
        let mut params = CertificateParams::new(servers.to_vec()).context("a server's name")?;
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.distinguished_name.push(DnType::CommonName, user);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = params
            .signed_by(&key, &authority.issuer)
            .with_context(|| format!("cannot sign {name}"))?
            .pem();
        let key = key.serialize_pem();
        self.write(&format!("{name}.crt"), &certificate)?;
        self.write(&format!("{name}.key"), &key)?;
        Ok((certificate, key))
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.file(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn kubeconfig(user: &str, authority: &str, certificate: &str, key: &str) -> String {
    let [authority, certificate, key] = [authority, certificate, key].map(|pem| STANDARD.encode(pem));
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         current-context: default\n\
         clusters: [{{name: default, cluster: {{server: \"{API_SERVER}\", certificate-authority-data: {authority}}}}}]\n\
         users: [{{name: {user}, user: {{client-certificate-data: {certificate}, client-key-data: {key}}}}}]\n\
         contexts: [{{name: default, context: {{cluster: default, user: {user}}}}}]\n"
    )
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;

    use super::*;

    #[test]
    fn every_user_gets_a_kubeconfig_that_a_client_can_read() {
        let temp = tempfile::tempdir().unwrap();
        let pki = Pki::create(temp.path()).unwrap();
        for (name, _, _) in USERS {
            let text = std::fs::read_to_string(pki.file(&format!("{name}.conf"))).unwrap();
            let config = Kubeconfig::from_yaml(&text).unwrap();
            assert_eq!(config.auth_infos[0].name, name);
            let cluster = config.clusters[0].cluster.clone().unwrap();
            assert_eq!(cluster.server.as_deref(), Some(API_SERVER));
        }
        let public = std::fs::read_to_string(pki.file("sa.pub")).unwrap();
        assert!(public.starts_with("-----BEGIN PUBLIC KEY-----"), "{public}");
    }
}
