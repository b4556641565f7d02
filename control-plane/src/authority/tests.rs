use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::UnixTime;

use super::testing::{brought, put};
use super::*;
use crate::kubernetes::fake::Fake;
use crate::metrics::Metrics;

const SECRET: &str = "/api/v1/namespaces/hauberk-system/secrets/hauberk-authority";

fn settings() -> AuthoritySettings {
    AuthoritySettings {
        trust_domain: "cluster.local".to_owned(),
        lifetime: Duration::from_secs(3600),
    }
}

async fn open(store: &Store) -> Arc<Authority> {
    Authority::open(settings(), store.clone(), Metrics::new().authority)
        .await
        .unwrap()
}

async fn step(store: &Store, lifetime: Duration) -> Result<Step, RotateError> {
    rotate(store, "cluster.local", lifetime, SystemTime::now()).await
}

/// A certificate of this authority for a workload, which has been verified against the bundle that came with it.
fn sign(authority: &Authority) -> Vec<Vec<u8>> {
    let mut params = CertificateParams::default();
    let uri = "spiffe://cluster.local/ns/shop/sa/web";
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let claims = Claims {
        namespace: "shop".to_owned(),
        service_account: "web".to_owned(),
        pod: "web-0".to_owned(),
    };
    let signed = authority.sign(&claims, csr.der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(root_store(&signed.bundle));
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider);
    let chain: Vec<_> = signed.chain.iter().map(|der| der.clone().into()).collect();
    verifier
        .build()
        .unwrap()
        .verify_client_cert(&chain[0], &chain[1..], UnixTime::now())
        .unwrap();
    signed.chain
}

fn root_store(bundle: &TrustBundle) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    for root in &bundle.roots {
        roots.add(root.to_vec().into()).unwrap();
    }
    roots
}

#[tokio::test]
async fn a_rotation_changes_bundle_and_signer_without_a_restart_in_either_home() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    for store in [Store::directory(dir.path()), Store::secret(fake.client())] {
        let authority = open(&store).await;
        let old = authority.bundle();
        let mut changes = authority.trust.subscribe();

        step(&store, Duration::ZERO).await.unwrap();
        authority.look().await;
        assert!(changes.has_changed().unwrap());
        let both = authority.bundle();
        assert_eq!((both.roots.len(), &both.roots[0]), (2, &old.roots[0]));

        step(&store, Duration::ZERO).await.unwrap();
        authority.look().await;
        let signer = authority.trust.borrow().signer().der.to_vec();
        assert_eq!(signer, both.roots[1].as_ref());
        step(&store, Duration::ZERO).await.unwrap();
        authority.look().await;
        assert_eq!(authority.bundle().roots, both.roots[1..]);
        changes.borrow_and_update();
        authority.look().await;
        assert!(!changes.has_changed().unwrap(), "nothing changed this time");
        sign(&authority);
    }
}

#[tokio::test]
async fn a_broken_store_leaves_the_known_keys_in_use_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::default();
    type Harm<'a> = Box<dyn Fn() + 'a>;
    let cases: [(Store, Harm<'_>, &str); 3] = [
        (
            Store::directory(dir.path()),
            Box::new(|| std::fs::remove_dir_all(dir.path().join("roots")).unwrap()),
            "roots: is missing",
        ),
        (
            Store::secret(fake.client()),
            Box::new(|| fake.down(Some(500))),
            "the server is down",
        ),
        (
            Store::secret(fake.client()),
            Box::new(|| {
                fake.down(None);
                fake.remove(SECRET);
            }),
            "hauberk-authority: is missing",
        ),
    ];
    for (store, harm, says) in cases {
        fake.down(None);
        let authority = open(&store).await;
        let before = authority.bundle();
        harm();
        authority.look().await;
        assert_eq!(authority.bundle(), before);
        let problem = authority.health().problem.unwrap();
        assert!(problem.contains(says), "{problem}");
        sign(&authority);
    }
}

#[tokio::test]
async fn an_intermediate_that_is_there_from_the_start_signs_and_no_root_is_made() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &brought());
    let store = Store::directory(dir.path());
    let authority = open(&store).await;
    assert_eq!(sign(&authority).len(), 2, "the intermediate comes along");
    assert_eq!(authority.bundle().roots.len(), 1);
    assert!(!dir.path().join("roots").exists());
    assert!(matches!(
        step(&store, Duration::ZERO).await.unwrap_err(),
        RotateError::Brought
    ));
}

