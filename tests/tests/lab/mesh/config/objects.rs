//! Objects that are wrong, or in each other's way.

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::Value;
use tests::lab::{Builder, Lab, ServiceSpec, eventually};

use super::super::SOON;
use super::super::group::Group;
use super::super::rules::{all_to, destination_rule, follows, object, route, stamped, status};

pub(super) fn trials() -> Vec<Trial> {
    let group = Group::new(lab);
    vec![
        group.trial(
            "field_lesson: one bad object harms no other, and its status says why",
            bad_object,
        ),
        group.trial(
            "field_lesson: of two objects with one host the older wins, and the loser is told",
            conflict,
        ),
        group.trial(
            "a broken file keeps its last good state, and is named with its line",
            broken_file,
        ),
        group.trial("status says how many proxies have applied an object", applied),
        group.trial(
            "a subset that no rule defines is refused by name, until one does",
            missing_subset,
        ),
    ]
}

fn lab() -> Builder {
    Lab::builder()
        .service(ServiceSpec::http("reviews").version("v1", 1))
        .service(ServiceSpec::http("ratings").version("v1", 1))
        .client("web")
}

async fn answers(lab: &Lab, host: &str) -> anyhow::Result<()> {
    let reply = lab.pod("web").get(&format!("http://{host}:8080/")).await?;
    ensure!(reply.status == 200, "{host}: {} {}", reply.status, reply.text());
    Ok(())
}

async fn bad_object(lab: &Lab) -> anyhow::Result<()> {
    let bad = "apiVersion: hauberk.dev/v1alpha1\nkind: VirtualService\nmetadata: {name: bad, namespace: shop}\n\
               spec:\n  hosts: [ratings]\n  http:\n  - fault: {abort: {httpStatus: 5000, percentage: {value: 100}}}\n    \
               route: [{destination: {host: ratings}}]\n";
    let unknown = bad.replace(
        "fault: {abort: {httpStatus: 5000, percentage: {value: 100}}}",
        "timeuot: 1s",
    );
    for (text, field) in [(bad, "fault"), (unknown.as_str(), "timeuot")] {
        lab.apply("bad", text)?;
        // Applied after it, and followed in spite of it.
        route(lab, &["web"], "reviews", &all_to("reviews")).await?;
        answers(lab, "ratings").await?;
        eventually(SOON, &format!("the status names {field}"), async || {
            let all = status(lab).await?.to_string();
            ensure!(all.contains(field), "{all}");
            Ok(())
        })
        .await?;
        let good = object(lab, "VirtualService", "reviews").await?;
        ensure!(good["accepted"] == true, "{good}");
    }
    lab.apply("bad", bad)?;
    eventually(SOON, "the object itself is shown as refused", async || {
        let bad = object(lab, "VirtualService", "bad").await?;
        ensure!(
            bad["accepted"] == false && bad["findings"].to_string().contains("fault"),
            "{bad}"
        );
        Ok(())
    })
    .await?;
    lab.delete("bad")
}

