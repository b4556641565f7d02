//! Certificates that last seconds: renewed while they are in use, and honestly missed when nobody renews them.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use libtest_mimic::Trial;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tests::lab::{Builder, Lab, ServiceSpec, eventually};
use tests::load::Plan;

use super::super::SOON;
use super::super::group::alone;

/// The shortest that the operator signs.
const LIFETIME: &str = "10s";

pub(super) fn trials() -> Vec<Trial> {
    vec![
        alone(
            "field_lesson: certificates are renewed under load, and no request fails",
            lab,
            renewal,
        ),
        alone(
            "field_lesson: an expired certificate is said to be expired, and never used",
            lab,
            expiry,
        ),
        alone(
            "a root is rotated under load, then an intermediate takes over from it, and no request fails",
            lab,
            rotation,
        ),
    ]
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("reviews").version("v1", 2))
        .client("web")
        .operator_env("HAUBERK_CERTIFICATE_LIFETIME", LIFETIME)
}

async fn renewals(lab: &Lab, pod: &str) -> anyhow::Result<f64> {
    lab.proxy(pod)
        .metric("hauberk_certificate_renewals_total", &[])
        .await
}

async fn renewal(lab: &Lab) -> anyhow::Result<()> {
    // Both kept connections, which must outlive their certificate, and a new handshake for every request.
    let url = "http://reviews:8080/";
    let kept = lab.load("web", Plan::get(url).connections(2).rate(40.0)).await?;
    let fresh = lab
        .load(
            "web",
            Plan::get(url).connections(2).rate(40.0).fresh_connections(),
        )
        .await?;
    let pods = ["web", "reviews-v1-0", "reviews-v1-1"];
    let mut before = Vec::new();
    for pod in pods {
        before.push(renewals(lab, pod).await?);
    }
    eventually(SOON * 3, "every certificate is renewed twice", async || {
        for (pod, before) in pods.iter().zip(&before) {
            let now = renewals(lab, pod).await?;
            ensure!(now >= before + 2.0, "{pod}: {now} after {before}");
        }
        Ok(())
    })
    .await?;
    let (kept, fresh) = (kept.stop().await, fresh.stop().await);
    ensure!(kept.errors() == 0 && kept.opened == 2, "{}", kept.summary());
    ensure!(fresh.errors() == 0, "{}", fresh.summary());
    ensure!(
        kept.elapsed > Duration::from_secs(9),
        "certificates did expire meanwhile"
    );
    Ok(())
}

async fn rotation(lab: &Lab) -> anyhow::Result<()> {
    let url = "http://reviews:8080/";
    let kept = lab.load("web", Plan::get(url).connections(2).rate(40.0)).await?;
    let fresh = lab
        .load(
            "web",
            Plan::get(url).connections(2).rate(40.0).fresh_connections(),
        )
        .await?;
    let roots = || -> anyhow::Result<usize> {
        let pem = std::fs::read_to_string(lab.operator().roots())?;
        Ok(pem.matches("BEGIN CERTIFICATE").count())
    };

    let before = bundles_sent(lab).await?;
    ensure!(lab.operator().rotate_root().await?.contains("root 2 is trusted"));
    ensure!(roots()? == 2);
    bundles_applied(lab, before).await?;
    ensure!(lab.operator().rotate_root().await?.contains("root 2 signs"));
    dropped(lab).await?;
    ensure!(roots()? == 1);

    let before = bundles_sent(lab).await?;
    bring_intermediate(&lab.operator().state_dir().join("issuer"))?;
    bundles_applied(lab, before).await?;
    ensure!(
        lab.operator()
            .rotate_root()
            .await?
            .contains("your intermediate signs")
    );
    dropped(lab).await?;
    let brought = std::fs::read_to_string(lab.operator().state_dir().join("issuer/ca.crt"))?;
    let trusted = std::fs::read_to_string(lab.operator().roots())?;
    ensure!(
        trusted.split_whitespace().eq(brought.split_whitespace()),
        "{trusted}"
    );

    let (kept, fresh) = (kept.stop().await, fresh.stop().await);
    ensure!(kept.errors() == 0 && kept.opened == 2, "{}", kept.summary());
    ensure!(fresh.errors() == 0, "{}", fresh.summary());
    Ok(())
}

/// Waits until the old root may go, and has it go. Asked too soon, the command refuses.
async fn dropped(lab: &Lab) -> anyhow::Result<()> {
    let early = lab.operator().rotate_root().await;
    let refused = early.err().map(|e| e.to_string()).unwrap_or_default();
    ensure!(refused.contains("call again in"), "{refused:?}");
    eventually(SOON * 3, "the old root is dropped", async || {
        let said = lab.operator().rotate_root().await?;
        ensure!(said.contains("no longer trusted"), "{said}");
        Ok(())
    })
    .await
}

async fn bundles_sent(lab: &Lab) -> anyhow::Result<f64> {
    let name = "hauberk_operator_resources_sent_total";
    lab.operator().metric(name, &[("kind", "trust_bundle")]).await
}

async fn bundles_applied(lab: &Lab, before: f64) -> anyhow::Result<()> {
    let proxies = 3.0;
    eventually(SOON, "every proxy has the new bundle", async || {
        let sent = bundles_sent(lab).await?;
        ensure!(
            sent >= before + proxies,
            "{sent} bundles were sent, {before} before"
        );
        let status = lab.operator().admin("/status").await?.text();
        let status: serde_json::Value = serde_json::from_str(&status)?;
        for proxy in status["proxies"].as_array().into_iter().flatten() {
            ensure!(proxy["waiting"] == 0, "{proxy}");
        }
        Ok(())
    })
    .await
}

/// An authority of the user: a root, and an intermediate below it.
fn bring_intermediate(folder: &Path) -> anyhow::Result<()> {
    let certificate = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let (root_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let root = certificate("root of the company").self_signed(&root_key)?;
    let issuer = Issuer::new(certificate("root of the company"), root_key);
    let intermediate = certificate("for the mesh").signed_by(&key, &issuer)?;
    // In one move, as a Secret comes: half of it would be an error in the log.
    let draft = folder.with_extension("draft");
    std::fs::create_dir(&draft)?;
    std::fs::write(draft.join("tls.crt"), intermediate.pem())?;
    std::fs::write(draft.join("tls.key"), key.serialize_pem())?;
    std::fs::write(draft.join("ca.crt"), root.pem())?;
    Ok(std::fs::rename(&draft, folder)?)
}

async fn expiry(lab: &Lab) -> anyhow::Result<()> {
    ensure!(lab.pod("web").get("http://reviews:8080/").await?.status == 200);
    lab.operator().kill();
    eventually(
        SOON * 2,
        "the proxies say that their certificates have expired",
        async || {
            for pod in ["web", "reviews-v1-0", "reviews-v1-1"] {
                let health = lab.proxy(pod).admin("/health/ready").await?;
                ensure!(
                    health.status == 503 && health.text().contains("expired"),
                    "{pod}: {}",
                    health.text()
                );
            }
            Ok(())
        },
    )
    .await?;
    let refused = lab
        .pod("web")
        .get(&format!("http://{}/", lab.pod("reviews-v1-1").address(8080)))
        .await?;
    ensure!(
        refused.status == 503
            && ["no_certificate", "discovery_timeout"].contains(&refused.header("x-hauberk-reason")),
        "{} {:?}",
        refused.status,
        refused.headers
    );
    lab.operator().start().await?;
    eventually(
        SOON * 2,
        "the operator is back, and so is everything",
        async || {
            let reply = lab.pod("web").get("http://reviews:8080/").await?;
            ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
            Ok(())
        },
    )
    .await
}