#[tokio::test]
async fn an_intermediate_that_comes_later_is_trusted_first_then_signs_then_the_old_root_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::directory(dir.path());
    let authority = open(&store).await;
    put(dir.path(), &brought());
    authority.look().await;
    let (old, both) = (sign(&authority), authority.bundle());
    assert_eq!(
        (old.len(), both.roots.len()),
        (1, 2),
        "trusted, and does not sign"
    );

    let hour = Duration::from_secs(3600);
    let signer = Signs::Issuer;
    assert_eq!(step(&store, hour).await.unwrap(), Step::Signs { signer });
    authority.look().await;
    assert_eq!(sign(&authority).len(), 2);
    assert_eq!(authority.bundle(), both, "the old root stays trusted");
    assert!(matches!(
        step(&store, hour).await.unwrap_err(),
        RotateError::TooSoon { .. }
    ));
    let dropped = Step::Dropped { roots: vec![1] };
    assert_eq!(step(&store, Duration::ZERO).await.unwrap(), dropped);
    authority.look().await;
    assert_eq!(authority.bundle().roots, both.roots[1..]);
    sign(&authority);
    assert_eq!(sign(&*open(&store).await).len(), 2, "a restart finds it so");
}

#[tokio::test]
async fn a_bad_intermediate_changes_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::directory(dir.path());
    let mut bad = brought();
    bad.key = brought().key;

    put(dir.path(), &bad);
    let error = Authority::open(settings(), store.clone(), Metrics::new().authority).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("issuer: tls.key") && error.contains("belong"),
        "{error}"
    );
    assert!(!dir.path().join("roots").exists(), "no root is made instead");

    std::fs::remove_dir_all(dir.path().join("issuer")).unwrap();
    let authority = open(&store).await;
    let before = authority.bundle();
    put(dir.path(), &bad);
    authority.look().await;
    assert_eq!(authority.bundle(), before);
    assert!(authority.health().problem.is_some());
    assert!(matches!(
        step(&store, Duration::ZERO).await.unwrap_err(),
        RotateError::Unusable(_)
    ));

    put(dir.path(), &brought());
    authority.look().await;
    assert_eq!(authority.health().problem, None);
    step(&store, Duration::ZERO).await.unwrap();
    authority.look().await;
    put(dir.path(), &bad);
    authority.look().await;
    assert!(authority.health().problem.is_some());
    assert_eq!(sign(&authority).len(), 2, "the last good one signs");
}

#[tokio::test]
async fn a_client_that_has_two_roots_verifies_the_operator_by_its_dns_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::directory(dir.path());
    let authority = open(&store).await;
    step(&store, Duration::ZERO).await.unwrap();
    authority.look().await;
    assert_eq!(authority.roots_pem().matches("BEGIN CERTIFICATE").count(), 2);

    // As an API server takes them from a webhook's `caBundle`.
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    for der in rustls_pki_types::CertificateDer::pem_slice_iter(authority.roots_pem().as_bytes()) {
        roots.add(der.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
    let verifier = verifier.build().unwrap();
    let served = ServerIdentity::new(&authority).unwrap().get();
    for (name, good) in [(SERVER_NAME, true), ("other.hauberk-system.svc", false)] {
        let name = name.try_into().unwrap();
        let verified =
            verifier.verify_server_cert(&served.cert[0], &served.cert[1..], &name, &[], UnixTime::now());
        assert_eq!(verified.is_ok(), good, "{name:?}: {verified:?}");
    }
    let (_, certificate) = x509_parser::parse_x509_certificate(&served.cert[0]).unwrap();
    assert_eq!(certificate.version(), x509_parser::x509::X509Version::V3);
    assert!(
        certificate
            .extended_key_usage()
            .unwrap()
            .unwrap()
            .value
            .server_auth
    );
}

#[test]
fn a_token_is_made_only_for_names_that_can_form_an_identity() {
    let dir = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(86400);
    assert!(mint(dir.path(), "shop", "reviews", "r-0", day).is_ok());
    for (ns, sa, pod) in [
        ("Shop", "reviews", "r"),
        ("shop", "", "r"),
        ("shop", "a/b", "r"),
        ("shop", "r", ""),
    ] {
        assert!(mint(dir.path(), ns, sa, pod, day).is_err(), "{ns} {sa} {pod}");
    }
}
