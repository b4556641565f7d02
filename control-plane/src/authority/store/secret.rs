//! The home of an authority in Kubernetes: the Secret `hauberk-authority` in the mesh's root namespace. Called by `store`.
//!
//! ```text
//! root-<number>.crt, root-<number>.key   a root and its key, PEM
//! signer                                 the number of the root that signs, or `issuer`
//! signer-since                           since when, in Unix seconds
//! ```
//!
//! The Secret is created whole: of several operators that start at once, one creates it and the others read it. After that
//! only `rotate-root` writes to it, and only to the version that it has read. The user's intermediate is in a Secret of
//! its own, `hauberk-issuer`, which nothing here writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::names::ROOT_NAMESPACE;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::core::Status;

use super::StoreError;
use crate::authority::issuer::{self, IssuerPem, UserIssuer};
use crate::authority::keys::{Found, Keys, Signs};
use crate::authority::root::{self, RootPem};
use crate::authority::rotate::{self, RotateError, Step};
use crate::authority::token::unix;
use crate::kubernetes::answer::{Failed, within};
use crate::kubernetes::trust_bundle::{KEEPER, MANAGED_BY};

/// Name of the Secret that the operator makes.
pub const AUTHORITY_SECRET: &str = "hauberk-authority";
/// Name of the Secret with which the user brings an intermediate.
pub const ISSUER_SECRET: &str = "hauberk-issuer";

const SIGNER: &str = "signer";
const SINCE: &str = "signer-since";
/// Between tries to open the Secret: a start that falls into a restart of the API server outlives it.
const RETRIES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(8),
];
/// Writers that come in between, before `rotate-root` gives up.
const CONFLICTS: usize = 5;

const RESTORE: &str = "restore the Secret from a backup; or, to start with a new authority that every pod must learn by a \
                       restart, delete it and the ConfigMap hauberk-trust-bundle of the same namespace, and restart the \
                       operator";

type Data = BTreeMap<String, ByteString>;

/// The home in Kubernetes.
#[derive(Clone)]
pub(crate) struct SecretStore {
    client: kube::Client,
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretStore({})", place(AUTHORITY_SECRET))
    }
}

