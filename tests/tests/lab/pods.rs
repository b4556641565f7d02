//! The lab itself: pods reach each other, programs end with their guards, and everything works without root.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use libtest_mimic::Trial;
use tests::lab::{self, Lab, PodSpec, Privileges, ServiceSpec, Workload, eventually, trial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// With this argument the program is the probe of the test without root.
const WITHOUT_ROOT: &str = "probe-without-root";
/// With this argument the program is a lab that is about to crash.
const CRASH: &str = "probe-crash";
const SOON: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("pods_reach_each_other_over_ipv4_and_ipv6", pods_reach_each_other),
        trial(
            "a_pod_sees_only_its_own_interfaces",
            a_pod_sees_only_its_own_interfaces,
        ),
        trial(
            "a_service_address_is_refused_at_once_without_a_mesh",
            a_service_address_is_refused,
        ),
        trial(
            "a_program_ends_when_its_guard_is_dropped",
            a_program_ends_with_its_guard,
        ),
        trial(
            "a_program_that_ends_early_shows_its_log",
            a_program_that_ends_early_shows_its_log,
        ),
        trial("a_programs_cost_can_be_read", a_programs_cost_can_be_read),
        trial("manifests_follow_the_pods", manifests_follow_the_pods),
        trial(
            "a_second_lab_finds_a_clean_machine",
            a_second_lab_finds_a_clean_machine,
        ),
        trial(
            "a_panic_in_a_pod_reaches_the_test",
            a_panic_in_a_pod_reaches_the_test,
        ),
        trial("a_missing_service_is_named", a_missing_service_is_named),
        trial(
            "a_crash_leaves_no_process_behind",
            a_crash_leaves_no_process_behind,
        ),
        trial("the_lab_works_without_root", the_lab_works_without_root),
    ]
}

/// Sends a line to `address` and reads it back.
async fn ping(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"ping\n").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    ensure!(&answer == b"ping\n", "got {answer:?}");
    Ok(())
}

/// Answers one connection on each address with what it sends.
async fn echo_once(addresses: Vec<SocketAddr>) -> anyhow::Result<()> {
    for address in addresses {
        let listener = TcpListener::bind(address).await?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut reading, mut writing) = stream.split();
                // The client closes first; what the copy says about that does not matter.
                let _closed = tokio::io::copy(&mut reading, &mut writing).await;
            }
        });
    }
    Ok(())
}

async fn two_pods_ping() -> anyhow::Result<()> {
    let lab = Lab::builder()
        .outsider("a")
        .outsider("b")
        .without_mesh()
        .start()
        .await?;
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let addresses: Vec<SocketAddr> = b.ips().into_iter().map(|ip| SocketAddr::new(ip, 7)).collect();
    ensure!(
        addresses.len() == if lab::has_ipv6()? { 2 } else { 1 },
        "{addresses:?}"
    );
    b.run(echo_once(addresses.clone())).await?;
    for address in addresses {
        a.run(ping(address))
            .await
            .with_context(|| format!("from pod to {address}"))?;
        ping(address)
            .await
            .with_context(|| format!("from the hub to {address}"))?;
    }
    Ok(())
}

async fn pods_reach_each_other() -> anyhow::Result<()> {
    ensure!(
        lab::has_ipv6()?,
        "this machine's kernel has no IPv6: half of this test would be empty"
    );
    two_pods_ping().await
}

async fn a_pod_sees_only_its_own_interfaces() -> anyhow::Result<()> {
    let lab = Lab::builder().outsider("a").without_mesh().start().await?;
    let interfaces = lab
        .pod("a")
        .run(async { std::fs::read_to_string("/proc/thread-self/net/dev") })
        .await?;
    let mut names: Vec<&str> = interfaces
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .collect();
    // Kernels with tunnel modules put fallback devices into every namespace.
    names.retain(|name| ["lo", "eth0"].contains(name) || name.starts_with("pod") || name.starts_with("hbk"));
    names.sort_unstable();
    ensure!(names == ["eth0", "lo"], "{names:?}");
    Ok(())
}

async fn a_service_address_is_refused() -> anyhow::Result<()> {
    let reviews = ServiceSpec::http("reviews").version("v1", 1);
    let lab = Lab::builder()
        .service(reviews)
        .outsider("web")
        .without_mesh()
        .start()
        .await?;
    let web = lab.pod("web");
    let dial = web.connect("reviews:8080");
    match tokio::time::timeout(Duration::from_secs(2), dial).await {
        Ok(Err(_refused)) => Ok(()),
        Ok(Ok(_)) => bail!("something translated the service's address"),
        Err(_elapsed) => bail!("the dial hangs"),
    }
}

fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

