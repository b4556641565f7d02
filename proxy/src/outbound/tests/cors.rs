//! Requests from pages of other origins: preflights are answered here, and every other answer says who may read it.

use api::{Action, Cors, DirectResponse, StringMatch};
use http::{HeaderValue, Request, StatusCode};

use crate::route::testing::{acting, rule};
use crate::testing::{Server, World, answer, ask, cluster, request, route, run};

fn policy() -> Option<Box<Cors>> {
    Some(Box::new(Cors {
        origins: vec![StringMatch::Exact("https://shop.example".to_owned())],
        methods: Some(HeaderValue::from_static("PUT")),
        headers: None,
        expose: Some(HeaderValue::from_static("x-count")),
        max_age: Some(60),
        credentials: false,
        answers_unmatched: false,
    }))
}

fn from<B>(origin: &'static str, mut request: Request<B>) -> Request<B> {
    let headers = request.headers_mut();
    headers.insert("origin", HeaderValue::from_static(origin));
    headers.insert("access-control-request-method", HeaderValue::from_static("PUT"));
    request
}

const ALLOWED: &str = "access-control-allow-origin";

#[test]
fn preflights_are_answered_here_and_others_where_they_were_sent() {
    run(async {
        let server =
            Server::start(|_, _| answer("404 Not Found\r\naccess-control-allow-origin: *", "no")).await;
        let mut rule = rule(Vec::new(), &[("reviews", 1)]);
        rule.cors = policy();
        let world = World::new(route(
            None,
            vec![(rule, cluster(&[server.address], |_| {}))],
            Vec::new(),
        ));
        let mut app = world.http1().await;
        let got = ask(
            &mut app,
            from("https://shop.example", request("OPTIONS", "/", "")),
        )
        .await;
        assert_eq!((got.status, got.body.as_str()), (200, ""));
        assert_eq!(got.header(ALLOWED), "https://shop.example");
        assert_eq!(got.header("access-control-allow-methods"), "PUT");
        assert_eq!(got.header("access-control-max-age"), "60");
        assert_eq!(server.connections(), 0, "the application has no part in it");

        let got = ask(&mut app, from("https://shop.example", request("PUT", "/", "x"))).await;
        assert_eq!((got.status, got.body.as_str()), (404, "no"));
        assert_eq!(got.header(ALLOWED), "https://shop.example");
        assert_eq!(got.header("access-control-expose-headers"), "x-count");
        assert_eq!(got.header("vary"), "origin");

        for (method, origin) in [
            ("OPTIONS", "https://evil.example"),
            ("PUT", "https://evil.example"),
        ] {
            let got = ask(&mut app, from(origin, request(method, "/", ""))).await;
            assert_eq!(
                (got.status, got.header(ALLOWED), got.header("vary")),
                (404, "*", ""),
                "{method}"
            );
        }
        let got = ask(&mut app, request("GET", "/", "")).await;
        assert_eq!((got.header(ALLOWED), got.header("vary")), ("*", ""));
    });
}

#[test]
fn a_browser_may_read_the_proxys_own_answers_too() {
    run(async {
        let direct = Action::Direct(DirectResponse {
            status: StatusCode::IM_A_TEAPOT,
            body: "tea".into(),
        });
        for (action, told) in [(Some(direct), (418, "")), (None, (503, "no_endpoint"))] {
            let mut rule = action.map_or_else(
                || rule(Vec::new(), &[("reviews", 1)]),
                |action| acting(Vec::new(), action),
            );
            rule.cors = policy();
            let world = World::new(route(None, vec![(rule, cluster(&[], |_| {}))], Vec::new()));
            let got = ask(
                &mut world.http1().await,
                from("https://shop.example", request("GET", "/", "")),
            )
            .await;
            assert_eq!((got.told(), got.header(ALLOWED)), (told, "https://shop.example"));
        }
    });
}
