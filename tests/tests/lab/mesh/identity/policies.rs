//! PeerAuthentication: who may come without mutual TLS.

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use tests::client::Call;
use tests::lab::capture::Capture;
use tests::lab::{Builder, Lab, PortSpec, ServiceSpec, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::SOON;
use super::super::group::Group;

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial(
            "field_lesson: before STRICT, plaintext is taken and counted, so that it is known who would break",
            permissive,
        ),
        group.trial(
            "STRICT in a namespace refuses plaintext there and nowhere else",
            namespace,
        ),
        group.trial(
            "a policy for a workload goes before its namespace's, one for a port before that",
            workload,
        ),
        group.trial("STRICT in the root namespace holds for the whole mesh", root),
        group.trial(
            "DISABLE takes plaintext only, and the mesh's own callers follow",
            disable,
        ),
        group.trial(
            "STRICT closes plaintext TCP without a byte from the application",
            strict_tcp,
        ),
    ]
}

fn lab() -> Builder {
    let reviews = |name: &str, namespace: &str| {
        ServiceSpec::http(name)
            .namespace(namespace)
            .port(PortSpec::http(8081).named("http-more"))
            .port(PortSpec::greeting(2525, "220 ready"))
            .version("v1", 1)
    };
    Lab::builder()
        .service(reviews("reviews", "shop"))
        .service(reviews("other", "elsewhere"))
        .client("web")
        .outsider("stranger")
}

fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: hauberk.dev/v1alpha1\nkind: PeerAuthentication\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// What a caller gets from a port of a pod: `open` or `refused`.
async fn from(lab: &Lab, caller: &str, pod: &str, port: u16) -> anyhow::Result<&'static str> {
    let call = Call::get(&format!("http://{}/", lab.pod(pod).address(port)));
    let reply = lab.pod(caller).send(call).await?;
    match reply.status {
        200 => Ok("open"),
        403 if reply.header("x-hauberk-reason") == "plaintext_refused" => {
            ensure!(reply.text().contains("STRICT"), "it says why: {}", reply.text());
            Ok("refused")
        }
        other => anyhow::bail!("{other} {:?} {}", reply.headers, reply.text()),
    }
}

/// Waits until the stranger gets what the table says.
async fn becomes(lab: &Lab, table: &[(&str, u16, &str)]) -> anyhow::Result<()> {
    eventually(SOON, &format!("the stranger finds {table:?}"), async || {
        for (pod, port, expected) in table {
            let found = from(lab, "stranger", pod, *port).await?;
            ensure!(found == *expected, "{pod}:{port} is {found}");
        }
        Ok(())
    })
    .await?;
    for (pod, port, _) in table {
        let found = from(lab, "web", pod, *port).await?;
        ensure!(found == "open", "a meshed caller is refused at {pod}:{port}");
    }
    Ok(())
}

const REVIEWS: &str = "reviews-v1-0";
const OTHER: &str = "other-v1-0";

async fn permissive(lab: &Lab) -> anyhow::Result<()> {
    becomes(lab, &[(REVIEWS, 8080, "open"), (OTHER, 8080, "open")]).await?;
    for tls in ["mutual", "plaintext"] {
        let labels = [("port", "8080"), ("tls", tls)];
        let counted = lab
            .proxy(REVIEWS)
            .metric("hauberk_inbound_connections_total", &labels)
            .await?;
        ensure!(
            counted >= 1.0,
            "the report of who would break counts {counted} as {tls}"
        );
    }
    Ok(())
}

async fn namespace(lab: &Lab) -> anyhow::Result<()> {
    lab.apply("strict", &policy("shop", "default", "{mtls: {mode: STRICT}}"))?;
    becomes(
        lab,
        &[
            (REVIEWS, 8080, "refused"),
            (REVIEWS, 8081, "refused"),
            (OTHER, 8080, "open"),
        ],
    )
    .await?;
    lab.delete("strict")?;
    becomes(lab, &[(REVIEWS, 8080, "open")]).await
}

