//! What is on the wire, and who is let in.

use tests::app::Answer;
use tests::client::Call;
use tests::lab::{Lab, capture::Capture, eventually};

use super::{PATIENCE, URL};
use crate::shop::STRICT;
use crate::tell::Teller;

const MARKER: &str = "marker-4711-in-the-mesh";
const PLAIN_MARKER: &str = "marker-0815-in-the-clear";

pub(crate) async fn tell(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    teller.story("mutual TLS between pods, and who is let in");
    let pods = lab.pods_of("reviews");
    let reviews = lab.pod(&pods[0]);
    // New connections, so that the capture sees them from their first byte.
    lab.proxy("web").restart().await?;
    lab.proxy("web").ready().await?;
    let capture = Capture::start()?;
    let mut answers = Vec::new();
    for _ in 0..50 {
        let call = Call::post(&format!("{URL}echo"), MARKER).header("x-marker", MARKER);
        let reply = lab.pod("web").send(call).await?;
        anyhow::ensure!(
            reply.status == 200 && reply.text() == MARKER,
            "reviews echoed {} {:?}",
            reply.status,
            reply.text()
        );
        answers.push(lab.pod("web").get(URL).await?);
    }
    let outside = Call::post(&format!("http://{}/echo", reviews.address(8080)), PLAIN_MARKER);
    let served = lab.pod("legacy").send(outside).await?;
    capture.wait_for(PLAIN_MARKER.as_bytes(), PATIENCE).await?;

    let web = lab.pod("web").ip();
    let streams: Vec<_> = capture
        .streams_of(8080)
        .into_iter()
        .filter(|s| s.from.ip() == web || s.to.ip() == web)
        .collect();
    let tls = streams.iter().filter(|s| s.is_tls()).count();
    let bytes: usize = streams.iter().map(|s| s.bytes.len()).sum();
    teller.claim(
        tls == streams.len() && tls > 0,
        "web and reviews speak TLS alone",
        &format!("{tls} of {} captured streams, {bytes} bytes", streams.len()),
    );
    teller.claim(
        !capture.saw(MARKER.as_bytes()),
        "not one byte of the marker is on the wire",
        "not found in the capture, though it was sent and echoed 50 times; the outsider's was found",
    );
    drop(capture);

    let answer: Answer = answers
        .pop()
        .ok_or_else(|| anyhow::anyhow!("no answer"))?
        .json()?;
    let peer = answer
        .request
        .headers
        .get(api::names::PEER_HEADER)
        .cloned()
        .unwrap_or_default();
    teller.claim(
        peer == "spiffe://cluster.local/ns/shop/sa/web",
        "the server is told who calls",
        &format!("{}: {peer}", api::names::PEER_HEADER),
    );
    teller.claim(
        served.status == 200,
        "PERMISSIVE: a pod outside the mesh is served",
        &served.status.to_string(),
    );

    lab.apply("strict", STRICT)?;
    let direct = format!("http://{}/", reviews.address(8080));
    let refused = eventually(PATIENCE, "the outsider is refused", async || {
        let reply = lab.pod("legacy").get(&direct).await?;
        anyhow::ensure!(reply.status != 200, "it was served");
        Ok(reply)
    })
    .await?;
    teller.claim(
        refused.status == 403,
        "STRICT: it is refused, and told why",
        &format!("{} {}", refused.status, refused.text().trim()),
    );
    let meshed = lab.pod("web").get(URL).await?;
    teller.claim(
        meshed.status == 200,
        "and web is served as before",
        &meshed.status.to_string(),
    );
    lab.delete("strict")?;
    Ok(())
}
