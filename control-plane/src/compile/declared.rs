//! What a port is declared to speak: by the Service port's `appProtocol`, else by its name, `http` or `http-web`.
//! A declaration this build does not know is none, and the proxy looks at the first bytes.

use api::Protocol;

/// What a port is declared to speak; `appProtocol` goes before the name.
pub(crate) fn declared(port_name: &str, app_protocol: Option<&str>) -> Option<Protocol> {
    match app_protocol.filter(|p| !p.is_empty()) {
        Some(protocol) => by_app_protocol(protocol),
        None => by_name(port_name),
    }
}

fn by_app_protocol(protocol: &str) -> Option<Protocol> {
    let protocol = protocol.to_ascii_lowercase();
    match protocol.as_str() {
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        "kubernetes.io/ws" => Some(Protocol::Http1),
        "kubernetes.io/wss" => Some(Protocol::Tls),
        other => keyword(other),
    }
}

/// The keyword is the whole name, or what stands before the first `-`; `grpc-web` is one keyword.
fn by_name(name: &str) -> Option<Protocol> {
    let name = name.to_ascii_lowercase();
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return keyword("grpc-web");
    }
    keyword(name.split('-').next().unwrap_or_default())
}

fn keyword(word: &str) -> Option<Protocol> {
    match word {
        // gRPC-Web is carried by requests of HTTP/1.1, with its status in the body.
        "http" | "grpc-web" | "ws" => Some(Protocol::Http1),
        "http2" | "h2c" => Some(Protocol::Http2),
        "grpc" => Some(Protocol::Grpc),
        "https" | "tls" | "wss" => Some(Protocol::Tls),
        "tcp" | "mongo" | "redis" | "mysql" | "postgres" | "postgresql" => Some(Protocol::Tcp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_declare_by_their_first_word() {
        use Protocol::{Grpc, Http1, Http2, Tcp, Tls};
        for (name, expected) in [
            ("http", Some(Http1)),
            ("HTTP-web", Some(Http1)),
            ("http-", Some(Http1)),
            ("http2", Some(Http2)),
            ("http2-api", Some(Http2)),
            ("grpc", Some(Grpc)),
            ("grpc-api", Some(Grpc)),
            ("grpc-web", Some(Http1)),
            ("grpc-web-ui", Some(Http1)),
            ("grpc-webhook", Some(Grpc)),
            ("https", Some(Tls)),
            ("tls-db", Some(Tls)),
            ("tcp", Some(Tcp)),
            ("mongo", Some(Tcp)),
            ("redis-cache", Some(Tcp)),
            ("mysql", Some(Tcp)),
            ("postgres", Some(Tcp)),
            ("postgresql-main", Some(Tcp)),
            ("httpweb", None),
            ("web-http", None),
            ("metrics", None),
            ("", None),
        ] {
            assert_eq!(declared(name, None), expected, "{name:?}");
        }
    }

    #[test]
    fn the_application_protocol_goes_before_the_name() {
        use Protocol::{Grpc, Http1, Http2, Tcp, Tls};
        for (protocol, expected) in [
            ("kubernetes.io/h2c", Some(Http2)),
            ("kubernetes.io/ws", Some(Http1)),
            ("kubernetes.io/wss", Some(Tls)),
            ("http", Some(Http1)),
            ("HTTP", Some(Http1)),
            ("http2", Some(Http2)),
            ("grpc", Some(Grpc)),
            ("https", Some(Tls)),
            ("tls", Some(Tls)),
            ("tcp", Some(Tcp)),
            ("example.com/own", None),
            // The prefix rule is one of names alone.
            ("http-web", None),
        ] {
            assert_eq!(declared("tcp", Some(protocol)), expected, "{protocol:?}");
        }
        assert_eq!(declared("tcp", Some("")), Some(Tcp));
    }
}
