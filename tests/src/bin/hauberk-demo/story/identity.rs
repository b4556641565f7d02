//! What is on the wire, and who is let in.

use tests::app::Answer;
use tests::client::Call;
use tests::lab::{Lab, Pod, capture::Capture, eventually};

use super::{PATIENCE, URL};
use crate::shop::STRICT;
use crate::tell::Teller;

const MARKER: &str = "marker-4711-in-the-mesh";
const CALLS: u32 = 50;
const PLAIN_MARKER: &str = "marker-0815-in-the-clear";

pub(crate) async fn tell(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    teller.story("mutual TLS between pods, and who is let in");
    on_the_wire(lab, teller).await?;
    let answer: Answer = lab.pod("web").get(URL).await?.json()?;
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
    let_in(lab, teller).await
}

/// What a capture on the bridge between the pods shows.
async fn on_the_wire(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    let reviews = reviews(lab);
    // New connections, so that the capture sees them from their first byte.
    lab.proxy("web").restart().await?;
    lab.proxy("web").ready().await?;
    let capture = Capture::start()?;
    for _ in 0..CALLS {
        let call = Call::post(&format!("{URL}echo"), MARKER).header("x-marker", MARKER);
        let reply = lab.pod("web").send(call).await?;
        let (status, text) = (reply.status, reply.text());
        anyhow::ensure!(
            status == 200 && text == MARKER,
            "reviews echoed {status} {text:?}"
        );
    }
    // The outsider's marker must be found, else not finding the other would show nothing.
    let outside = Call::post(&format!("http://{}/echo", reviews.address(8080)), PLAIN_MARKER);
    lab.pod("legacy").send(outside).await?;
    capture.wait_for(PLAIN_MARKER.as_bytes(), PATIENCE).await?;

    let web = lab.pod("web").ip();
    let mut streams = capture.streams_of(8080);
    streams.retain(|s| s.from.ip() == web || s.to.ip() == web);
    let tls = streams.iter().filter(|s| s.is_tls()).count();
    let bytes: usize = streams.iter().map(|s| s.bytes.len()).sum();
    teller.claim(
        tls == streams.len() && tls > 0,
        "web and reviews speak TLS alone",
        &format!("{tls} of {} captured streams, {bytes} bytes", streams.len()),
    );
    let saw = capture.saw(MARKER.as_bytes());
    teller.claim(
        !saw,
        "not one byte of the marker is on the wire",
        &format!(
            "{} in the capture, though it was sent and echoed {CALLS} times; the outsider's was found",
            if saw { "found" } else { "not found" }
        ),
    );
    Ok(())
}

/// Whom PeerAuthentication lets in.
async fn let_in(lab: &Lab, teller: &mut Teller) -> anyhow::Result<()> {
    let direct = format!("http://{}/", reviews(lab).address(8080));
    let served = lab.pod("legacy").get(&direct).await?;
    teller.claim(
        served.status == 200,
        "PERMISSIVE: a pod outside the mesh is served",
        &served.status.to_string(),
    );
    lab.apply("strict", STRICT)?;
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
    lab.delete("strict")
}

fn reviews(lab: &Lab) -> Pod {
    let pods = lab.pods_of("reviews");
    lab.pod(pods.first().expect("the shop has reviews"))
}
