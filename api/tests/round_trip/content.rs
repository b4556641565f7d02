//! Strategies for content of every kind: all that a constructor accepts, and nothing else. `main.rs` draws from them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use api::{
    Balancer, Body, Breaker, ClientCertificate, ClientTls, Cluster, ConsistentHash, Destination, Endpoint,
    Endpoints, HashCookie, HashKey, HashTable, Http2Keepalive, Inbound, InboundPort, Keepalive, Kind, Limits,
    Locality, ObjectRef, Outlier, Protocol, ProxyProtocol, Resource, ResourceName, RetryBudget, SpiffeId,
    Statuses, Timeouts, TlsMode, TlsPolicy, TrustBundle, Tunnel, TunnelMethod, Warmup, Workload, limits,
};
use http::HeaderName;
use proptest::collection::{btree_map, hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::route::route;

/// A resource: content of any kind under a name of that kind.
pub(crate) fn resource() -> impl Strategy<Value = Resource> {
    (body(), select(&Kind::ALL[..]), "\\PC{1,100}").prop_map(|(body, any_kind, name)| {
        let kind = body.kind().unwrap_or(any_kind);
        Resource::new(ResourceName::new(kind, name), body)
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        text().prop_map(Body::Absent),
        destination().prop_map(Body::Destination),
        route().prop_map(|r| Body::Route(Box::new(r))).boxed(),
        cluster().prop_map(|c| Body::Cluster(Box::new(c))).boxed(),
        endpoints().prop_map(Body::Endpoints),
        inbound().prop_map(Body::Inbound),
        trust_bundle().prop_map(Body::TrustBundle),
    ]
}

/// Any text, empty too.
pub(crate) fn text() -> impl Strategy<Value = String> {
    "\\PC{0,16}"
}

/// A name of something else, which must not be empty.
pub(crate) fn reference() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9.|:-]{0,30}"
}

/// A time as the wire carries it: whole milliseconds, at least one.
pub(crate) fn time() -> impl Strategy<Value = Duration> {
    (1..=u64::MAX).prop_map(Duration::from_millis)
}

/// A declared protocol, or none.
pub(crate) fn protocol() -> impl Strategy<Value = Option<Protocol>> {
    use Protocol::{Grpc, Http1, Http2, Tcp, Tls};
    option::of(select(vec![Http1, Http2, Grpc, Tls, Tcp]))
}

/// A reference to a user's object.
pub(crate) fn object() -> impl Strategy<Value = ObjectRef> {
    (text(), text(), text()).prop_map(|(kind, namespace, name)| ObjectRef {
        kind,
        namespace,
        name,
    })
}

fn count() -> impl Strategy<Value = NonZeroU32> {
    any::<NonZeroU32>()
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..4)
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    let part = "[a-z0-9.-]{1,20}";
    (part, part, part).prop_map(|(domain, namespace, account)| {
        SpiffeId::new(&domain, &namespace, &account).expect("the parts are names")
    })
}

fn endpoint_at(address: SocketAddr) -> impl Strategy<Value = Endpoint> {
    let rest = (
        1..=u32::MAX,
        option::of(identity()),
        labels(),
        text(),
        text(),
        labels(),
    );
    rest.prop_map(move |(weight, identity, labels, zone, pod, topology)| Endpoint {
        address,
        weight,
        identity,
        labels,
        zone,
        pod,
        topology,
    })
}

fn endpoints() -> impl Strategy<Value = Endpoints> {
    // Each address once.
    hash_map(address(), Just(()), 0..5)
        .prop_flat_map(|addresses| addresses.into_keys().map(endpoint_at).collect::<Vec<_>>())
        .prop_map(|endpoints| Endpoints { endpoints })
}

fn destination() -> impl Strategy<Value = Destination> {
    let workload = (address().prop_flat_map(endpoint_at), protocol(), reference()).prop_map(
        |(endpoint, protocol, cluster)| {
            Destination::Workload(Box::new(Workload {
                endpoint,
                protocol,
                cluster,
            }))
        },
    );
    prop_oneof![
        reference().prop_map(Destination::Route),
        workload,
        Just(Destination::Passthrough),
        text().prop_map(Destination::Refuse),
    ]
}

fn tls_policy() -> impl Strategy<Value = TlsPolicy> {
    select(vec![TlsPolicy::Disable, TlsPolicy::Permissive, TlsPolicy::Strict])
}