async fn a_program_ends_with_its_guard() -> anyhow::Result<()> {
    let lab = Lab::builder().outsider("a").without_mesh().start().await?;
    let mut command = Command::new("sleep");
    command.arg("1000");
    let sleeper = lab.pod("a").spawn("sleep", command).await?;
    let pid = sleeper.pid();
    ensure!(exists(pid) && sleeper.ended().is_none());
    drop(sleeper);
    ensure!(!exists(pid), "process {pid} outlived its guard");

    let mut command = Command::new("sleep");
    command.arg("1000");
    let sleeper = lab.pod("a").spawn("sleep", command).await?;
    ensure!(
        sleeper.wait(Duration::from_millis(50)).await.is_err(),
        "a wait has a deadline"
    );
    sleeper.signal(lab::Signal::SIGTERM)?;
    let status = sleeper.wait(SOON).await?;
    ensure!(status.code().is_none(), "{status}");
    ensure!(
        sleeper.signal(lab::Signal::SIGTERM).is_err(),
        "nobody is left to be signalled"
    );
    Ok(())
}

async fn a_program_that_ends_early_shows_its_log() -> anyhow::Result<()> {
    let lab = Lab::builder().outsider("a").without_mesh().start().await?;
    let mut command = Command::new("sh");
    command.args(["-c", "echo to-out; echo to-err >&2; exit 3"]);
    let shell = lab.pod("a").spawn("shell", command).await?;
    let status = shell.wait(SOON).await?;
    ensure!(status.code() == Some(3), "{status}");
    ensure!(shell.log() == "to-out\nto-err\n", "{:?}", shell.log());
    ensure!(
        shell.log_path().ends_with("logs/a-shell.log"),
        "{:?}",
        shell.log_path()
    );
    let missing = lab
        .pod("a")
        .spawn("missing", Command::new("no-such-program"))
        .await;
    let error = missing
        .err()
        .context("a program that does not exist was started")?;
    ensure!(format!("{error:#}").contains("no-such-program"), "{error:#}");
    Ok(())
}

async fn a_programs_cost_can_be_read() -> anyhow::Result<()> {
    let lab = Lab::builder().outsider("a").without_mesh().start().await?;
    let mut command = Command::new("sh");
    command.args(["-c", "while :; do :; done"]);
    let spinner = lab.pod("a").spawn("spin", command).await?;
    eventually(SOON, "a busy loop has used processor time", async || {
        let used = spinner.cpu_time()?;
        ensure!(used >= Duration::from_millis(50), "only {used:?}");
        Ok(())
    })
    .await?;
    let rss = spinner.rss()?;
    ensure!((100_000..1_000_000_000).contains(&rss), "{rss} bytes");
    Ok(())
}

async fn manifests_follow_the_pods() -> anyhow::Result<()> {
    let reviews = ServiceSpec::http("reviews")
        .version("v1", 1)
        .workload(Workload::new("v2", 0).zone("b"));
    let lab = Lab::builder().service(reviews).without_mesh().start().await?;
    let read = |file: &str| -> anyhow::Result<serde_json::Value> {
        let path = lab.dir().join("config").join(file);
        Ok(serde_json::from_str(
            &std::fs::read_to_string(&path).with_context(|| file.to_owned())?,
        )?)
    };
    let slice = || read("lab-endpoints-ipv4-shop-reviews.yaml");
    let names = |slice: &serde_json::Value| -> Vec<String> {
        let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints
            .iter()
            .map(|endpoint| endpoint["targetRef"]["name"].as_str().unwrap_or("").to_owned())
            .collect()
    };
    ensure!(names(&slice()?) == ["reviews-v1-0"]);
    ensure!(slice()?["endpoints"][0]["conditions"]["ready"] == true);

    let added = lab.add_pods("reviews", "v2", 2).await?;
    ensure!(added == ["reviews-v2-0", "reviews-v2-1"], "{added:?}");
    ensure!(names(&slice()?).len() == 3 && slice()?["endpoints"][1]["zone"] == "b");
    lab.endpoint_ready("reviews-v1-0", false)?;
    ensure!(slice()?["endpoints"][0]["conditions"]["ready"] == false);
    lab.remove_endpoint("reviews-v1-0")?;
    ensure!(names(&slice()?) == ["reviews-v2-0", "reviews-v2-1"]);
    let counters = lab.app("reviews-v2-0").counters().await?;
    ensure!(
        counters.accepted == 0,
        "readiness must not count as a connection: {counters:?}"
    );
    lab.remove_pod("reviews-v2-0").await?;
    lab.kill_pod("reviews-v1-0")?;
    ensure!(names(&slice()?) == ["reviews-v2-1"]);
    ensure!(
        read("lab-pod-shop-reviews-v2-0.yaml").is_err(),
        "a removed pod keeps no object"
    );
    ensure!(lab.pods_of("reviews") == ["reviews-v2-1"]);
    ensure!(
        lab.add_pods("reviews", "v1", 1).await? == ["reviews-v1-1"],
        "names are not used twice"
    );

    lab.apply("route", "kind: VirtualService\n")?;
    ensure!(lab.dir().join("config/user-route.yaml").exists());
    lab.delete("route")?;
    ensure!(!lab.dir().join("config/user-route.yaml").exists());
    Ok(())
}

