//! Where fuzzing begins: for each target, bytes that get far into what it reads.

use std::net::SocketAddr;

use api::{
    Balancer, Body, Cluster, ConsistentHash, Destination, Endpoint, Endpoints, HashCookie, HashKey,
    HashTable, Inbound, InboundPort, Kind, Protocol, Resource, ResourceName, SpiffeId, TlsPolicy,
    TrustBundle, proto,
};
use prost::Message as _;

use crate::routing::input;

/// Bytes that get far into what the target of this name reads.
///
/// # Panics
/// When there is no such target.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "detect" => first_bytes(),
        "client_hello" => client_hellos(),
        "resource" => resources(),
        "route_select" => requests(),
        other => panic!("there is no target {other}"),
    }
}

fn first_bytes() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 5] = [
        b"GET /items?q=1 HTTP/1.1\r\nhost: reviews\r\n\r\n",
        b"PROPFIND http://reviews/dav HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"SSH-2.0-any\r\n",
        b"*1\r\n$4\r\nPING\r\n",
    ];
    texts
        .into_iter()
        .map(<[u8]>::to_vec)
        .chain(client_hellos())
        .collect()
}

/// A length of this many bytes, then the content.
fn sized(width: usize, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    [&length[length.len() - width..], content].concat()
}

fn client_hellos() -> Vec<Vec<u8>> {
    let name = sized(2, &[&[0], &sized(2, b"Reviews.shop.svc")[..]].concat());
    let protocols = sized(2, &[sized(1, b"hauberk/h2"), sized(1, b"h2")].concat());
    let extension = |kind: u8, content: &[u8]| [&[0, kind], &sized(2, content)[..]].concat();
    let extensions = [
        extension(0, &name),
        extension(16, &protocols),
        extension(43, &[2, 3, 4]),
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(sized(1, b"session"));
    body.extend(sized(2, &[0x13, 1, 0x13, 2]));
    body.extend(sized(1, &[0]));
    body.extend(sized(2, &extensions));
    let message = [&[1], &sized(3, &body)[..]].concat();
    let in_records_of = |size: usize| {
        let records = message
            .chunks(size)
            .map(|part| [&[0x16, 3, 1], &sized(2, part)[..]].concat());
        records.collect::<Vec<_>>().concat()
    };
    vec![in_records_of(message.len()), in_records_of(40)]
}

fn resources() -> Vec<Vec<u8>> {
    let named = |kind, body| {
        let resource = Resource::new(ResourceName::new(kind, "reviews.shop:80"), body);
        proto::Resource::from(resource).encode_to_vec()
    };
    let endpoint = Endpoint {
        address: SocketAddr::from(([10, 0, 0, 1], 8080)),
        weight: 1,
        identity: SpiffeId::new("cluster.local", "shop", "reviews").ok(),
        labels: [("version".to_owned(), "v1".to_owned())].into(),
        zone: "a".to_owned(),
        pod: "reviews-1".to_owned(),
        topology: std::collections::BTreeMap::from([(
            "topology.kubernetes.io/region".to_owned(),
            "r".to_owned(),
        )]),
    };
    let inbound = Inbound {
        policy: TlsPolicy::Permissive,
        ports: vec![InboundPort {
            port: 8080,
            policy: Some(TlsPolicy::Strict),
            protocol: Some(Protocol::Grpc),
            service: "reviews.shop".to_owned(),
        }],
        sources: Vec::new(),
        finished: false,
    };
    let bundle = TrustBundle {
        trust_domain: "cluster.local".to_owned(),
        roots: vec![b"root".as_slice().into()],
    };
    let route = route().try_into().expect("the seed is a valid route");
    vec![
        named(
            Kind::Destination,
            Body::Destination(Destination::Route("reviews.shop:80".to_owned())),
        ),
        named(Kind::Route, Body::Route(Box::new(route))),
        named(
            Kind::Cluster,
            Body::Cluster(Box::new(Cluster::of("reviews.shop:80"))),
        ),
        named(Kind::Cluster, Body::Cluster(Box::new(sticky()))),
        named(
            Kind::Endpoints,
            Body::Endpoints(Endpoints {
                endpoints: vec![endpoint],
            }),
        ),
        named(Kind::Inbound, Body::Inbound(inbound)),
        named(Kind::TrustBundle, Body::TrustBundle(bundle)),
        named(Kind::Route, Body::Absent("deleted".to_owned())),
    ]
}

/// A cluster that keeps a client at its endpoint by a cookie.
fn sticky() -> Cluster {
    let mut cluster = Cluster::of("reviews.shop:80");
    cluster.balancer = Balancer::ConsistentHash(Box::new(ConsistentHash {
        key: HashKey::Cookie(HashCookie {
            name: "user".to_owned(),
            path: Some("/".to_owned()),
            ttl: Some(std::time::Duration::from_secs(60)),
            attributes: vec![("SameSite".to_owned(), "Lax".to_owned())],
        }),
        table: HashTable::Ring(std::num::NonZeroU32::MIN),
    }));
    cluster
}

fn requests() -> Vec<Vec<u8>> {
    let any = proto::Route {
        http: route()
            .http
            .into_iter()
            .map(|rule| proto::HttpRule {
                matches: Vec::new(),
                ..rule
            })
            .collect(),
        ..route()
    };
    vec![
        input(&route(), "GET /v1/items?q=1\nhost: reviews.shop\nx-user: one"),
        input(&route(), "GET http://reviews.shop:80/old\nx-user: two"),
        input(&route(), "GET /word\nhost: Reviews\nx-user: "),
        input(&route(), "POST /v1\nhost: reviews"),
        input(&any, "CONNECT reviews.shop:443"),
    ]
}

/// A route with one rule of each kind.
fn route() -> proto::Route {
    use proto::http_rule::Action;
    use proto::string_match::Pattern;
    let text = |pattern| {
        Some(proto::StringMatch {
            pattern: Some(pattern),
        })
    };
    let share = |cluster: &str, weight| proto::WeightedCluster {
        cluster: cluster.to_owned(),
        weight,
        ..Default::default()
    };
    let shares = || vec![share("reviews.shop:80|v1", 90), share("reviews.shop:80|v2", 10)];
    let rule = |uri, action| proto::HttpRule {
        matches: vec![proto::HttpMatch {
            uri: text(uri),
            method: text(Pattern::Exact("GET".to_owned())),
            headers: vec![proto::NamedMatch {
                name: "x-user".to_owned(),
                value: text(Pattern::Present(true)),
            }],
            ..Default::default()
        }],
        action: Some(action),
        cors: Some(proto::Cors {
            origins: text(Pattern::Prefix("https://".to_owned())).into_iter().collect(),
            methods: "GET".to_owned(),
            max_age_seconds: Some(60),
            ..Default::default()
        }),
        ..Default::default()
    };
    let redirect = proto::Redirect {
        prefix_rewrite: "/new".to_owned(),
        status: 302,
        ..Default::default()
    };
    let direct = proto::DirectResponse {
        status: 418,
        body: b"no".to_vec(),
    };
    proto::Route {
        host: "reviews.shop.svc.cluster.local".to_owned(),
        port: 80,
        protocol: proto::Protocol::Http1.into(),
        http: vec![
            rule(
                Pattern::Prefix("/v1".to_owned()),
                Action::Forward(forward(shares())),
            ),
            rule(Pattern::Exact("/old".to_owned()), Action::Redirect(redirect)),
            rule(
                Pattern::Regex("/[a-z]+".to_owned()),
                Action::DirectResponse(direct),
            ),
        ],
        tcp: vec![proto::TcpRule {
            sni: vec!["*.shop".to_owned()],
            clusters: shares(),
            ..Default::default()
        }],
    }
}

/// Everything that may be done with a forwarded request.
fn forward(clusters: Vec<proto::WeightedCluster>) -> proto::Forward {
    proto::Forward {
        clusters,
        timeout: Some(proto::Milliseconds { value: 1000 }),
        retry: Some(proto::Retry {
            attempts: 2,
            conditions: vec![proto::RetryCondition::ConnectFailure.into()],
            statuses: vec![503],
            backoff_ms: 25,
            ..Default::default()
        }),
        rewrite: Some(proto::Rewrite {
            authority: "reviews".to_owned(),
            uri_regex: Some(proto::RegexRewrite {
                pattern: "^/v1/([a-z]+)".to_owned(),
                replacement: "/v2/\\1".to_owned(),
            }),
            ..Default::default()
        }),
        fault: Some(proto::Fault {
            delay: Some(proto::FaultDelay {
                delay: Some(proto::Milliseconds { value: 100 }),
                millionths: 500_000,
            }),
            abort: Some(proto::FaultAbort {
                grpc_status: 14,
                http_status: 503,
                millionths: 1_000,
            }),
        }),
        mirrors: vec![proto::Mirror {
            cluster: "ratings.shop:80".to_owned(),
            millionths: 10_000,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_gets_to_the_end_of_its_reader() {
        for seed in seeds("resource") {
            Resource::try_from(proto::Resource::decode(&seed[..]).unwrap()).unwrap();
        }
        for seed in seeds("client_hello") {
            let hello = proxy::detect::tls::client_hello(&seed).unwrap();
            assert_eq!(hello.sni.unwrap().as_str(), "reviews.shop.svc");
            assert!(!hello.mesh.is_empty());
        }
        for seed in seeds("route_select") {
            crate::routing::parse(&seed).unwrap();
        }
        for seed in seeds("detect") {
            assert_ne!(proxy::detect::detect(&seed), proxy::detect::Detected::NeedMore);
        }
    }
}