fn inbound() -> impl Strategy<Value = Inbound> {
    // Each port once.
    let ports = hash_map(1..=u16::MAX, (option::of(tls_policy()), protocol(), text()), 0..4);
    (tls_policy(), ports, vec(object(), 0..3), any::<bool>()).prop_map(
        |(policy, ports, sources, finished)| Inbound {
            policy,
            ports: ports
                .into_iter()
                .map(|(port, (policy, protocol, service))| InboundPort {
                    port,
                    policy,
                    protocol,
                    service,
                })
                .collect(),
            sources,
            finished,
        },
    )
}

fn trust_bundle() -> impl Strategy<Value = TrustBundle> {
    (reference(), vec(vec(any::<u8>(), 0..40), 1..4)).prop_map(|(trust_domain, roots)| TrustBundle {
        trust_domain,
        roots: roots.into_iter().map(Into::into).collect(),
    })
}

fn cluster() -> impl Strategy<Value = Cluster> {
    use Balancer::{LeastRequest, PeakEwma, Random, RoundRobin};
    let warmup =
        (time(), 0.0..=100.0_f64, 1.0..10.0_f64).prop_map(|(duration, minimum_percent, aggression)| Warmup {
            duration,
            minimum_percent,
            aggression,
        });
    let plain = select(vec![Random, PeakEwma]).prop_map(|balancer| (balancer, None));
    let warming = (select(vec![RoundRobin, LeastRequest]), option::of(warmup));
    let hash = consistent_hash().prop_map(|hash| (Balancer::ConsistentHash(Box::new(hash)), None));
    // Boxed, like the other large parts: trees of values are built on the stack of a test.
    let balancer = prop_oneof![plain, warming, hash].boxed();
    let mesh = select(vec![TlsMode::Auto, TlsMode::Disable, TlsMode::Mutual]);
    let version = select(vec![None, Some(ProxyProtocol::V1), Some(ProxyProtocol::V2)]);
    let outside = prop_oneof![Just(TlsMode::Disable), client_tls()];
    let tls = prop_oneof![(mesh, Just(None)), (outside, version)];
    let tls = (tls, option::of(tunnel())).boxed();
    let how = (
        reference(),
        labels(),
        balancer,
        time(),
        tls,
        any::<(bool, bool)>(),
    );
    let bounds = (
        option::of(breaker()),
        bounds(),
        option::of(outlier()),
        budget(),
        timeouts(),
    )
        .boxed();
    let keepalives = (option::of(keepalive()), option::of(http2_keepalive()));
    let place = option::of(locality());
    (how, bounds, keepalives, place, vec(object(), 0..3)).prop_map(
        |(
            (
                endpoints,
                subset,
                (balancer, warmup),
                connect_timeout,
                ((tls, proxy_protocol), tunnel),
                (upgrade_to_http2, upgrade_outside_mesh),
            ),
            (breaker, limits, outlier, retry_budget, timeouts),
            (keepalive, http2_keepalive),
            locality,
            sources,
        )| Cluster {
            endpoints,
            subset,
            balancer,
            warmup,
            locality,
            connect_timeout,
            tls,
            upgrade_to_http2,
            upgrade_outside_mesh,
            breaker,
            limits,
            outlier,
            retry_budget,
            timeouts,
            keepalive,
            tunnel,
            proxy_protocol,
            http2_keepalive,
            sources,
        },
    )
}

fn tunnel() -> impl Strategy<Value = Arc<Tunnel>> {
    let method = select(vec![TunnelMethod::Connect, TunnelMethod::Post]);
    (method, "[a-z0-9.:-]{1,12}", 1..u16::MAX)
        .prop_map(|(method, host, port)| Arc::new(Tunnel { method, host, port }))
}

fn client_tls() -> impl Strategy<Value = TlsMode> {
    let file = || option::of("/[a-z/]{1,12}");
    let certificate = option::of(("/[a-z]{1,8}", "/[a-z]{1,8}"));
    let names = (vec("[a-z.:/]{1,12}", 0..3), option::of("[a-z.]{1,12}"));
    (certificate, file(), file(), names, any::<bool>()).prop_map(
        |(certificate, ca_certificates, ca_crl, (subject_alt_names, sni), insecure_skip_verify)| {
            TlsMode::Originate(Arc::new(ClientTls {
                certificate: certificate.map(|(chain, key)| ClientCertificate { chain, key }),
                ca_certificates,
                ca_crl,
                subject_alt_names,
                sni,
                insecure_skip_verify,
            }))
        },
    )
}

