//! From a proxy's message to what it asks: every field checked, the wrong one named. Pure; `stream` acts on the result.

use api::{Invalid, Kind, ResourceName, Version, limits, names, proto};

use crate::push::Request;

/// Bytes of a refusal's reason that are kept; the rest is in the proxy's own log.
const MAX_REASON: usize = 1024;
/// Bytes of what a proxy says of its build.
const MAX_PROXY_VERSION: usize = 256;
/// Bytes of a Kubernetes name.
const MAX_NAME: usize = 253;

/// A message of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Hello(Hello),
    Request(Request),
}

/// The greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) proxy_version: String,
    /// The highest revision that both sides speak.
    pub(crate) revision: u32,
}

/// Checks a message.
pub(crate) fn decode(proto::ProxyMessage { body }: proto::ProxyMessage) -> Result<Message, Invalid> {
    use proto::proxy_message::Body;
    let body =
        body.ok_or_else(|| Invalid::new("body", "is empty, or of a kind that this operator does not know"))?;
    match body {
        Body::Hello(hello) => Ok(Message::Hello(decode_hello(hello).map_err(|e| e.under("hello"))?)),
        Body::Subscribe(subscribe) => decode_subscribe(subscribe)
            .map(Message::Request)
            .map_err(|e| e.under("subscribe")),
        Body::Unsubscribe(unsubscribe) => decode_unsubscribe(unsubscribe)
            .map(Message::Request)
            .map_err(|e| e.under("unsubscribe")),
        Body::Ack(proto::Ack { name, version: v }) => {
            let parts = name_of(name).and_then(|name| Ok((name, version(v)?)));
            let (name, version) = parts.map_err(|e| e.under("ack"))?;
            Ok(Message::Request(Request::Ack(name, version)))
        }
        Body::Nack(proto::Nack {
            name,
            version: v,
            reason,
        }) => {
            let parts = name_of(name).and_then(|name| Ok((name, version(v)?)));
            let (name, version) = parts.map_err(|e| e.under("nack"))?;
            Ok(Message::Request(Request::Nack(name, version, shortened(reason))))
        }
    }
}

fn decode_hello(hello: proto::Hello) -> Result<Hello, Invalid> {
    let proto::Hello {
        namespace,
        pod,
        proxy_version,
        revision,
    } = hello;
    if revision == 0 {
        return Err(Invalid::new("revision", "must be at least 1"));
    }
    for (field, text, most) in [
        ("namespace", &namespace, MAX_NAME),
        ("pod", &pod, MAX_NAME),
        ("proxy_version", &proxy_version, MAX_PROXY_VERSION),
    ] {
        if text.len() > most {
            return Err(Invalid::new(field, format!("has more than {most} bytes")));
        }
    }
    Ok(Hello {
        namespace,
        pod,
        proxy_version,
        revision: revision.min(names::REVISION),
    })
}

fn decode_subscribe(proto::Subscribe { subscriptions }: proto::Subscribe) -> Result<Request, Invalid> {
    bounded("subscriptions", subscriptions.len())?;
    let one = |(i, proto::Subscription { name, known_version }): (usize, proto::Subscription)| {
        let name = name_of(name).map_err(|e| e.under(&format!("subscriptions[{i}]")))?;
        Ok((name, Version::from_wire(known_version)))
    };
    let names: Result<_, Invalid> = subscriptions.into_iter().enumerate().map(one).collect();
    Ok(Request::Subscribe(names?))
}

fn decode_unsubscribe(proto::Unsubscribe { names }: proto::Unsubscribe) -> Result<Request, Invalid> {
    bounded("names", names.len())?;
    let one = |(i, name)| name_of(Some(name)).map_err(|e| e.under(&format!("names[{i}]")));
    let names: Result<_, Invalid> = names.into_iter().enumerate().map(one).collect();
    Ok(Request::Unsubscribe(names?))
}

fn bounded(field: &str, len: usize) -> Result<(), Invalid> {
    if len <= limits::MAX_SUBSCRIPTIONS {
        return Ok(());
    }
    let problem = format!(
        "has {len} names, more than {}: send them in several messages",
        limits::MAX_SUBSCRIPTIONS
    );
    Err(Invalid::new(field, problem))
}