async fn conflict(lab: &Lab) -> anyhow::Result<()> {
    let of = |name: &str, created: &str| {
        format!(
            "apiVersion: hauberk.dev/v1alpha1\nkind: VirtualService\n\
             metadata: {{name: {name}, namespace: shop, creationTimestamp: \"{created}\"}}\n\
             spec:\n  hosts: [ratings]\n  http: [{{directResponse: {{status: 200, body: {{string: {name}}}}}}}]\n"
        )
    };
    let expect = async |winner: &str| {
        eventually(SOON, &format!("{winner} decides"), async || {
            let reply = lab.pod("web").get("http://ratings:8080/").await?;
            ensure!(reply.text() == winner, "{}", reply.text());
            Ok(())
        })
        .await
    };
    lab.apply("younger", &of("aaa-younger", "2026-02-01T00:00:00Z"))?;
    expect("aaa-younger").await?;
    lab.apply("older", &of("zzz-older", "2026-01-01T00:00:00Z"))?;
    expect("zzz-older").await?;
    eventually(SOON, "the loser is told by whom", async || {
        let loser = object(lab, "VirtualService", "aaa-younger").await?;
        let told: Value = loser["conflicts"].clone();
        ensure!(told.to_string().contains("zzz-older"), "{loser}");
        let winner = object(lab, "VirtualService", "zzz-older").await?;
        ensure!(
            winner["accepted"] == true && winner["conflicts"].as_array().is_some_and(Vec::is_empty),
            "{winner}"
        );
        Ok(())
    })
    .await?;
    lab.delete("older")?;
    expect("aaa-younger").await?;
    lab.delete("younger")?;
    eventually(SOON, "the application answers again", async || {
        let reply = lab.pod("web").get("http://ratings:8080/").await?;
        ensure!(reply.app_pod() == "ratings-v1-0", "{}", reply.text());
        Ok(())
    })
    .await
}

async fn broken_file(lab: &Lab) -> anyhow::Result<()> {
    let (good, stamp) = stamped("ratings", &all_to("ratings"));
    lab.apply("vs-ratings", &good)?;
    follows(lab, "web", "ratings", &stamp).await?;
    for broken in [
        good[..good.len() / 2].to_owned() + "\n\t: {",
        "\u{0}\u{1}\u{2}".to_owned(),
        format!("{good}---\nkind: [unclosed\n"),
    ] {
        lab.apply("vs-ratings", &broken)?;
        eventually(SOON, "the file is reported", async || {
            let files = status(lab).await?["files"].to_string();
            let placed = files
                .split("vs-ratings.yaml:")
                .nth(1)
                .is_some_and(|rest| rest.starts_with(char::is_numeric));
            ensure!(placed, "file and line are missing: {files}");
            Ok(())
        })
        .await?;
        follows(lab, "web", "ratings", &stamp).await?;
        answers(lab, "ratings").await?;
    }
    route(lab, &["web"], "ratings", &all_to("ratings")).await?;
    eventually(SOON, "the file is fine again", async || {
        let files = status(lab).await?["files"].clone();
        ensure!(files.as_array().is_some_and(Vec::is_empty), "{files}");
        Ok(())
    })
    .await?;
    lab.delete("vs-ratings")
}

async fn applied(lab: &Lab) -> anyhow::Result<()> {
    route(lab, &["web"], "reviews", &all_to("reviews")).await?;
    eventually(SOON, "the one proxy that uses it has applied it", async || {
        let object = object(lab, "VirtualService", "reviews").await?;
        ensure!(object["used_by"] == 1 && object["applied_by"] == 1, "{object}");
        ensure!(object["applied"] == "applied by 1 of 1 proxy", "{object}");
        Ok(())
    })
    .await
}

async fn missing_subset(lab: &Lab) -> anyhow::Result<()> {
    route(lab, &["web"], "reviews", &all_to("reviews")).await?;
    let (yaml, stamp) = stamped(
        "reviews",
        "- route: [{destination: {host: reviews, subset: later}}]",
    );
    lab.apply("vs-reviews", &yaml)?;
    eventually(SOON, "the object is refused by the subset's name", async || {
        let object = object(lab, "VirtualService", "reviews").await?;
        ensure!(
            object["accepted"] == false && object["findings"].to_string().contains("later"),
            "{object}"
        );
        Ok(())
    })
    .await?;
    answers(lab, "reviews").await?;
    // The order of creation does not matter: with the subset the object comes into force by itself.
    let subset = "subsets: [{name: later, labels: {version: v1}}]";
    lab.apply("dr-reviews", &destination_rule("reviews", subset))?;
    follows(lab, "web", "reviews", &stamp).await?;
    answers(lab, "reviews").await?;
    lab.delete("dr-reviews")?;
    route(lab, &["web"], "reviews", &all_to("reviews")).await
}
