//! The rules of the API, read from its descriptors: what clients and dashboards were promised.
//!
//! A method that is renamed, an enum outside its message or a mutating request without `request_id` fails
//! here, before anybody's client does.

use std::collections::{BTreeMap, BTreeSet};

use hearth_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::method_options::IdempotencyLevel;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto,
};

/// Every method; `>` marks those that answer with a stream, `<>` those with streams both ways.
const METHODS: [(&str, &str); 6] = [
    (
        "hearth.v1.VmService",
        "AcquireVm ReleaseVm RenewLease CreateVm GetVm ListVms StartVm StopVm RenameVm DestroyVm \
         SnapshotVm GetSnapshot ListSnapshots DeleteSnapshot FreezeVm ResumeVm >WatchVms \
         >ReadConsole <>ConnectVm >ExecVm",
    ),
    (
        "hearth.v1.PoolService",
        "CreatePool GetPool ListPools UpdatePool DeletePool PrewarmPool CancelPrewarm ExplainPool \
         ResolvePool DrainPool >WatchPools",
    ),
    (
        "hearth.v1.TemplateService",
        "CreateTemplate UpdateTemplate ImportTemplate GetTemplate ListTemplates ListGenerations \
         DeleteTemplate RollbackTemplate",
    ),
    ("hearth.v1.ArtifactService", "GetArtifact ListArtifacts DeleteArtifact >ExportArtifact"),
    ("hearth.v1.NodeService", "GetNode Drain Undrain SetLogLevel"),
    (
        "google.longrunning.Operations",
        "ListOperations GetOperation DeleteOperation CancelOperation WaitOperation",
    ),
];

fn files() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the set decodes").file
}

fn own_files() -> Vec<FileDescriptorProto> {
    files().into_iter().filter(|file| file.package() == "hearth.v1").collect()
}

fn own_methods() -> Vec<MethodDescriptorProto> {
    own_files()
        .into_iter()
        .flat_map(|file| file.service)
        .flat_map(|service| service.method)
        .collect()
}

/// Every message of `hearth.v1`, nested ones too, by its full name with a leading dot.
fn own_messages() -> BTreeMap<String, DescriptorProto> {
    fn add(into: &mut BTreeMap<String, DescriptorProto>, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for nested in &message.nested_type {
            add(into, &name, nested);
        }
        into.insert(name, message.clone());
    }
    let mut messages = BTreeMap::new();
    for file in own_files() {
        for message in &file.message_type {
            add(&mut messages, ".hearth.v1", message);
        }
    }
    messages
}

/// Whether `message` has a single field `name` of this type.
fn has(message: &DescriptorProto, name: &str, kind: Type) -> bool {
    message.field.iter().any(|field| {
        field.name() == name && field.r#type() == kind && field.label() == Label::Optional
    })
}

fn is_read(method: &MethodDescriptorProto) -> bool {
    method.options.as_ref().map(|options| options.idempotency_level())
        == Some(IdempotencyLevel::NoSideEffects)
}

