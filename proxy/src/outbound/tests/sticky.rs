//! Keys on their way: from the request or the connection to the endpoint, and the cookie back.

use std::num::NonZeroU32;
use std::time::Duration;

use api::{Balancer, ConsistentHash, HashCookie, HashKey, HashTable, Retry, RetryCondition};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::testing::{SERVICE, Server, World, answer, ask, cluster, forward, ok, request, run};

fn by(key: HashKey) -> impl FnOnce(&mut api::Cluster) {
    let table = HashTable::Ring(NonZeroU32::new(4096).unwrap());
    move |spec: &mut api::Cluster| {
        spec.balancer = Balancer::ConsistentHash(Box::new(ConsistentHash { key, table }))
    }
}

fn user() -> HashKey {
    HashKey::Header(http::HeaderName::from_static("x-user"))
}

async fn servers() -> Vec<Server> {
    let mut servers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        servers.push(Server::start(move |_, _| ok(name)).await);
    }
    servers
}

#[test]
fn a_key_is_that_of_the_request_as_it_is_sent_and_stays_over_connections() {
    run(async {
        let servers = servers().await;
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        let cluster = cluster(&addresses, by(HashKey::QueryParameter("user".to_owned())));
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut homes = Vec::new();
        for user in 0..30 {
            let path = format!("/?a=b&user={user}");
            let mut seen = Vec::new();
            for _ in 0..3 {
                let mut app = world.http1().await;
                seen.push(ask(&mut app, request("GET", &path, "")).await.body);
            }
            seen.dedup();
            assert_eq!(seen.len(), 1, "{user}: {seen:?}");
            homes.extend(seen);
        }
        homes.sort();
        homes.dedup();
        assert_eq!(homes.len(), 4, "thirty keys find all endpoints");
    });
}

#[test]
fn a_retry_goes_elsewhere_and_the_key_back_to_its_endpoint() {
    run(async {
        let fail_first = |n: usize| {
            if n == 0 {
                answer("503 Service Unavailable", "no")
            } else {
                ok("yes")
            }
        };
        let one = Server::start(move |n, _| fail_first(n)).await;
        let other = Server::start(move |n, _| fail_first(n)).await;
        let cluster = cluster(&[one.address, other.address], by(user()));
        let world = World::new(forward(None, &cluster, |f| {
            f.retry = Retry {
                attempts: 2,
                conditions: vec![RetryCondition::GatewayError],
                backoff: Duration::from_millis(1),
                ..Retry::default()
            };
        }));
        let mut app = world.http1().await;
        let keyed = || {
            let mut request = request("GET", "/", "");
            request.headers_mut().insert("x-user", "ann".parse().unwrap());
            request
        };
        // Both fail once: its own endpoint, the other, and its own again.
        assert_eq!(ask(&mut app, keyed()).await.body, "yes");
        let mut counts = [one.seen().len(), other.seen().len()];
        counts.sort_unstable();
        assert_eq!(
            counts,
            [1, 2],
            "the second try goes elsewhere, and the third anywhere"
        );
        let home = if one.seen().len() == 2 { &one } else { &other };
        for n in 3..6 {
            assert_eq!(ask(&mut app, keyed()).await.body, "yes");
            assert_eq!(home.seen().len(), n, "the key is back at its endpoint");
        }
    });
}

#[test]
fn a_cookie_is_set_on_the_answer_and_is_the_key_from_then_on() {
    run(async {
        let servers = servers().await;
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        let key = HashKey::Cookie(HashCookie {
            name: "cart".to_owned(),
            path: Some("/".to_owned()),
            ttl: Some(Duration::from_secs(60)),
            attributes: Vec::new(),
        });
        let cluster = cluster(&addresses, by(key));
        let world = World::new(forward(None, &cluster, |_| {}));
        let mut app = world.http1().await;
        for _ in 0..20 {
            let first = ask(&mut app, request("GET", "/", "")).await;
            let line = first.header("set-cookie");
            let pair = line
                .strip_suffix("; Max-Age=60; Path=/; HttpOnly")
                .unwrap_or_else(|| panic!("{line}"));
            let mut again = request("GET", "/", "");
            again.headers_mut().insert("cookie", pair.parse().unwrap());
            let again = ask(&mut app, again).await;
            assert_eq!((again.header("set-cookie"), &again.body), ("", &first.body));
        }
    });
}

#[test]
fn connections_of_one_client_stay_at_one_endpoint() {
    run(async {
        let servers = servers().await;
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        for (key, most) in [(HashKey::SourceIp, 1), (user(), 4)] {
            let cluster = cluster(&addresses, by(key));
            let world = World::new(forward(Some(api::Protocol::Tcp), &cluster, |_| {}));
            let mut used = Vec::new();
            for _ in 0..40 {
                let mut app = world.dial(SERVICE);
                app.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n")
                    .await
                    .unwrap();
                app.shutdown().await.unwrap();
                let mut answer = String::new();
                app.read_to_string(&mut answer).await.unwrap();
                used.push(answer.pop().unwrap());
            }
            used.sort_unstable();
            used.dedup();
            assert_eq!(used.len(), most, "{used:?}");
        }
    });
}