async fn a_second_lab_finds_a_clean_machine() -> anyhow::Result<()> {
    let mut folders = Vec::new();
    for _ in 0..3 {
        let reviews = ServiceSpec::http("reviews").version("v1", 1);
        let lab = Lab::builder()
            .service(reviews)
            .pod(PodSpec::new("web"))
            .without_mesh()
            .start()
            .await?;
        let target = lab.pod("reviews-v1-0").address(8080);
        let reply = lab.pod("web").get(&format!("http://{target}/")).await?;
        ensure!(reply.status == 200 && reply.app_pod() == "reviews-v1-0");
        folders.push(lab.dir().to_owned());
        drop(lab);
    }
    let links = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    ensure!(!links.contains("pod"), "cables are left on the bridge:\n{links}");
    ensure!(
        folders.iter().all(|folder| !folder.exists()),
        "files are left in {folders:?}"
    );
    Ok(())
}

async fn a_panic_in_a_pod_reaches_the_test() -> anyhow::Result<()> {
    let lab = Lab::builder().outsider("a").without_mesh().start().await?;
    let pod = lab.pod("a");
    let panicked = tokio::spawn(async move { pod.run(async { assert_eq!(1, 2, "on purpose") }).await }).await;
    ensure!(panicked.is_err_and(|error| error.is_panic()));
    ensure!(lab.pod("a").run(async { 7 }).await == 7, "the pod goes on");
    Ok(())
}

async fn a_missing_service_is_named() -> anyhow::Result<()> {
    let lab = Lab::builder().outsider("a").without_mesh().start().await?;
    let error = lab
        .pod("a")
        .get("http://nobody:80/")
        .await
        .err()
        .context("nobody answered")?;
    ensure!(format!("{error:#}").contains("nobody"), "{error:#}");
    Ok(())
}

/// Runs this program again as a user without any rights, who must be able to enter a lab of his own.
async fn the_lab_works_without_root() -> anyhow::Result<()> {
    if lab::privileges()? == Privileges::Rootless {
        // Every other test has just shown it.
        return two_pods_ping().await;
    }
    let lab = Lab::builder().outsider("a").without_mesh().start().await?;
    let this = lab::reachable(&std::env::current_exe()?, "lab-test")?;
    let mut allowed = nobody("unshare");
    allowed.args(["--user", "--map-root-user", "true"]);
    let allowed = lab.pod("a").spawn("allowed", allowed).await?;
    if !allowed.wait(SOON).await?.success() {
        println!(
            "skipped: this kernel gives no user namespace to users without rights ({})",
            allowed.log().trim()
        );
        return Ok(());
    }
    let mut command = nobody("env");
    command
        .arg("--unset=HAUBERK_LAB_INSIDE")
        .arg(this)
        .arg(WITHOUT_ROOT);
    let probe = lab.pod("a").spawn("probe", command).await?;
    let status = probe.wait(Duration::from_secs(30)).await?;
    ensure!(status.success(), "the probe failed ({status}):\n{}", probe.log());
    ensure!(probe.log().contains("ping without root"), "{}", probe.log());
    Ok(())
}

/// A command that runs `program` as user 65534.
fn nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", program]);
    command
}

/// Kills a lab's outer process and looks for what ran in its pods.
async fn a_crash_leaves_no_process_behind() -> anyhow::Result<()> {
    let lab = Lab::builder().outsider("a").without_mesh().start().await?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(CRASH);
    let outer = lab.pod("a").spawn("outer", command).await?;
    let sleepers = || -> anyhow::Result<usize> {
        let mut found = 0;
        for entry in std::fs::read_dir("/proc")? {
            // Processes that end while we look have no file any more.
            let line = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
            found += usize::from(line == format!("sleep\0{SLEEP}\0").as_bytes());
        }
        Ok(found)
    };
    eventually(SOON, "the inner lab runs its program", async || {
        ensure!(sleepers()? == 1, "{}", outer.log());
        Ok(())
    })
    .await?;
    outer.kill();
    eventually(SOON, "the kernel has ended it all", async || {
        ensure!(sleepers()? == 0);
        Ok(())
    })
    .await
}

/// An argument of sleep(1) that nobody else uses.
const SLEEP: &str = "98761.5";

/// The labs that tests of this module run in processes of their own. False when the command line asks for none.
pub(crate) fn probe() -> bool {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some(WITHOUT_ROOT) => block_on(async {
            ensure!(lab::privileges()? == Privileges::Rootless, "it runs with rights");
            two_pods_ping().await?;
            println!("ping without root");
            Ok(())
        }),
        Some(CRASH) => block_on(async {
            let lab = Lab::builder().outsider("a").without_mesh().start().await?;
            let mut command = Command::new("sleep");
            command.arg(SLEEP);
            let sleeper = lab.pod("a").spawn("sleep", command).await?;
            sleeper.wait(Duration::from_secs(60)).await?;
            Ok(())
        }),
        Some(_) | None => return false,
    };
    if let Err(error) = outcome {
        eprintln!("{error:?}");
        std::process::exit(1);
    }
    true
}

fn block_on(probe: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(probe)
}