#[test]
fn every_method_is_there_and_no_other() {
    let mut found = BTreeMap::new();
    for file in files() {
        for service in &file.service {
            let methods: BTreeSet<String> = service
                .method
                .iter()
                .map(|method| match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => method.name().to_owned(),
                    (false, true) => format!(">{}", method.name()),
                    (true, true) => format!("<>{}", method.name()),
                    (true, false) => format!("<{}", method.name()),
                })
                .collect();
            found.insert(format!("{}.{}", file.package(), service.name()), methods);
        }
    }
    let expected: BTreeMap<String, BTreeSet<String>> = METHODS
        .iter()
        .map(|(service, methods)| {
            ((*service).to_owned(), methods.split_whitespace().map(str::to_owned).collect())
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn the_set_is_closed_and_explains_errors() {
    let files = files();
    let names: BTreeSet<&str> = files.iter().map(FileDescriptorProto::name).collect();
    for file in &files {
        for import in &file.dependency {
            assert!(names.contains(import.as_str()), "{} imports {import}", file.name());
        }
        assert!(file.source_code_info.is_none(), "{} carries its comments", file.name());
    }
    assert!(names.contains("google/rpc/error_details.proto"));
    assert!(names.contains("google/rpc/status.proto"));
}

#[test]
fn enums_are_nested_prefixed_and_begin_unspecified() {
    fn check(scope: &str, enumeration: &EnumDescriptorProto) {
        let mut prefix = String::new();
        for c in enumeration.name().chars() {
            if c.is_ascii_uppercase() && !prefix.is_empty() {
                prefix.push('_');
            }
            prefix.push(c.to_ascii_uppercase());
        }
        let at = format!("{scope}.{}", enumeration.name());
        for value in &enumeration.value {
            assert!(value.name().starts_with(&format!("{prefix}_")), "{at}: {}", value.name());
        }
        let zero = enumeration.value.first().expect("an enum has values");
        assert_eq!((zero.number(), zero.name()), (0, &*format!("{prefix}_UNSPECIFIED")), "{at}");
    }
    for file in own_files() {
        assert!(file.enum_type.is_empty(), "{} has an enum outside a message", file.name());
    }
    let messages = own_messages();
    for (name, message) in &messages {
        message.enum_type.iter().for_each(|enumeration| check(name, enumeration));
    }
    let states: Vec<&str> =
        messages[".hearth.v1.Vm"].enum_type[0].value.iter().map(|value| value.name()).collect();
    assert_eq!(
        states,
        [
            "STATE_UNSPECIFIED",
            "STATE_CREATED",
            "STATE_RUNNING",
            "STATE_STOPPED",
            "STATE_FAILED",
            "STATE_DESTROYED"
        ]
    );
}

#[test]
fn every_mutating_request_has_a_request_id() {
    let messages = own_messages();
    let mut mutating = 0;
    // A two-way stream cannot be replayed.
    for method in own_methods().iter().filter(|m| !is_read(m) && !m.client_streaming()) {
        let request = &messages[method.input_type()];
        assert!(has(request, "request_id", Type::String), "{}", method.name());
        mutating += 1;
    }
    assert_eq!(mutating, 28);
}

#[test]
fn what_reads_says_so_and_nothing_else_does() {
    const READS: [&str; 7] = ["Get", "List", "Watch", "Read", "Explain", "Resolve", "Export"];
    for method in own_methods() {
        let expected = READS.iter().any(|verb| method.name().starts_with(verb));
        assert_eq!(is_read(&method), expected, "{}", method.name());
    }
}

#[test]
fn calls_that_change_a_vm_can_name_its_uid() {
    let messages = own_messages();
    for method in [
        "ReleaseVm",
        "RenewLease",
        "StartVm",
        "StopVm",
        "RenameVm",
        "DestroyVm",
        "SnapshotVm",
        "FreezeVm",
        "ResumeVm",
        "ExecVm",
    ] {
        let request = &messages[&format!(".hearth.v1.{method}Request")];
        assert!(has(request, "name", Type::String), "{method}");
        assert!(has(request, "uid", Type::String), "{method}");
    }
    assert!(has(&messages[".hearth.v1.ConnectVmRequest.Open"], "uid", Type::String));
}

#[test]
fn creates_updates_and_acquires_can_be_tried() {
    let messages = own_messages();
    for method in own_methods() {
        let name = method.name();
        let tried = ["Create", "Update", "Import", "AcquireVm"];
        if tried.iter().any(|verb| name.starts_with(verb)) {
            assert!(has(&messages[method.input_type()], "validate_only", Type::Bool), "{name}");
        }
        if name.starts_with("Update") {
            let request = &messages[method.input_type()];
            assert!(has(request, "update_mask", Type::Message), "{name}");
            let resource = &messages[request.field[0].type_name()];
            assert!(has(resource, "etag", Type::String), "{name}");
        }
    }
}

#[test]
fn lists_have_pages_and_filters_and_never_stream() {
    let messages = own_messages();
    for method in own_methods().iter().filter(|method| method.name().starts_with("List")) {
        let request = &messages[method.input_type()];
        assert!(has(request, "page_size", Type::Int32), "{}", method.name());
        assert!(has(request, "page_token", Type::String), "{}", method.name());
        assert!(has(request, "filter", Type::String), "{}", method.name());
        let response = &messages[method.output_type()];
        assert!(has(response, "next_page_token", Type::String), "{}", method.name());
        assert_eq!(response.field[0].label(), Label::Repeated, "{}", method.name());
        assert!(!method.server_streaming(), "{}", method.name());
    }
}

#[test]
fn watches_can_be_resumed() {
    let messages = own_messages();
    for method in own_methods().iter().filter(|method| method.name().starts_with("Watch")) {
        let request = &messages[method.input_type()];
        assert!(has(request, "filter", Type::String) && has(request, "resume_token", Type::String));
        let response = &messages[method.output_type()];
        assert!(has(response, "resume_token", Type::String), "{}", method.name());
        let types: Vec<&str> =
            response.enum_type[0].value.iter().map(|value| value.name()).collect();
        assert_eq!(
            types[1..],
            ["TYPE_ADDED", "TYPE_CHANGED", "TYPE_DELETED", "TYPE_SYNCED", "TYPE_HEARTBEAT"]
        );
    }
}

#[test]
fn hot_messages_use_one_byte_tags() {
    let messages = own_messages();
    for name in ["AcquireVmRequest", "AcquireVmResponse", "ReleaseVmRequest", "Lease", "Timing"] {
        let message = &messages[&format!(".hearth.v1.{name}")];
        assert!(message.field.iter().all(|field| field.number() < 16), "{name}");
    }
    // Of a VM, what an acquire sets.
    let rare = ["snapshots", "artifact", "preserved", "failure"];
    for field in &messages[".hearth.v1.Vm"].field {
        assert!(field.number() < 16 || rare.contains(&field.name()), "Vm.{}", field.name());
    }
}