fn locality() -> impl Strategy<Value = Locality> {
    prop_oneof![
        vec(
            (labels(), (1..=100u32).prop_filter_map("zero", NonZeroU32::new)),
            1..4
        )
        .prop_map(Locality::Shares),
        vec(labels(), 1..4).prop_map(Locality::Levels),
    ]
}

fn consistent_hash() -> impl Strategy<Value = ConsistentHash> {
    let attribute = ("[A-Za-z-]{1,8}", "[ -:<-~]{0,8}");
    let cookie = (
        "[A-Za-z0-9_-]{1,8}",
        option::of("/[a-z/]{0,8}"),
        option::of(prop_oneof![Just(Duration::ZERO), time()]),
        vec(attribute, 0..3),
    );
    let cookie = cookie.prop_map(|(name, path, ttl, attributes)| HashCookie {
        name,
        path,
        ttl,
        attributes,
    });
    let key = prop_oneof![
        select(vec!["x-user", "host"]).prop_map(|name| HashKey::Header(HeaderName::from_static(name))),
        cookie.prop_map(HashKey::Cookie),
        Just(HashKey::SourceIp),
        "[a-z]{1,8}".prop_map(HashKey::QueryParameter),
    ];
    let table = prop_oneof![
        (1..=limits::MAX_RING_SIZE).prop_filter_map("zero", |n| NonZeroU32::new(n).map(HashTable::Ring)),
        select(vec![2, 251, 65_537, 4_999_999])
            .prop_filter_map("zero", |n| NonZeroU32::new(n).map(HashTable::Maglev)),
    ];
    (key, table).prop_map(|(key, table)| ConsistentHash { key, table })
}

fn breaker() -> impl Strategy<Value = Breaker> {
    (count(), time(), count()).prop_map(|(failure_threshold, recovery, half_open_requests)| Breaker {
        failure_threshold,
        recovery,
        half_open_requests,
    })
}

fn bounds() -> impl Strategy<Value = Limits> {
    let bound = || option::of(count());
    let of_cluster = (bound(), bound(), bound(), bound());
    (of_cluster, bound(), bound()).prop_map(
        |(
            (max_connections, max_pending_requests, max_requests, max_retries),
            max_requests_per_connection,
            max_concurrent_streams,
        )| Limits {
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            max_requests_per_connection,
            max_concurrent_streams,
        },
    )
}

fn outlier() -> impl Strategy<Value = Outlier> {
    let counts = (
        option::of(count()),
        option::of(count()),
        any::<bool>(),
        option::of(count()),
    );
    let codes = vec(100..600_u16, 0..4).prop_map(|codes| {
        let mut set = Statuses::default();
        let inserted = codes.iter().filter(|code| set.insert(**code)).count();
        (inserted > 0).then_some(set)
    });
    (counts, codes, (time(), time()), 0..=100_u32, 0..=100_u32).prop_map(
        |(
            (consecutive_5xx, consecutive_gateway_errors, split_local_errors, consecutive_local_failures),
            error_codes,
            (interval, base_ejection),
            max_ejection_percent,
            min_health_percent,
        )| Outlier {
            error_codes,
            consecutive_5xx,
            consecutive_gateway_errors,
            split_local_errors,
            consecutive_local_failures,
            interval,
            base_ejection,
            max_ejection_percent,
            min_health_percent,
        },
    )
}

fn budget() -> impl Strategy<Value = RetryBudget> {
    (0.0..=100.0_f64, any::<u32>(), option::of(time())).prop_map(|(percent, min_concurrency, interval)| {
        RetryBudget {
            percent,
            min_concurrency,
            interval,
        }
    })
}

fn http2_keepalive() -> impl Strategy<Value = Http2Keepalive> {
    (time(), time()).prop_map(|(interval, timeout)| Http2Keepalive { interval, timeout })
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    let bound = || option::of(time());
    (bound(), bound(), bound()).prop_map(|(http_idle, tcp_idle, max_connection)| Timeouts {
        http_idle,
        tcp_idle,
        max_connection,
    })
}

fn keepalive() -> impl Strategy<Value = Keepalive> {
    (option::of(count()), option::of(time()), option::of(time())).prop_map(|(probes, time, interval)| {
        Keepalive {
            probes,
            time,
            interval,
        }
    })
}
