//! What goes out on a stream. A resource is encoded once, however many proxies get it; a message to one proxy is put
//! together from what is encoded already, as prost would have done it from the whole. `session` writes it to the wire.

use std::sync::Arc;

use api::{ResourceName, proto};
use prost::Message as _;
use prost::bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// Field of the update in a message of the operator.
const UPDATE: u32 = 2;
/// Field of the resources in an update.
const RESOURCES: u32 = 1;

/// A resource ready to be sent, shared by all proxies that get the same.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) name: Arc<ResourceName>,
    /// A resource of the contract.
    pub(crate) encoded: Bytes,
}

impl Outgoing {
    pub(crate) fn new(name: Arc<ResourceName>, message: &proto::Resource) -> Self {
        Self {
            name,
            encoded: message.encode_to_vec().into(),
        }
    }

    /// The resource as it was before.
    pub(crate) fn decoded(&self) -> proto::Resource {
        proto::Resource::decode(&*self.encoded).expect("it was encoded here")
    }
}

/// A message to one proxy.
#[derive(Debug)]
pub enum Message {
    /// The greeting.
    Welcome(proto::Welcome),
    /// Resources, in this order.
    Update(Update),
}

/// Resources for one proxy.
#[derive(Debug, Default)]
pub struct Update(pub(crate) Vec<Arc<Outgoing>>);

impl Message {
    /// Writes it as prost writes an [`proto::OperatorMessage`].
    pub fn encode(&self, buffer: &mut impl BufMut) -> Result<(), prost::EncodeError> {
        match self {
            Self::Welcome(welcome) => {
                let body = Some(proto::operator_message::Body::Welcome(welcome.clone()));
                proto::OperatorMessage { body }.encode(buffer)
            }
            Self::Update(update) => {
                update.encode(buffer);
                Ok(())
            }
        }
    }
}

impl Update {
    fn encode(&self, buffer: &mut impl BufMut) {
        let one = |resource: &Arc<Outgoing>| {
            let bytes = resource.encoded.len();
            key_len(RESOURCES) + encoded_len_varint(bytes as u64) + bytes
        };
        let all: usize = self.0.iter().map(one).sum();
        encode_key(UPDATE, WireType::LengthDelimited, buffer);
        encode_varint(all as u64, buffer);
        for resource in &self.0 {
            encode_key(RESOURCES, WireType::LengthDelimited, buffer);
            encode_varint(resource.encoded.len() as u64, buffer);
            buffer.put_slice(&resource.encoded);
        }
    }
}

#[cfg(test)]
impl From<Message> for proto::OperatorMessage {
    fn from(message: Message) -> Self {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        Self::decode(&*bytes).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use api::{Body, Kind, Resource};
    use proptest::prelude::*;

    use super::*;

    fn resource(name: &str, text: &str) -> proto::Resource {
        let name = ResourceName::new(Kind::Route, name);
        Resource::new(name, Body::Absent(text.to_owned())).into()
    }

    proptest! {
        /// Whatever is in it and however long it is.
        #[test]
        fn a_message_is_what_prost_would_have_written(
            resources in prop::collection::vec(("[a-z]{1,30}", "[a-z]{0,20000}"), 0..5)
        ) {
            let resources: Vec<_> = resources.iter().map(|(name, text)| resource(name, text)).collect();
            let outgoing = |message: &proto::Resource| {
                let name = ResourceName::try_from(message.name.clone()).unwrap();
                Arc::new(Outgoing::new(Arc::new(name), message))
            };
            let message = Message::Update(Update(resources.iter().map(outgoing).collect()));
            let mut bytes = Vec::new();
            message.encode(&mut bytes).unwrap();
            let update = proto::Update { resources };
            let whole = proto::OperatorMessage { body: Some(proto::operator_message::Body::Update(update)) };
            prop_assert_eq!(bytes, whole.encode_to_vec());
        }
    }

    #[test]
    fn a_greeting_is_the_contracts_own() {
        let welcome = proto::Welcome {
            operator_version: "1".to_owned(),
            revision: 1,
        };
        let message = proto::OperatorMessage::from(Message::Welcome(welcome.clone()));
        assert_eq!(
            message.body,
            Some(proto::operator_message::Body::Welcome(welcome))
        );
    }
}
