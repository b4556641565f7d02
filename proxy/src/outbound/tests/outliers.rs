//! Endpoints that are ejected for what they answer.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::testing::{Server, World, answer, ask, cluster, forward, ok, request, run};

#[test]
fn a_status_that_is_an_error_by_the_policy_ejects_its_endpoint() {
    run(async {
        let busy = Server::start(|_, _| answer("429 Too Many Requests", "busy")).await;
        let free = Server::start(|_, _| ok("free")).await;
        let mut codes = api::Statuses::default();
        codes.insert(429);
        let cluster = cluster(&[busy.address, free.address], |spec| {
            spec.outlier = Some(api::Outlier {
                consecutive_5xx: NonZeroU32::new(2),
                consecutive_gateway_errors: None,
                error_codes: Some(codes),
                split_local_errors: false,
                consecutive_local_failures: None,
                interval: Duration::from_secs(10),
                base_ejection: Duration::from_secs(30),
                max_ejection_percent: 100,
                min_health_percent: 0,
            });
        });
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut app = world.http1().await;
        for _ in 0..10 {
            ask(&mut app, request("GET", "/", "")).await;
        }
        assert_eq!((busy.seen().len(), free.seen().len()), (2, 8));
        assert_eq!(cluster.live.metrics.ejections.get(), 1);
    });
}
