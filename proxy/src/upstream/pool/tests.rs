use super::*;

#[test]
fn a_connection_that_only_one_client_may_use_waits_a_moment_only() {
    for (http_idle, announced, expected) in [
        (None, false, None),
        (None, true, Some(IDLE_OF_ONE)),
        (Some(3600), false, Some(Duration::from_secs(3600))),
        (Some(3600), true, Some(IDLE_OF_ONE)),
        (Some(1), true, Some(Duration::from_secs(1))),
    ] {
        let cluster = crate::testing::cluster(&[], |spec| {
            spec.timeouts.http_idle = http_idle.map(Duration::from_secs);
            spec.proxy_protocol = announced.then_some(api::ProxyProtocol::V1);
        });
        assert_eq!(Bounds::of(&cluster, Wire::Http1).max_idle, expected);
    }
}
