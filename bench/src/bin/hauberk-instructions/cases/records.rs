//! What a request leaves behind: its metrics, and its line in the access log.

use std::sync::Arc;

use api::Protocol;
use http::Request;
use proxy::access_log::AccessLog;
use proxy::config::Current;
use proxy::metrics::Metrics;
use proxy::record::{Direction, Recorder};
use proxy::settings;

use super::{Case, case};

pub(super) const CASES: [Case; 2] = [
    case("record/metrics", 2000, |n| record(n, settings::AccessLog::Off)),
    // With the thread that writes.
    case("record/access_log", 2000, |n| {
        record(n, settings::AccessLog::Json)
    }),
];

fn record(iterations: u32, log: settings::AccessLog) {
    let metrics = Arc::new(Metrics::new(Current::default()));
    let log = AccessLog::start(log, metrics.access_log_dropped.clone()).expect("a thread");
    let recorder = Arc::new(Recorder::new(metrics, log.clone()));
    let (route, cluster) = (
        Arc::new(bench::route(1)),
        bench::cluster(1, api::Balancer::LeastRequest),
    );
    let request = Request::builder()
        .uri("http://reviews.shop/reviews/7?full=yes")
        .body(());
    let (parts, ()) = request.expect("a request").into_parts();
    for _ in 0..iterations {
        let (downstream, dialled) = (([10, 0, 0, 9], 41000).into(), ([10, 96, 0, 1], 80).into());
        let mut record = recorder.start(Direction::Outbound, Protocol::Http1, downstream, dialled);
        record.describe(&parts);
        record.routed(&route);
        record.rule = Some(0);
        record.cluster = Some(Arc::clone(&cluster));
        record.endpoint = cluster.endpoints.first().cloned();
        record.tries = 1;
        record.status = 200;
        record.bytes_sent = 49;
        record.finish();
    }
    log.flush();
}