fn name_of(name: Option<proto::ResourceName>) -> Result<ResourceName, Invalid> {
    let name = ResourceName::try_from(name).map_err(|e| match e.field.as_str() {
        // The field holds the whole name; its own parts stand below it.
        "name" if e.problem == "is missing" => e,
        _ => e.under("name"),
    })?;
    if name.kind == Kind::Inbound && name.name != names::INBOUND_SELF {
        let problem = format!(
            "{:?} is not yours: a proxy gets its own inbound configuration, under the name {:?}",
            name.name,
            names::INBOUND_SELF
        );
        return Err(Invalid::new("name.name", problem));
    }
    Ok(name)
}

fn version(version: u64) -> Result<Version, Invalid> {
    Version::from_wire(version).ok_or_else(|| Invalid::new("version", "is 0, which is no version"))
}

fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        reason.push('…');
    }
    reason
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use proto::proxy_message::Body;

    use super::*;

    fn name(kind: proto::Kind, name: &str) -> Option<proto::ResourceName> {
        Some(proto::ResourceName {
            kind: kind.into(),
            name: name.to_owned(),
        })
    }

    fn of(body: Body) -> Result<Message, Invalid> {
        decode(proto::ProxyMessage { body: Some(body) })
    }

    fn subscribe(names: Vec<Option<proto::ResourceName>>) -> Result<Message, Invalid> {
        let one = |name| proto::Subscription {
            name,
            known_version: 7,
        };
        let subscriptions = names.into_iter().map(one).collect();
        of(Body::Subscribe(proto::Subscribe { subscriptions }))
    }

    #[test]
    fn what_is_right_comes_through() {
        let message = subscribe(vec![
            name(proto::Kind::Route, "a"),
            name(proto::Kind::Inbound, "self"),
        ]);
        let known = Version::from_wire(7);
        assert_eq!(
            message,
            Ok(Message::Request(Request::Subscribe(vec![
                (ResourceName::new(Kind::Route, "a"), known),
                (ResourceName::new(Kind::Inbound, "self"), known),
            ])))
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        use proto::Kind::{Inbound, Route};
        let unknown_kind = Some(proto::ResourceName {
            kind: 99,
            name: "x".to_owned(),
        });
        let ack = |name, version| of(Body::Ack(proto::Ack { name, version }));
        let hello = |revision| {
            of(Body::Hello(proto::Hello {
                revision,
                ..proto::Hello::default()
            }))
        };
        let long = of(Body::Hello(proto::Hello {
            revision: 1,
            pod: "x".repeat(MAX_NAME + 1),
            ..proto::Hello::default()
        }));
        let many = vec![name(Route, "x"); limits::MAX_SUBSCRIPTIONS + 1];
        for (message, field) in [
            (decode(proto::ProxyMessage { body: None }), "body"),
            (hello(0), "hello.revision"),
            (long, "hello.pod"),
            (
                subscribe(vec![name(Route, "x"), None]),
                "subscribe.subscriptions[1].name",
            ),
            (
                subscribe(vec![unknown_kind]),
                "subscribe.subscriptions[0].name.kind",
            ),
            (
                subscribe(vec![name(Route, "")]),
                "subscribe.subscriptions[0].name.name",
            ),
            (
                subscribe(vec![name(Inbound, "shop/payment")]),
                "subscribe.subscriptions[0].name.name",
            ),
            (subscribe(many), "subscribe.subscriptions"),
            (ack(name(Route, "x"), 0), "ack.version"),
            (ack(None, 1), "ack.name"),
        ] {
            assert_eq!(message.unwrap_err().field, field);
        }
    }

    #[test]
    fn a_long_reason_is_kept_in_part() {
        let nack = proto::Nack {
            name: name(proto::Kind::Route, "x"),
            version: 1,
            reason: "ü".repeat(MAX_REASON),
        };
        let Ok(Message::Request(Request::Nack(_, _, reason))) = of(Body::Nack(nack)) else {
            panic!("not a refusal")
        };
        assert!(reason.len() <= MAX_REASON + '…'.len_utf8());
    }

    proptest! {
        #[test]
        fn any_bytes_that_are_a_message_are_decoded_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            if let Ok(message) = proto::ProxyMessage::decode(bytes.as_slice()) {
                let _ = decode(message);
            }
        }
    }
}
