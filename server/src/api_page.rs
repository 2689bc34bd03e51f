//! `docs/api.md` shows what the code says: its tables are made here and compared.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use hearth_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::method_options::IdempotencyLevel;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::Code;

use crate::generated;
use crate::status::REASONS;

/// One after the other: both write the same file when they are told to.
#[test]
fn the_page_has_every_method_and_every_reason() {
    generated::check("api.md", "methods", &methods());
    generated::check("api.md", "reasons", &reasons());
}

fn reasons() -> String {
    let mut table =
        "| reason | code | when | what the client should do |\n|---|---|---|---|\n".to_owned();
    for reason in REASONS {
        let code = code_name(reason.code);
        let _ =
            writeln!(table, "| `{}` | {code} | {} | {} |", reason.name, reason.when, reason.then);
    }
    table
}

fn methods() -> String {
    let mut table = "| method | answers | sent twice |\n|---|---|---|\n".to_owned();
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the set decodes");
    let has_request_id = |method: &MethodDescriptorProto| {
        let messages = set.file.iter().flat_map(|file| {
            let package = file.package().to_owned();
            file.message_type.iter().map(move |it| (format!(".{package}.{}", it.name()), it))
        });
        let mut wanted = messages.filter(|(name, _)| name == method.input_type());
        wanted.any(|(_, it)| it.field.iter().any(|field| field.name() == "request_id"))
    };
    let files = set.file.iter().filter(|file| !file.service.is_empty());
    for file in files {
        for service in &file.service {
            for method in &service.method {
                let answers = method.output_type().rsplit('.').next().unwrap_or_default();
                let answers = match (method.client_streaming(), method.server_streaming()) {
                    (true, _) => format!("streams both ways, of `{answers}`"),
                    (false, true) => format!("a stream of `{answers}`"),
                    (false, false) => format!("`{answers}`"),
                };
                let level = method.options.as_ref().map(|options| options.idempotency_level());
                let twice = match level {
                    Some(IdempotencyLevel::NoSideEffects) => "it only reads",
                    _ if has_request_id(method) => "once, with a `request_id`",
                    _ if method.client_streaming() => "two connections",
                    _ => "the same",
                };
                let _ = writeln!(
                    table,
                    "| `{}.{}/{}` | {answers} | {twice} |",
                    file.package(),
                    service.name(),
                    method.name(),
                );
            }
        }
    }
    table
}

/// The code as the protocol spells it.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[test]
fn every_reason_of_the_table_is_somewhere_in_the_code_and_stands_once() {
    let source = include_str!("status.rs");
    let mut names = BTreeSet::new();
    for name in hearth_proto::Reason::KNOWN {
        assert!(REASONS.iter().any(|it| it.name == *name), "the client knows {name}");
    }
    for reason in REASONS {
        let known = hearth_proto::Reason::KNOWN;
        assert!(known.contains(&reason.name), "the client does not know {}", reason.name);
        assert!(names.insert(reason.name), "{} stands twice", reason.name);
        assert!(!reason.when.is_empty() && !reason.then.is_empty(), "{}", reason.name);
        let of_kinds = ["_NOT_FOUND", "_ALREADY_EXISTS", "_IN_USE"];
        let is_of_kind = of_kinds.iter().any(|suffix| reason.name.ends_with(suffix));
        let quoted = format!("\"{}\"", reason.name);
        assert!(is_of_kind || source.contains(&quoted), "nothing answers {}", reason.name);
    }
}
