//! Whole requests: accepted, detected, routed, picked, sent, answered. One is under way at a time, or ten; what client
//! and server do is counted a second time without the proxy between them, and subtracted.

use super::Case;
use crate::pod::{Side, connect, run};
use crate::{http1, http2};

/// Requests of a count; enough for what happens now and then to happen.
const REQUESTS: u32 = 400;
const CONNECTIONS: u32 = 100;
const AT_ONCE: u32 = 10;

pub(super) const CASES: [Case; 8] = [
    Case {
        name: "outbound/http1",
        iterations: REQUESTS,
        with: |n| http1_kept(Some(Side::Outbound), n),
        without: Some(|n| http1_kept(None, n)),
    },
    Case {
        name: "outbound/http1/new_connection",
        iterations: CONNECTIONS,
        with: |n| http1_new(Some(Side::Outbound), n),
        without: Some(|n| http1_new(None, n)),
    },
    Case {
        name: "outbound/http2",
        iterations: REQUESTS,
        with: |n| http2(Some(Side::Outbound), n, 1),
        without: Some(|n| http2(None, n, 1)),
    },
    Case {
        name: "outbound/http2/10_at_once",
        iterations: REQUESTS,
        with: |n| http2(Some(Side::Outbound), n, AT_ONCE),
        without: Some(|n| http2(None, n, AT_ONCE)),
    },
    Case {
        name: "inbound/http1",
        iterations: REQUESTS,
        with: |n| http1_kept(Some(Side::Inbound), n),
        without: Some(|n| http1_kept(None, n)),
    },
    Case {
        name: "inbound/http1/new_connection",
        iterations: CONNECTIONS,
        with: |n| http1_new(Some(Side::Inbound), n),
        without: Some(|n| http1_new(None, n)),
    },
    Case {
        name: "inbound/http2",
        iterations: REQUESTS,
        with: |n| http2(Some(Side::Inbound), n, 1),
        without: Some(|n| http2(None, n, 1)),
    },
    Case {
        name: "inbound/http2/10_at_once",
        iterations: REQUESTS,
        with: |n| http2(Some(Side::Inbound), n, AT_ONCE),
        without: Some(|n| http2(None, n, AT_ONCE)),
    },
];

/// All requests on one connection.
fn http1_kept(through: Option<Side>, requests: u32) {
    run(through, http1::answer, async |address| {
        let mut stream = connect(address).await;
        for _ in 0..requests {
            http1::ask(&mut stream).await;
        }
    });
}

/// A connection for each request; the proxy keeps its own to the server.
fn http1_new(through: Option<Side>, requests: u32) {
    run(through, http1::answer, async |address| {
        for _ in 0..requests {
            http1::ask(&mut connect(address).await).await;
        }
    });
}

fn http2(through: Option<Side>, requests: u32, at_once: u32) {
    run(through, http2::answer, async |address| {
        http2::ask(connect(address).await, requests / at_once, at_once).await;
    });
}
