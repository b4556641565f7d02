use std::sync::Mutex;
use std::sync::mpsc::channel;

use super::*;

/// Written lines, and a writer that a test can hold up.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }
}

fn line() -> Line {
    Line {
        ended: UNIX_EPOCH + Duration::from_millis(1_800_000_000_250),
        duration: Duration::from_micros(1250),
        direction: "outbound",
        protocol: "http1",
        downstream: ([10, 0, 0, 9], 41000).into(),
        dialled: ([10, 96, 0, 1], 80).into(),
        peer: Some(Arc::new(
            SpiffeId::new("cluster.local", "shop", "web").expect("an identity"),
        )),
        method: Some(Method::GET),
        authority: Some(HeaderValue::from_static("reviews:80")),
        path: Some(PathAndQuery::from_static("/a?b=c")),
        route: None,
        rule: None,
        cluster: None,
        endpoint: None,
        fault: None,
        is_copy: false,
        tries: 2,
        status: 503,
        grpc_status: None,
        flag: Some("no_certificate"),
        error: Some(Error::NoCertificate),
        reason: None,
        bytes_received: 3,
        bytes_sent: 4,
        snapshot: 7,
    }
}

fn written(format: settings::AccessLog, lines: Vec<Line>) -> String {
    let output = Output::default();
    let log = AccessLog::to(format, Counter::default(), output.clone()).expect("a thread");
    assert!(log.is_on());
    for line in lines {
        log.write(|| line);
    }
    log.flush();
    output.text()
}

#[test]
fn a_line_of_words_can_be_read_and_split() {
    let text = written(settings::AccessLog::Text, vec![line()]);
    let expected = "time=2027-01-15T08:00:00.248Z direction=outbound protocol=http1 downstream=10.0.0.9:41000 \
                    peer=spiffe://cluster.local/ns/shop/sa/web dialled=10.96.0.1:80 method=GET \
                    authority=reviews:80 path=/a?b=c flag=no_certificate \
                    reason=\"this proxy holds no certificate yet\" status=503 tries=2 bytes_received=3 bytes_sent=4 \
                    snapshot=7 duration_ms=1.250\n";
    assert_eq!(text, expected);
}

#[test]
fn a_json_line_is_one_object_with_the_same_fields() {
    let text = written(settings::AccessLog::Json, vec![line(), line()]);
    assert_eq!(text.lines().count(), 2);
    for text in text.lines() {
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let mut fields = Vec::new();
        line().fields(|name, _| fields.push(name));
        let object = value.as_object().expect("an object");
        assert_eq!(object.len(), fields.len());
        assert!(fields.iter().all(|f| object.contains_key(*f)));
        assert_eq!(object["path"], "/a?b=c");
        assert_eq!(object["duration_ms"], 1.25);
        assert_eq!(object["status"], 503);
    }
}

#[test]
fn what_a_caller_sends_cannot_forge_a_line() {
    let mut forged = line();
    forged.authority = Some(HeaderValue::from_bytes(b"x\ty \xff=z").expect("a header value"));
    for format in [settings::AccessLog::Text, settings::AccessLog::Json] {
        let mut again = line();
        again.authority = forged.authority.clone();
        let text = written(format, vec![again]);
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains('\t'), "{text}");
    }
}

#[test]
fn a_writer_that_stands_still_costs_lines_but_no_time() {
    struct Blocked(std::sync::mpsc::Receiver<()>);
    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Until the test lets go.
            let _gone = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (release, blocked) = channel();
    let dropped = Counter::default();
    let log = AccessLog::to(settings::AccessLog::Text, dropped.clone(), Blocked(blocked)).expect("a thread");
    for _ in 0..WAITING * 3 {
        log.write(line);
    }
    assert!(dropped.get() as usize >= WAITING, "{}", dropped.get());
    drop(release);
    log.flush();
}

#[test]
fn off_it_asks_for_no_line() {
    let log = AccessLog::start(settings::AccessLog::Off, Counter::default()).expect("nothing to start");
    assert!(!log.is_on());
    log.write(|| unreachable!("a line was made"));
    log.flush();
}

#[test]
fn times_are_civil() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399, "2000-02-28T23:59:59.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_868_800, "2000-03-01T00:00:00.000Z"),
        (1_709_164_800, "2024-02-29T00:00:00.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        (1_767_225_599, "2025-12-31T23:59:59.000Z"),
    ] {
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
    }
}

#[test]
fn the_guide_describes_every_field() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/access-log.md");
    let guide = std::fs::read_to_string(path).expect("the guide");
    let every = [
        "time",
        "direction",
        "protocol",
        "downstream",
        "peer",
        "dialled",
        "method",
        "authority",
        "path",
        "route",
        "rule",
        "cluster",
        "endpoint",
        "pod",
        "mirror",
        "fault",
        "flag",
        "reason",
        "status",
        "grpc_status",
        "tries",
        "bytes_received",
        "bytes_sent",
        "snapshot",
        "duration_ms",
    ];
    let described: Vec<_> = guide
        .lines()
        .filter_map(|l| l.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(described, every, "the table of docs/guide/access-log.md");
    line().fields(|name, _| assert!(every.contains(&name), "{name} is not described"));
}
