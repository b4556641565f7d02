//! `DestinationRule`: limits on connections and requests.

use super::{
    Report,
    shape::{at_least_a_millisecond, not_zero, zero_or_a_millisecond},
};
use crate::{
    destination_rule::connection_pool::{
        ConnectionPool, H2UpgradePolicy, Http2KeepAlive, HttpPool, TcpKeepalive, TcpPool,
    },
    duration::Duration,
    path::At,
};

const NO_LIMIT: &str = "leave it out for no limit";

pub(super) fn connection_pool(report: &mut Report, at: At<'_>, pool: &ConnectionPool) {
    let ConnectionPool { tcp, http } = pool;
    if let Some(tcp) = tcp {
        self::tcp(report, at.field("tcp"), tcp);
    }
    if let Some(http) = http {
        self::http(report, at.field("http"), http);
    }
}

fn tcp(report: &mut Report, at: At<'_>, pool: &TcpPool) {
    let TcpPool {
        max_connections,
        connect_timeout,
        tcp_keepalive,
        max_connection_duration,
        idle_timeout,
    } = pool;
    not_zero(report, at.field("maxConnections"), *max_connections, NO_LIMIT);
    at_least_a_millisecond(report, at.field("connectTimeout"), *connect_timeout);
    at_least_a_millisecond(
        report,
        at.field("maxConnectionDuration"),
        *max_connection_duration,
    );
    zero_or_a_millisecond(report, at.field("idleTimeout"), *idle_timeout);
    let Some(TcpKeepalive {
        probes,
        time,
        interval,
    }) = tcp_keepalive
    else {
        return;
    };
    let at = at.field("tcpKeepalive");
    if let Some(probes) = probes
        && !(1..=127).contains(probes)
    {
        report.error(
            at.field("probes"),
            format!("{probes} is out of range; use 1 to 127"),
        );
    }
    // The kernel takes whole seconds, up to 32767 of them.
    for (field, duration) in [("time", time), ("interval", interval)] {
        let range = Duration::from_secs(1)..=Duration::from_secs(32_767);
        if let Some(duration) = duration
            && (!range.contains(duration) || duration.get().subsec_nanos() != 0)
        {
            report.error(
                at.field(field),
                format!("{duration} is out of range; use whole seconds, 1s to 32767s"),
            );
        }
    }
}

fn http(report: &mut Report, at: At<'_>, pool: &HttpPool) {
    let HttpPool {
        http1_max_pending_requests,
        http2_max_requests,
        max_requests_per_connection: _,
        max_retries,
        idle_timeout,
        h2_upgrade_policy,
        use_client_protocol,
        max_concurrent_streams,
        http2_keep_alive,
    } = pool;
    not_zero(
        report,
        at.field("http1MaxPendingRequests"),
        *http1_max_pending_requests,
        NO_LIMIT,
    );
    not_zero(
        report,
        at.field("http2MaxRequests"),
        *http2_max_requests,
        NO_LIMIT,
    );
    let remedy = "leave it out for no limit, or turn retries off with attempts: 0 in the VirtualService";
    not_zero(report, at.field("maxRetries"), *max_retries, remedy);
    zero_or_a_millisecond(report, at.field("idleTimeout"), *idle_timeout);
    if *use_client_protocol == Some(true) && *h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade) {
        report.warning(
            at.field("h2UpgradePolicy"),
            "has no effect beside useClientProtocol: true",
        );
    }
    let remedy = "leave it out for the proxy's own measure";
    not_zero(
        report,
        at.field("maxConcurrentStreams"),
        *max_concurrent_streams,
        remedy,
    );
    if let Some(Http2KeepAlive { interval, timeout }) = http2_keep_alive {
        let at = at.field("http2KeepAlive");
        at_least_a_millisecond(report, at.field("interval"), Some(*interval));
        at_least_a_millisecond(report, at.field("timeout"), Some(*timeout));
    }
}
