//! Files that change while the proxy runs, that are not there, and that hold anything.

use proptest::prelude::*;

use super::*;

#[test]
fn changed_files_hold_from_the_next_request_and_broken_ones_do_not() {
    run(async {
        let (old, new, folder) = (Authority::new(), Authority::new(), Folder::new());
        let server = TlsServer::http(&old.sign(&["reviews"], |_| {})).await;
        let renewed = TlsServer::http(&new.sign(&["reviews"], |_| {})).await;
        let tls = folder.trusting(&old);
        let old_world = world(&originate(&[server.address], tls.clone()));
        let origins = old_world.worker.config.origins();
        let mut app = old_world.http1().await;
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.status, 200);

        folder.put("ca.crt", "-----BEGIN CERTIFICATE-----\nhalf of i");
        origins.refresh();
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.status, 200);
        std::fs::remove_file(folder.path("ca.crt")).unwrap();
        origins.refresh();
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.status, 200);
        assert_eq!(server.hellos().len(), 1, "the connection of before goes on");

        folder.put("ca.crt", &new.pem);
        origins.refresh();
        let got = ask(&mut app, request("GET", "/", "")).await;
        assert_eq!(
            got.told(),
            (503, "tls_failure"),
            "no connection of before is used: {}",
            got.body
        );
        let new_world = world(&originate(&[renewed.address], tls));
        assert_eq!(
            ask(&mut new_world.http1().await, request("GET", "/", ""))
                .await
                .status,
            200
        );
    });
}

#[test]
fn a_certificate_and_its_key_are_taken_over_together() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let config = server_config(&authority.sign(&["reviews"], |_| {}), Some(&authority), &[]);
        let server = TlsServer::start(config, true).await;
        let old = authority.sign(&["old"], |_| {});
        let tls = ClientTls {
            certificate: folder.certificate(&old),
            ..folder.trusting(&authority)
        };
        let world = world(&originate(&[server.address], tls));
        let origins = world.worker.config.origins();
        let mut app = world.http1().await;
        let new = authority.sign(&["new"], |_| {});
        for (file, content, handshakes) in [
            ("tls.crt", &old.chain, 1),
            // Between the two they do not belong together: the pair of before stays.
            ("tls.crt", &new.chain, 1),
            ("tls.key", &new.key, 2),
        ] {
            folder.put(file, content);
            if file == "tls.key" || content == &new.chain {
                origins.refresh();
            }
            assert_eq!(ask(&mut app, request("GET", "/", "")).await.status, 200);
            assert_eq!(server.hellos().len(), handshakes, "{file}");
        }
    });
}

#[test]
fn a_file_that_is_not_there_fails_connections_until_it_is() {
    run(async {
        let (authority, folder) = (Authority::new(), Folder::new());
        let server = TlsServer::http(&authority.sign(&["reviews"], |_| {})).await;
        let tls = ClientTls {
            ca_certificates: Some(folder.path("late.crt").to_str().unwrap().to_owned()),
            ..ClientTls::default()
        };
        let cluster = cluster(&[server.address], |spec| {
            spec.tls = TlsMode::Originate(Arc::new(tls));
            spec.breaker = Some(api::Breaker {
                failure_threshold: std::num::NonZeroU32::MIN,
                recovery: Duration::from_secs(60),
                half_open_requests: std::num::NonZeroU32::MIN,
            });
        });
        let world = world(&cluster);
        let mut app = world.http1().await;
        let got = ask(&mut app, request("GET", "/", "")).await;
        assert_eq!(got.told(), (503, "tls_failure"));
        assert!(got.body.contains("late.crt: No such file"), "{}", got.body);
        folder.put("late.crt", &authority.pem);
        world.worker.config.origins().refresh();
        assert_eq!(ask(&mut app, request("GET", "/", "")).await.status, 200);
    });
}

proptest! {
    #[test]
    fn no_file_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200), as_pem in any::<bool>()) {
        let folder = Folder::new();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let text = if as_pem {
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n-----BEGIN X509 CRL-----\n{text}\n-----END X509 CRL-----\n")
        } else {
            text
        };
        let path = folder.put("any", &text);
        let spec = ClientTls {
            certificate: Some(api::ClientCertificate { chain: path.clone(), key: path.clone() }),
            ca_certificates: Some(path.clone()),
            ca_crl: Some(path),
            ..ClientTls::default()
        };
        prop_assert!(Settings::load(&spec).is_err());
    }
}