impl SecretStore {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), ROOT_NAMESPACE),
            config_maps: Api::namespaced(client.clone(), ROOT_NAMESPACE),
            client,
        }
    }

    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Reads the keys; where there is no Secret, it is made.
    pub(crate) async fn open(&self, trust_domain: &str, now: SystemTime) -> Result<Keys, StoreError> {
        let mut retries = RETRIES.into_iter();
        loop {
            match self.open_once(trust_domain, now).await {
                Err(error @ StoreError::Api { passing: true, .. }) => {
                    let Some(pause) = retries.next() else {
                        return Err(error);
                    };
                    tracing::warn!(%error, again_in = ?pause, "cannot open the authority's Secret");
                    tokio::time::sleep(pause).await;
                }
                done => return done,
            }
        }
    }

    async fn open_once(&self, trust_domain: &str, now: SystemTime) -> Result<Keys, StoreError> {
        if let Some(secret) = self.get(AUTHORITY_SECRET).await? {
            return self.keys(&secret, trust_domain, now).await;
        }
        let issuer = self.issuer(trust_domain, now).await?;
        let bundle = self.config_maps.get_opt(api::names::TRUST_BUNDLE_CONFIG_MAP);
        if answer("ConfigMap", api::names::TRUST_BUNDLE_CONFIG_MAP, bundle)
            .await?
            .is_some()
        {
            // Another operator may have made the Secret, and the bundle from it, since this one looked.
            if let Some(secret) = self.get(AUTHORITY_SECRET).await? {
                return self.keys(&secret, trust_domain, now).await;
            }
            let problem = format!("is missing, though there was an authority before: {RESTORE}");
            return Err(broken(AUTHORITY_SECRET, problem));
        }
        let data = first(issuer.is_some(), trust_domain, now)?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(AUTHORITY_SECRET.to_owned()),
                namespace: Some(ROOT_NAMESPACE.to_owned()),
                labels: Some(BTreeMap::from([(MANAGED_BY.to_owned(), KEEPER.to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(data),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let params = PostParams::default();
        let created = match within(self.secrets.create(&params, &secret)).await {
            Ok(created) => {
                tracing::info!(secret = AUTHORITY_SECRET, "made a new authority");
                created
            }
            // Another operator was first: its authority is the one.
            Err(error) if error.status().is_some_and(Status::is_already_exists) => {
                let theirs = self.get(AUTHORITY_SECRET).await?;
                theirs.ok_or_else(|| gone("Secret", AUTHORITY_SECRET))?
            }
            Err(error) => return Err(failed(&error, "Secret", AUTHORITY_SECRET)),
        };
        self.keys(&created, trust_domain, now).await
    }

    /// Reads the keys as they are; none is an error.
    pub(crate) async fn load(&self, trust_domain: &str, now: SystemTime) -> Result<Keys, StoreError> {
        let secret = self.existing().await?;
        self.keys(&secret, trust_domain, now).await
    }

    /// Takes the next step of a rotation. When another writer comes in between, the step is taken only if it is still
    /// the next one.
    pub(crate) async fn rotate(
        &self,
        trust_domain: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Step, RotateError> {
        let mut planned = None;
        for _ in 0..CONFLICTS {
            let mut secret = self.existing().await?;
            let keys = self.keys(&secret, trust_domain, now).await?;
            let step = rotate::next(&keys, lifetime, now);
            let step = match planned.take() {
                Some(before) if step.as_ref().ok() != Some(&before) => return Err(RotateError::Overtaken),
                _ => step?,
            };
            take(secret.data.get_or_insert_default(), &step, trust_domain, now)?;
            // The version that was read goes along, so that a newer one is never written over.
            let params = PostParams::default();
            match within(self.secrets.replace(AUTHORITY_SECRET, &params, &secret)).await {
                Ok(_) => return Ok(step),
                Err(error) if error.status().is_some_and(Status::is_conflict) => planned = Some(step),
                Err(error) => return Err(failed(&error, "Secret", AUTHORITY_SECRET).into()),
            }
        }
        Err(RotateError::Overtaken)
    }

    async fn existing(&self) -> Result<Secret, StoreError> {
        self.get(AUTHORITY_SECRET).await?.ok_or_else(|| {
            let problem = format!(
                "is missing; the operator makes it when it first starts; if there was one before: {RESTORE}"
            );
            broken(AUTHORITY_SECRET, problem)
        })
    }

    async fn get(&self, name: &str) -> Result<Option<Secret>, StoreError> {
        answer("Secret", name, self.secrets.get_opt(name)).await
    }

    async fn keys(&self, secret: &Secret, trust_domain: &str, now: SystemTime) -> Result<Keys, StoreError> {
        let empty = Data::new();
        let data = secret.data.as_ref().unwrap_or(&empty);
        let parts = read(data, trust_domain)?;
        let issuer = match self.issuer(trust_domain, now).await {
            // It is not known whether there is one, so nothing that is in use may change.
            Err(error @ StoreError::Api { .. }) => return Err(error),
            known => known,
        };
        Keys::new(Found {
            roots: parts.roots,
            issuer,
            signs: parts.signs,
            since: parts.since,
            signer_at: &key_at(AUTHORITY_SECRET, SIGNER),
            issuer_at: &place(ISSUER_SECRET),
            restore: RESTORE,
        })
    }

    /// The user's intermediate; none where there is no such Secret.
    async fn issuer(&self, trust_domain: &str, now: SystemTime) -> Result<Option<UserIssuer>, StoreError> {
        let Some(secret) = self.get(ISSUER_SECRET).await? else {
            return Ok(None);
        };
        let data = secret.data.unwrap_or_default();
        let part = |key: &str| {
            let problem = "is missing: the Secret needs tls.crt, tls.key and ca.crt";
            text(&data, ISSUER_SECRET, key)?.ok_or_else(|| broken_key(ISSUER_SECRET, key, problem))
        };
        let pem = IssuerPem {
            certificate: part(issuer::CERTIFICATE)?,
            key: part(issuer::KEY)?,
            roots: part(issuer::ROOTS)?,
        };
        let identity =
            crate::authority::operator(trust_domain).map_err(|e| broken(ISSUER_SECRET, e.to_string()))?;
        let issuer =
            UserIssuer::parse(&pem, &identity, now).map_err(|problem| broken(ISSUER_SECRET, problem))?;
        Ok(Some(issuer))
    }
}

/// What the Secret says.
struct Parts {
    roots: Vec<(u32, crate::authority::signer::Signer)>,
    signs: Signs,
    since: Option<SystemTime>,
}

fn read(data: &Data, trust_domain: &str) -> Result<Parts, StoreError> {
    let required = |key: &str| {
        let problem = format!("is missing: {RESTORE}");
        text(data, AUTHORITY_SECRET, key)?.ok_or_else(|| broken_key(AUTHORITY_SECRET, key, problem))
    };
    let mut numbers = BTreeSet::new();
    for key in data.keys() {
        let Some((number, end)) = key.strip_prefix("root-").and_then(|rest| rest.rsplit_once('.')) else {
            continue;
        };
        let number = number
            .parse::<u32>()
            .ok()
            .filter(|_| end == "crt" || end == "key");
        let problem =
            "is no part of a root: those are root-<number>.crt and root-<number>.key; rename or remove it";
        numbers.insert(number.ok_or_else(|| broken_key(AUTHORITY_SECRET, key, problem))?);
    }
    let mut roots = Vec::new();
    for number in numbers {
        let certificate = certificate_key(number);
        let pem = RootPem {
            certificate: required(&certificate)?,
            key: required(&private_key(number))?,
        };
        let root = root::parse(&pem, trust_domain)
            .map_err(|problem| broken_key(AUTHORITY_SECRET, &certificate, format!("{problem}; {RESTORE}")))?;
        roots.push((number, root));
    }
    let signs = required(SIGNER)?;
    let signs = Signs::parse(&signs).ok_or_else(|| {
        let problem = format!(
            "is {:?}, which is neither a root's number nor `issuer`: {RESTORE}",
            signs.trim()
        );
        broken_key(AUTHORITY_SECRET, SIGNER, problem)
    })?;
    let since = text(data, AUTHORITY_SECRET, SINCE)?.and_then(|text| text.trim().parse().ok());
    Ok(Parts {
        roots,
        signs,
        since: since.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
    })
}

/// The first content: with an intermediate of the user nothing is made, for that one signs.
fn first(brought: bool, trust_domain: &str, now: SystemTime) -> Result<Data, StoreError> {
    let mut data = Data::new();
    let signs = if brought { Signs::Issuer } else { Signs::Root(1) };
    if !brought {
        add(&mut data, 1, trust_domain, now)?;
    }
    set_signer(&mut data, signs, now);
    Ok(data)
}

fn take(data: &mut Data, step: &Step, trust_domain: &str, now: SystemTime) -> Result<(), StoreError> {
    match step {
        Step::Added { root } => add(data, *root, trust_domain, now)?,
        Step::Signs { signer } => set_signer(data, *signer, now),
        Step::Dropped { roots } => {
            for root in roots {
                data.remove(&certificate_key(*root));
                data.remove(&private_key(*root));
            }
        }
    }
    Ok(())
}

fn add(data: &mut Data, number: u32, trust_domain: &str, now: SystemTime) -> Result<(), StoreError> {
    let RootPem { certificate, key } = root::create(trust_domain, now)?;
    data.insert(certificate_key(number), ByteString(certificate.into_bytes()));
    data.insert(private_key(number), ByteString(key.into_bytes()));
    Ok(())
}

fn set_signer(data: &mut Data, signs: Signs, now: SystemTime) {
    data.insert(SIGNER.to_owned(), ByteString(signs.to_string().into_bytes()));
    data.insert(SINCE.to_owned(), ByteString(unix(now).to_string().into_bytes()));
}

fn certificate_key(number: u32) -> String {
    format!("root-{number}.crt")
}

fn private_key(number: u32) -> String {
    format!("root-{number}.key")
}

fn text(data: &Data, secret: &str, key: &str) -> Result<Option<String>, StoreError> {
    let Some(ByteString(bytes)) = data.get(key) else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes.clone()).map_err(|_| broken_key(secret, key, "is no text"))?;
    Ok(Some(text))
}

fn place(secret: &str) -> String {
    format!("Secret {ROOT_NAMESPACE}/{secret}")
}

fn key_at(secret: &str, key: &str) -> String {
    format!("{}, key {key}", place(secret))
}

fn broken(secret: &str, problem: impl Into<String>) -> StoreError {
    StoreError::Broken {
        place: place(secret),
        problem: problem.into(),
    }
}

fn broken_key(secret: &str, key: &str, problem: impl Into<String>) -> StoreError {
    StoreError::Broken {
        place: key_at(secret, key),
        problem: problem.into(),
    }
}

fn gone(kind: &str, name: &str) -> StoreError {
    StoreError::Api {
        place: format!("{kind} {ROOT_NAMESPACE}/{name}"),
        problem: "was there a moment ago, and is not any more".to_owned(),
        passing: true,
    }
}

fn failed(failed: &Failed, kind: &str, name: &str) -> StoreError {
    StoreError::Api {
        place: format!("{kind} {ROOT_NAMESPACE}/{name}"),
        problem: failed.to_string(),
        passing: failed.passing(),
    }
}

async fn answer<T>(
    kind: &str,
    name: &str,
    asked: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, StoreError> {
    within(asked).await.map_err(|e| failed(&e, kind, name))
}

#[cfg(test)]
mod tests;