async fn workload(lab: &Lab) -> anyhow::Result<()> {
    lab.apply("strict", &policy("shop", "default", "{mtls: {mode: STRICT}}"))?;
    let selected = "{selector: {matchLabels: {app: reviews}}, mtls: {mode: PERMISSIVE}, \
                    portLevelMtls: {8081: {mode: STRICT}}}";
    lab.apply("reviews", &policy("shop", "reviews", selected))?;
    becomes(lab, &[(REVIEWS, 8080, "open"), (REVIEWS, 8081, "refused")]).await?;
    let inverted = "{selector: {matchLabels: {app: reviews}}, portLevelMtls: {8081: {mode: PERMISSIVE}}}";
    lab.apply("reviews", &policy("shop", "reviews", inverted))?;
    becomes(lab, &[(REVIEWS, 8080, "refused"), (REVIEWS, 8081, "open")]).await?;
    lab.delete("strict")?;
    lab.delete("reviews")?;
    becomes(lab, &[(REVIEWS, 8080, "open"), (REVIEWS, 8081, "open")]).await
}

async fn root(lab: &Lab) -> anyhow::Result<()> {
    lab.apply(
        "mesh",
        &policy("hauberk-system", "default", "{mtls: {mode: STRICT}}"),
    )?;
    becomes(lab, &[(REVIEWS, 8080, "refused"), (OTHER, 8080, "refused")]).await?;
    lab.apply(
        "except",
        &policy("elsewhere", "default", "{mtls: {mode: PERMISSIVE}}"),
    )?;
    becomes(lab, &[(REVIEWS, 8080, "refused"), (OTHER, 8080, "open")]).await?;
    lab.delete("except")?;
    lab.delete("mesh")?;
    becomes(lab, &[(REVIEWS, 8080, "open"), (OTHER, 8080, "open")]).await
}

async fn disable(lab: &Lab) -> anyhow::Result<()> {
    const MARKER: &str = "in-clear-text-on-purpose";
    lab.apply("off", &policy("elsewhere", "default", "{mtls: {mode: DISABLE}}"))?;
    let capture = Capture::start()?;
    eventually(SOON, "the mesh's own callers use plaintext", async || {
        for url in [
            "http://other.elsewhere:8080/echo".to_owned(),
            format!("http://{}/echo", lab.pod(OTHER).address(8080)),
        ] {
            capture.clear();
            let reply = lab.pod("web").send(Call::post(&url, MARKER)).await?;
            ensure!(reply.text() == MARKER, "{url}: {} {}", reply.status, reply.text());
            ensure!(capture.saw(MARKER.as_bytes()), "{url} is still encrypted");
        }
        Ok(())
    })
    .await?;
    ensure!(from(lab, "stranger", OTHER, 8080).await? == "open");
    lab.delete("off")?;
    eventually(SOON, "mutual TLS is back", async || {
        capture.clear();
        let call = Call::post("http://other.elsewhere:8080/echo", MARKER);
        let reply = lab.pod("web").send(call).await?;
        ensure!(reply.text() == MARKER, "{} {}", reply.status, reply.text());
        ensure!(!capture.saw(MARKER.as_bytes()), "clear text");
        Ok(())
    })
    .await
}

async fn strict_tcp(lab: &Lab) -> anyhow::Result<()> {
    let address = lab.pod(REVIEWS).address(2525).to_string();
    let read = async |caller: &str| {
        let mut stream = lab.pod(caller).connect(&address).await?;
        let mut text = vec![0; 9];
        let length = timeout(SOON, stream.read(&mut text))
            .await
            .context("it is held")?;
        // A reset is a refusal as well.
        let length = length.unwrap_or(0);
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&text[..length]).into_owned())
    };
    ensure!(
        read("stranger").await? == "220 ready",
        "PERMISSIVE lets a stranger hear the greeting"
    );
    lab.apply("strict", &policy("shop", "default", "{mtls: {mode: STRICT}}"))?;
    becomes(lab, &[(REVIEWS, 8080, "refused")]).await?;
    let mut stream = lab.pod("stranger").connect(&address).await?;
    stream.write_all(b"hello\n").await?;
    let mut heard = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut heard))
        .await
        .context("it is held")?;
    ensure!(heard.is_empty(), "{ended:?} {heard:?}");
    ensure!(read("web").await? == "220 ready", "the mesh hears it");
    lab.delete("strict")?;
    becomes(lab, &[(REVIEWS, 8080, "open")]).await
}
