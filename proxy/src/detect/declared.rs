//! Which protocol a port of a Service is declared to speak, by its `appProtocol` or its name.
//!
//! Called by the operator when it compiles a Service; the proxy gets the result. What is declared is not detected:
//! it saves the wait for first bytes, and for protocols in which the server speaks first there is no other way.

/// A protocol somebody may declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1; a client may still choose HTTP/2 with prior knowledge.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC, over HTTP/2.
    Grpc,
    /// gRPC-Web, over HTTP/1.1 or HTTP/2.
    GrpcWeb,
    /// The app's own TLS with HTTP inside.
    Https,
    /// The app's own TLS.
    Tls,
    /// Bytes.
    Tcp,
    /// MongoDB.
    Mongo,
    /// MySQL, in which the server speaks first.
    Mysql,
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
}

impl Protocol {
    /// Whether requests can be told apart, and so be routed, retried and counted.
    pub fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb => true,
            Self::Https
            | Self::Tls
            | Self::Tcp
            | Self::Mongo
            | Self::Mysql
            | Self::Postgres
            | Self::Redis => false,
        }
    }

    /// Whether the client's first bytes are TLS that belongs to the app.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Its name, as in `appProtocol` and in the name of a port.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc-web",
            Self::Https => "https",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Mongo => "mongo",
            Self::Mysql => "mysql",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }
}

/// What a Service port declares. `appProtocol` wins; one that is not known here says nothing, and the name is asked.
/// `None`: nothing is declared, so the protocol is to be detected.
pub fn declared(port_name: Option<&str>, app_protocol: Option<&str>) -> Option<Protocol> {
    app_protocol
        .and_then(by_app_protocol)
        .or_else(|| port_name.and_then(by_port_name))
}

fn by_app_protocol(app_protocol: &str) -> Option<Protocol> {
    // IANA names are not case-sensitive, and the names that Kubernetes defines are lower-case.
    let name = app_protocol.trim().to_ascii_lowercase();
    match name.as_str() {
        "kubernetes.io/h2c" | "h2c" => Some(Protocol::Http2),
        "kubernetes.io/ws" | "ws" => Some(Protocol::Http),
        "kubernetes.io/wss" | "wss" => Some(Protocol::Https),
        "postgresql" => Some(Protocol::Postgres),
        "mongodb" => Some(Protocol::Mongo),
        "ssl" => Some(Protocol::Tls),
        name => named(name),
    }
}

/// `name` or `name-suffix`; the suffix says nothing. `grpc-web` must be asked before `grpc`, of which it looks like
/// a suffixed form.
fn by_port_name(port_name: &str) -> Option<Protocol> {
    let name = port_name.to_ascii_lowercase();
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return Some(Protocol::GrpcWeb);
    }
    named(name.split('-').next().unwrap_or_default())
}

fn named(name: &str) -> Option<Protocol> {
    use Protocol::{Grpc, GrpcWeb, Http, Http2, Https, Mongo, Mysql, Postgres, Redis, Tcp, Tls};
    [
        Http, Http2, Grpc, GrpcWeb, Https, Tls, Tcp, Mongo, Mysql, Postgres, Redis,
    ]
    .into_iter()
    .find(|protocol| protocol.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_wins_over_the_name_and_unknown_ones_say_nothing() {
        use Protocol::{Grpc, GrpcWeb, Http, Http2, Https, Mongo, Mysql, Postgres, Redis, Tcp, Tls};
        for (port_name, app_protocol, expected) in [
            (None, None, None),
            (Some("web"), None, None),
            (Some("http"), None, Some(Http)),
            (Some("http-admin"), None, Some(Http)),
            (Some("HTTP-Admin"), None, Some(Http)),
            (Some("httpadmin"), None, None),
            (Some("http2"), None, Some(Http2)),
            (Some("http2-x"), None, Some(Http2)),
            (Some("https"), None, Some(Https)),
            (Some("grpc"), None, Some(Grpc)),
            (Some("grpc-api"), None, Some(Grpc)),
            (Some("grpc-web"), None, Some(GrpcWeb)),
            (Some("grpc-web-api"), None, Some(GrpcWeb)),
            (Some("grpc-website"), None, Some(Grpc)),
            (Some("tcp-metrics"), None, Some(Tcp)),
            (Some("tls"), None, Some(Tls)),
            (Some("mongo-1"), None, Some(Mongo)),
            (Some("redis"), None, Some(Redis)),
            (Some("mysql"), None, Some(Mysql)),
            (Some("postgres-rw"), None, Some(Postgres)),
            (Some(""), None, None),
            (Some("-"), None, None),
            (Some("tcp"), Some("http"), Some(Http)),
            (Some("http"), Some("TCP"), Some(Tcp)),
            (None, Some("kubernetes.io/h2c"), Some(Http2)),
            (None, Some("kubernetes.io/ws"), Some(Http)),
            (None, Some("kubernetes.io/wss"), Some(Https)),
            (None, Some("postgresql"), Some(Postgres)),
            (None, Some("grpc-web"), Some(GrpcWeb)),
            // An appProtocol has no suffix.
            (None, Some("http-admin"), None),
            (Some("tcp-mqtt"), Some("mqtt"), Some(Tcp)),
            (Some("http"), Some(""), Some(Http)),
        ] {
            assert_eq!(
                declared(port_name, app_protocol),
                expected,
                "{port_name:?} {app_protocol:?}"
            );
        }
    }

    #[test]
    fn what_is_http_is_not_tls() {
        assert!(Protocol::Grpc.is_http() && !Protocol::Grpc.is_tls());
        assert!(Protocol::Https.is_tls() && !Protocol::Https.is_http());
        assert!(!Protocol::Mysql.is_tls() && !Protocol::Mysql.is_http());
    }
}
