use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};

use super::*;
use crate::config::Current;
use crate::live::ClusterLive;

fn recorder() -> Arc<Recorder> {
    let metrics = Arc::new(Metrics::new(Current::default()));
    Arc::new(Recorder::new(metrics, AccessLog::off()))
}

fn cluster() -> Arc<Cluster> {
    Arc::new(Cluster {
        name: "reviews:80".into(),
        spec: Arc::new(api::Cluster::of("reviews:80")),
        endpoints: Vec::new(),
        weights: crate::balancer::Weights::default(),
        live: Arc::new(ClusterLive::new("reviews:80")),
        absent: None,
    })
}

fn start(recorder: &Arc<Recorder>, cluster: Option<&Arc<Cluster>>) -> Request {
    let (downstream, dialled) = (([10, 0, 0, 9], 41000).into(), ([10, 96, 0, 1], 80).into());
    let mut record = recorder.start(Direction::Outbound, api::Protocol::Http1, downstream, dialled);
    record.cluster = cluster.cloned();
    record.status = 200;
    record
}

fn errors(recorder: &Recorder) -> Vec<String> {
    let text = recorder.metrics().encode().expect("encodes");
    let lines = text.lines().filter(|l| l.starts_with("hauberk_errors_total{"));
    lines.map(ToOwned::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn a_finished_request_is_counted_once_with_its_time_and_bytes() {
    let (recorder, cluster) = (recorder(), cluster());
    let mut record = start(&recorder, Some(&cluster));
    (record.bytes_received, record.bytes_sent) = (10, 20);
    tokio::time::advance(Duration::from_millis(3)).await;
    record.finish();
    let metrics = &cluster.live.metrics;
    assert_eq!((metrics.requests.get(200), metrics.latency.count()), (1, 1));
    // What the application sent is what the cluster got.
    assert_eq!((metrics.bytes_sent.get(), metrics.bytes_received.get()), (10, 20));
    assert_eq!(errors(&recorder), Vec::<String>::new());
}

#[test]
fn a_dropped_record_says_aborted_and_a_failed_one_its_flag() {
    let (recorder, cluster) = (recorder(), cluster());
    let mut record = start(&recorder, Some(&cluster));
    record.status = 0;
    drop(record);
    start(&recorder, None).fail(Error::Timeout);
    let mut failed_then_dropped = start(&recorder, None);
    failed_then_dropped.error = Some(Error::Timeout);
    drop(failed_then_dropped);
    let expected = [
        "hauberk_errors_total{direction=\"outbound\",flag=\"aborted\"} 1",
        "hauberk_errors_total{direction=\"outbound\",flag=\"timeout\"} 2",
    ];
    let mut got = errors(&recorder);
    got.sort();
    assert_eq!(got, expected);
    assert_eq!(cluster.live.metrics.requests.get(0), 1, "no status: class none");
}

#[test]
fn inbound_and_passthrough_traffic_have_their_own_metrics() {
    let recorder = recorder();
    let inbound = Arc::new(InboundMetrics::default());
    let mut record = start(&recorder, None);
    record.direction = Direction::Inbound;
    record.inbound = Some(Arc::clone(&inbound));
    (record.bytes_received, record.bytes_sent) = (1, 2);
    record.finish();
    assert_eq!(inbound.requests.get(200), 1);
    assert_eq!((inbound.bytes_received.get(), inbound.bytes_sent.get()), (1, 2));

    let mut record = start(&recorder, None);
    record.protocol = api::Protocol::Tcp;
    (record.bytes_received, record.bytes_sent) = (5, 6);
    record.finish();
    let passthrough = &recorder.metrics().passthrough;
    assert_eq!(passthrough.connections.get(), 1);
    assert_eq!(
        (passthrough.bytes_sent.get(), passthrough.bytes_received.get()),
        (5, 6)
    );
}

#[test]
fn connections_do_not_count_as_requests() {
    let (recorder, cluster) = (recorder(), cluster());
    let mut record = start(&recorder, Some(&cluster));
    record.protocol = api::Protocol::Tls;
    record.bytes_received = 9;
    record.finish();
    let metrics = &cluster.live.metrics;
    assert_eq!((metrics.requests.get(200), metrics.latency.count()), (0, 0));
    assert_eq!(metrics.bytes_sent.get(), 9);
}

#[tokio::test]
async fn a_body_finishes_its_record_when_it_has_ended() {
    let (recorder, cluster) = (recorder(), cluster());
    let mut body = RecordedBody::new(
        Full::new(Bytes::from_static(b"hello")),
        start(&recorder, Some(&cluster)),
    );
    assert_eq!(body.size_hint().exact(), Some(5));
    assert_eq!(
        cluster.live.metrics.requests.get(200),
        0,
        "not before its bytes are out"
    );
    body.frame().await.expect("a frame").expect("no error");
    // hyper drops a body that says it has ended, without asking for its end.
    assert!(body.is_end_stream());
    assert_eq!(cluster.live.metrics.requests.get(200), 1);
    drop(body);
    assert_eq!(cluster.live.metrics.requests.get(200), 1);
    assert_eq!(cluster.live.metrics.bytes_received.get(), 5);

    drop(RecordedBody::new(
        Empty::<Bytes>::new(),
        start(&recorder, Some(&cluster)),
    ));
    assert_eq!(
        cluster.live.metrics.requests.get(200),
        2,
        "nothing to send: ended at once"
    );
    assert_eq!(errors(&recorder), Vec::<String>::new());
}

#[tokio::test]
async fn grpc_status_is_read_from_trailers_or_from_headers_alone() {
    let (recorder, cluster) = (recorder(), cluster());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("14"));
    let frames = vec![
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x"))),
        Ok(Frame::trailers(trailers.clone())),
    ];
    let body = StreamBody::new(tokio_stream::iter(frames));
    let body = RecordedBody::of_response(&HeaderMap::new(), body, start(&recorder, Some(&cluster)));
    body.collect().await.expect("no error");
    assert_eq!(cluster.live.metrics.grpc.get(14), 1);

    let empty = Empty::<Bytes>::new();
    drop(RecordedBody::of_response(
        &trailers,
        empty,
        start(&recorder, Some(&cluster)),
    ));
    assert_eq!(cluster.live.metrics.grpc.get(14), 2);
    trailers.insert("grpc-status", HeaderValue::from_static("not a number"));
    drop(RecordedBody::of_response(
        &trailers,
        Empty::<Bytes>::new(),
        start(&recorder, Some(&cluster)),
    ));
    assert_eq!(cluster.live.metrics.requests.get(200), 3);
}

#[tokio::test]
async fn a_body_that_breaks_or_is_dropped_early_says_so() {
    let recorder = recorder();
    let frames = vec![
        Ok(Frame::data(Bytes::from_static(b"x"))),
        Err(std::io::Error::other("reset by peer")),
    ];
    let body = RecordedBody::new(
        StreamBody::new(tokio_stream::iter(frames)),
        start(&recorder, None),
    );
    assert!(body.collect().await.is_err());

    let mut body = RecordedBody::new(
        StreamBody::new(tokio_stream::iter(vec![
            Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x"))),
            Ok(Frame::data(Bytes::from_static(b"y"))),
        ])),
        start(&recorder, None),
    );
    body.frame().await.expect("a frame").expect("no error");
    drop(body);
    let expected = [
        "hauberk_errors_total{direction=\"outbound\",flag=\"aborted\"} 1",
        "hauberk_errors_total{direction=\"outbound\",flag=\"response_broken\"} 1",
    ];
    let mut got = errors(&recorder);
    got.sort();
    assert_eq!(got, expected);
}

#[test]
fn a_record_stays_small_enough_to_move() {
    assert!(size_of::<Request>() <= 512, "{} bytes", size_of::<Request>());
}
