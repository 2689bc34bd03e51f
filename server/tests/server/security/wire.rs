//! Calls of methods that are known from the descriptors alone, as the server itself serves them.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _};
use hearth_proto::Transport;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorProto};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::site::Who;

/// How deep a field may be in its request.
const MAX_DEPTH: usize = 4;

/// A method that is served.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    /// As `hearth.v1.VmService/GetVm`.
    pub(crate) path: String,
    /// It says of itself that it changes nothing.
    pub(crate) only_reads: bool,
    /// Every text in its request.
    pub(crate) texts: Vec<Text>,
}

impl Method {
    /// The text at `path`, as `spec.restore_from.vm_id`.
    pub(crate) fn text(&self, path: &str) -> Option<&Text> {
        self.texts.iter().find(|text| text.path == path)
    }
}

/// A text in a request.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    /// Its name, below those of the messages that it is in.
    pub(crate) path: String,
    /// The numbers of these.
    numbers: Vec<u32>,
}

/// Everything that the server says it serves.
pub(crate) async fn methods(channel: &Channel) -> Vec<Method> {
    let transport = Transport::bearing(channel.clone(), Who::Root.token().unwrap());
    let mut client = ServerReflectionClient::new(transport);
    let mut ask = async |wanted: MessageRequest| {
        let request =
            ServerReflectionRequest { host: String::new(), message_request: Some(wanted) };
        let stream = tokio_stream::iter([request]);
        let mut answers = client.server_reflection_info(stream).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let listed = ask(MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(listed) = listed else { panic!("{listed:?}") };
    let mut files = BTreeMap::new();
    for service in &listed.service {
        let wanted = MessageRequest::FileContainingSymbol(service.name.clone());
        let found = ask(wanted).await;
        let MessageResponse::FileDescriptorResponse(found) = found else { panic!("{found:?}") };
        for encoded in found.file_descriptor_proto {
            let file = FileDescriptorProto::decode(&*encoded).unwrap();
            files.insert(file.name().to_owned(), file);
        }
    }
    // What they import, too.
    loop {
        let imported = files.values().flat_map(|file| file.dependency.clone());
        let Some(missing) = imported.into_iter().find(|it| !files.contains_key(it)) else { break };
        let found = ask(MessageRequest::FileByFilename(missing.clone())).await;
        let MessageResponse::FileDescriptorResponse(found) = found else { panic!("{found:?}") };
        for encoded in found.file_descriptor_proto {
            let file = FileDescriptorProto::decode(&*encoded).unwrap();
            files.insert(file.name().to_owned(), file);
        }
    }
    let mut messages = BTreeMap::new();
    for file in files.values() {
        collect(&mut messages, &format!(".{}", file.package()), &file.message_type);
    }
    let served: Vec<_> = listed.service.iter().map(|it| it.name.clone()).collect();
    let mut methods = Vec::new();
    for file in files.values() {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if !served.contains(&name) {
                continue;
            }
            for method in &service.method {
                let mut texts = Vec::new();
                texts_of(&messages, method.input_type(), (String::new(), Vec::new()), &mut texts);
                let level = method.options.as_ref().map(|it| it.idempotency_level());
                let path = format!("{name}/{}", method.name());
                let only_reads =
                    level == Some(prost_types::method_options::IdempotencyLevel::NoSideEffects);
                methods.push(Method { path, only_reads, texts });
            }
        }
    }
    methods
}

fn collect(
    messages: &mut BTreeMap<String, DescriptorProto>,
    within: &str,
    found: &[DescriptorProto],
) {
    for message in found {
        let name = format!("{within}.{}", message.name());
        collect(messages, &name, &message.nested_type);
        messages.insert(name, message.clone());
    }
}

fn texts_of(
    messages: &BTreeMap<String, DescriptorProto>,
    message: &str,
    (path, numbers): (String, Vec<u32>),
    texts: &mut Vec<Text>,
) {
    let Some(message) = messages.get(message) else { return };
    if numbers.len() >= MAX_DEPTH {
        return;
    }
    for field in &message.field {
        let name = if path.is_empty() { String::new() } else { format!("{path}.") };
        let name = format!("{name}{}", field.name());
        let mut numbers = numbers.clone();
        numbers.push(u32::try_from(field.number()).unwrap());
        match field.r#type() {
            Type::String => texts.push(Text { path: name, numbers }),
            Type::Message => texts_of(messages, field.type_name(), (name, numbers), texts),
            _ => assert_ne!(field.label(), Label::Required),
        }
    }
}

/// A request in which these texts are set.
pub(crate) fn encode(texts: &[(&Text, &str)]) -> Vec<u8> {
    let mut message = Vec::new();
    // What is in one message together must be written together.
    let mut by_first: BTreeMap<u32, Vec<(&[u32], &str)>> = BTreeMap::new();
    for (text, value) in texts {
        by_first.entry(text.numbers[0]).or_default().push((&text.numbers[1..], value));
    }
    for (number, below) in by_first {
        let inner = encode_below(&below);
        put(&mut message, number, &inner);
    }
    message
}

fn encode_below(texts: &[(&[u32], &str)]) -> Vec<u8> {
    if let [([], value)] = texts {
        return value.as_bytes().to_vec();
    }
    let mut message = Vec::new();
    let mut by_first: BTreeMap<u32, Vec<(&[u32], &str)>> = BTreeMap::new();
    for (numbers, value) in texts {
        by_first.entry(numbers[0]).or_default().push((&numbers[1..], value));
    }
    for (number, below) in by_first {
        let inner = encode_below(&below);
        put(&mut message, number, &inner);
    }
    message
}

fn put(message: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, message);
    prost::encoding::encode_varint(bytes.len() as u64, message);
    message.put_slice(bytes);
}

/// Calls a method, and answers its first message; of a stream that ends without one, nothing.
pub(crate) async fn call(
    channel: &Channel,
    who: Who,
    method: &str,
    request: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    let transport = match who.token() {
        Some(token) => Transport::bearing(channel.clone(), token),
        None => channel.clone().into(),
    };
    let mut grpc = tonic::client::Grpc::new(transport);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(format!("/{method}")).unwrap();
    let request = Request::new(tokio_stream::once(request));
    let answered = async {
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        Ok(answers.message().await?.unwrap_or_default())
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, answered)
        .await
        .unwrap_or_else(|_| panic!("{method} of {who:?} says nothing"))
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}
