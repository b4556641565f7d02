//! What is spoken inside TLS, and which connections are taken for each other.

use crate::testing::SERVICE;

use super::*;

#[test]
fn http2_is_spoken_where_the_application_or_the_policy_does() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let pair = authority.sign(&["reviews"], |_| {});
        let both = TlsServer::http(&pair).await;
        let only1 = TlsServer::start(server_config(&pair, None, &["http/1.1"]), true).await;
        let nameless = TlsServer::start(server_config(&pair, None, &[]), true).await;
        let tls = folder.trusting(&authority);
        let upgrading = |address| {
            cluster(&[address], |spec| {
                spec.tls = TlsMode::Originate(Arc::new(tls.clone()));
                spec.upgrade_outside_mesh = true;
            })
        };
        for (server, said, connections) in [
            (&both, "HTTP/2.0 https reviews", 1),
            (&only1, "HTTP/1.1 - reviews", 1),
            (&nameless, "HTTP/1.1 - reviews", 1),
        ] {
            let world = world(&upgrading(server.address));
            let mut app = world.http1().await;
            for _ in 0..3 {
                let got = ask(&mut app, request("POST", "/", "body")).await;
                assert_eq!((got.status, got.body.as_str()), (200, said));
            }
            assert_eq!(server.hellos().len(), connections, "{said}");
        }
        let world_of_both = World::new(forward(None, &originate(&[both.address], tls.clone()), |_| {}));
        let mut app = world_of_both.http2().await;
        let got = Got::of(
            app.send_request(request("GET", "http://reviews/", ""))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(got.body, "HTTP/2.0 https reviews");
        let world_of_one = World::new(forward(None, &originate(&[only1.address], tls.clone()), |_| {}));
        let mut app = world_of_one.http2().await;
        let got = Got::of(
            app.send_request(request("GET", "http://reviews/", ""))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(got.told(), (503, "tls_failure"));
        assert!(got.body.contains("(ALPN)"), "{}", got.body);
    });
}

#[test]
fn requests_that_wait_for_a_connection_learn_that_it_speaks_http1() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let pair = authority.sign(&["reviews"], |_| {});
        let server = TlsServer::start(server_config(&pair, None, &["http/1.1"]), true).await;
        let cluster = cluster(&[server.address], |spec| {
            spec.tls = TlsMode::Originate(Arc::new(folder.trusting(&authority)));
            spec.upgrade_outside_mesh = true;
        });
        let world = world(&cluster);
        let asking = (0..5).map(|_| async {
            let mut app = world.http1().await;
            ask(&mut app, request("GET", "/", "")).await.body
        });
        for said in futures_util::future::join_all(asking).await {
            assert_eq!(said, "HTTP/1.1 - reviews");
        }
    });
}

#[test]
fn bytes_go_through_tls_to_the_host_of_the_cluster() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let config = server_config(&authority.sign(&["reviews.shop"], |_| {}), None, &["h2"]);
        let server = TlsServer::start(config, false).await;
        let cluster = originate(&[server.address], folder.trusting(&authority));
        let world = World::new(forward(Some(Protocol::Tcp), &cluster, |_| {}));
        let mut app = world.dial(SERVICE);
        app.write_all(b"hello").await.unwrap();
        let mut echoed = [0; 5];
        app.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"hello");
        let hello = &server.hellos()[0];
        assert_eq!(
            (hello.name.as_deref(), &hello.alpn),
            (Some("reviews.shop"), &None)
        );
    });
}

#[test]
fn ways_that_nobody_takes_are_forgotten() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let server = TlsServer::http(&authority.sign(&["*.wild.test"], |_| {})).await;
        let cluster = cluster(&[server.address], |spec| {
            spec.tls = TlsMode::Originate(Arc::new(folder.trusting(&authority)));
            spec.limits.max_requests_per_connection = std::num::NonZeroU32::new(1);
        });
        let world = world(&cluster);
        let mut app = world.http1().await;
        for n in 0..20 {
            let mut asked = request("GET", "/", "");
            asked
                .headers_mut()
                .insert("host", format!("n{n}.wild.test").parse().unwrap());
            assert_eq!(ask(&mut app, asked).await.status, 200);
        }
        crate::testing::eventually("all are forgotten", || {
            world.worker.upstream.sweep();
            world.worker.upstream.ways() == 0
        })
        .await;
    });
}
