//! Every method, for everybody, on what is its own, another's, and nobody's. Methods are those that
//! the server serves; what each should take is said here anew.

use std::collections::BTreeSet;

use hearth_proto::{HearthClient, StatusDetails, v1};
use tonic::{Code, Status};

use super::site::{Site, Who, make_artifact, make_snapshot, make_vm};
use super::wire::{self, Method};

/// What operators do.
const MANAGE: [&str; 17] = [
    "hearth.v1.PoolService/CreatePool",
    "hearth.v1.PoolService/UpdatePool",
    "hearth.v1.PoolService/DeletePool",
    "hearth.v1.PoolService/PrewarmPool",
    "hearth.v1.PoolService/CancelPrewarm",
    "hearth.v1.PoolService/DrainPool",
    "hearth.v1.TemplateService/CreateTemplate",
    "hearth.v1.TemplateService/UpdateTemplate",
    "hearth.v1.TemplateService/ImportTemplate",
    "hearth.v1.TemplateService/DeleteTemplate",
    "hearth.v1.TemplateService/RollbackTemplate",
    "hearth.v1.NodeService/Drain",
    "hearth.v1.NodeService/Undrain",
    "hearth.v1.NodeService/SetLogLevel",
    "hearth.v1.TemplateService/GetTemplate",
    "hearth.v1.TemplateService/ListTemplates",
    "hearth.v1.TemplateService/ListGenerations",
];
/// Of these, what viewers see.
const INSPECT: [&str; 3] = [MANAGE[14], MANAGE[15], MANAGE[16]];
/// What is a tenant's own business, though it changes nothing.
const INTIMATE: [&str; 2] =
    ["hearth.v1.VmService/ReadConsole", "hearth.v1.ArtifactService/ExportArtifact"];
/// What everybody may that is known, whatever its role.
const KNOWN: [&str; 2] =
    ["grpc.health.v1.Health/Watch", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"];
/// What everybody may.
const OPEN: &str = "grpc.health.v1.Health/Check";

fn may(who: Who, method: &Method) -> bool {
    let path = &*method.path;
    let is_read = method.only_reads && !INTIMATE.contains(&path)
        || path.starts_with("google.longrunning.")
            && !path.ends_with("/DeleteOperation")
            && !path.ends_with("/CancelOperation");
    match who {
        _ if path == OPEN => true,
        Who::Nobody | Who::Stranger => false,
        _ if KNOWN.contains(&path) => true,
        Who::Root => true,
        Who::Eyes => INSPECT.contains(&path) || is_read && !MANAGE.contains(&path),
        Who::Alice | Who::Bob => !MANAGE.contains(&path),
    }
}

/// What a method is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Vm,
    Snapshot,
    /// The VM of a snapshot, by its id, that a new VM is to begin from.
    Origin,
    Artifact,
    Operation,
    Pool,
    Template,
}

/// The field that says what a method is about; `None` for those about nothing or everything.
fn subject(method: &Method) -> Option<(&'static str, Kind)> {
    let (service, name) = method.path.split_once('/').unwrap();
    let has = |path: &str| method.text(path).is_some();
    match (service, name) {
        ("hearth.v1.VmService", "CreateVm") => Some(("spec.restore_from.vm_id", Kind::Origin)),
        ("hearth.v1.VmService", "AcquireVm") => Some(("pool", Kind::Pool)),
        ("hearth.v1.VmService", "ResumeVm") => Some(("artifact", Kind::Artifact)),
        ("hearth.v1.VmService", "GetSnapshot" | "DeleteSnapshot") => Some(("name", Kind::Snapshot)),
        ("hearth.v1.VmService", "ConnectVm") => Some(("open.name", Kind::Vm)),
        ("hearth.v1.VmService", _) if has("parent") => Some(("parent", Kind::Vm)),
        ("hearth.v1.VmService", _) if has("name") => Some(("name", Kind::Vm)),
        ("hearth.v1.PoolService", _) if has("name") => Some(("name", Kind::Pool)),
        ("hearth.v1.PoolService", "UpdatePool") => Some(("pool.name", Kind::Pool)),
        ("hearth.v1.TemplateService", "UpdateTemplate") => Some(("template.name", Kind::Template)),
        ("hearth.v1.TemplateService", _) if has("name") => Some(("name", Kind::Template)),
        ("hearth.v1.ArtifactService", _) if has("name") => Some(("name", Kind::Artifact)),
        ("google.longrunning.Operations", "ListOperations") => None,
        ("google.longrunning.Operations", _) => Some(("name", Kind::Operation)),
        _ => None,
    }
}

/// Something new of `owner`'s.
async fn make(owner: &HearthClient, kind: Kind) -> String {
    match kind {
        Kind::Vm => make_vm(owner).await.name,
        Kind::Snapshot => make_snapshot(owner).await.name,
        Kind::Origin => {
            let name = make_snapshot(owner).await.name;
            name.split('/').nth(1).unwrap().to_owned()
        }
        Kind::Artifact => make_artifact(owner).await.1.name,
        Kind::Operation => make_artifact(owner).await.2.name,
        Kind::Pool => "pools/default".to_owned(),
        Kind::Template => "templates/default".to_owned(),
    }
}

const fn absent(kind: Kind) -> &'static str {
    match kind {
        Kind::Vm => "vms/absent",
        Kind::Snapshot => "vms/absent/snapshots/s",
        Kind::Origin => "absent",
        Kind::Artifact => "artifacts/absent",
        Kind::Operation => "operations/absent",
        Kind::Pool => "pools/absent",
        Kind::Template => "templates/absent",
    }
}

fn request(method: &Method, field: &str, value: &str) -> Vec<u8> {
    let text = method.text(field).unwrap_or_else(|| panic!("{}: no {field}", method.path));
    let mut texts = vec![(text, value)];
    for (also, value) in [("spec.restore_from.snapshot_id", "s"), ("new_vm_id", "renamed")] {
        texts.extend(method.text(also).map(|text| (text, value)));
    }
    wire::encode(&texts)
}

/// What a refusal is, without the names in it.
fn kind_of(status: &Status) -> (Code, Option<String>) {
    (status.code(), StatusDetails::of(status).reason)
}

#[tokio::test]
async fn everybody_may_what_its_role_says_on_what_is_its_own() {
    let site = Site::open().await;
    let channel = site.channel().await;
    let (alice, bob, root) =
        (site.client(Who::Alice).await, site.client(Who::Bob).await, site.client(Who::Root).await);
    let mut cells = 0;
    for method in wire::methods(&channel).await {
        // Whoever is not known too often on one connection is not heard there any more.
        let channel = site.channel().await;
        for who in Who::EVERYBODY {
            let subject = subject(&method);
            let targets = match subject {
                None => vec![("nothing", Vec::new())],
                Some((field, kind)) => {
                    let mut targets = vec![("absent", request(&method, field, absent(kind)))];
                    // Nothing is changed for good that later cells need.
                    let is_shared = matches!(kind, Kind::Pool | Kind::Template);
                    if !is_shared
                        || method.only_reads
                        || !may(who, &method)
                        || kind == Kind::Pool && method.path.ends_with("/AcquireVm")
                    {
                        let own = if who == Who::Bob { &bob } else { &alice };
                        let foreign = if who == Who::Bob { &alice } else { &bob };
                        let own = if who == Who::Root { &root } else { own };
                        let name = make(own, kind).await;
                        targets.push(("own", request(&method, field, &name)));
                        let name = match kind {
                            Kind::Pool => "pools/hidden".to_owned(),
                            kind => make(foreign, kind).await,
                        };
                        targets.push(("foreign", request(&method, field, &name)));
                    }
                    targets
                }
            };
            let mut missing = None;
            for (target, request) in targets {
                cells += 1;
                let cell = format!("{} of {who:?} on {target}", method.path);
                let answer = wire::call(&channel, who, &method.path, request).await;
                let refused = answer.as_ref().err().map(kind_of);
                let code = refused.as_ref().map(|(code, _)| *code);
                if !may(who, &method) {
                    let is_known = !matches!(who, Who::Nobody | Who::Stranger);
                    let expected = match is_known {
                        true => (Code::PermissionDenied, Some("PERMISSION_DENIED".to_owned())),
                        false => (Code::Unauthenticated, Some("UNAUTHENTICATED".to_owned())),
                    };
                    assert_eq!(refused, Some(expected), "{cell}: {answer:?}");
                    continue;
                }
                let is_denied =
                    matches!(code, Some(Code::PermissionDenied | Code::Unauthenticated));
                assert!(!is_denied, "{cell}: {answer:?}");
                let sees_it = match target {
                    "foreign" => matches!(who, Who::Root | Who::Eyes),
                    target => target == "own",
                };
                let is_built = code != Some(Code::Unimplemented);
                match (target, sees_it) {
                    _ if !is_built || target == "nothing" => {}
                    ("absent", _) => missing = refused,
                    (_, true) => assert_ne!(code, Some(Code::NotFound), "{cell}: {answer:?}"),
                    // As if it were not there, and nothing else.
                    (_, false) => {
                        assert_eq!(refused, missing, "{cell}: {answer:?}");
                        let is_released = method.path.ends_with("/ReleaseVm") && code.is_none();
                        assert!(code == Some(Code::NotFound) || is_released, "{cell}: {answer:?}");
                    }
                }
            }
            if method.path.ends_with("/Drain") {
                root.node.clone().undrain(v1::UndrainRequest::default()).await.unwrap();
            }
            site.release_all().await;
        }
    }
    println!("{cells} cells");
    assert!(cells > 500, "{cells}");
    site.server.stop().await;
}

#[tokio::test]
async fn what_is_said_here_is_of_methods_that_there_are() {
    let site = Site::open().await;
    let methods = wire::methods(&site.channel().await).await;
    let served: BTreeSet<_> = methods.iter().map(|it| &*it.path).collect();
    let said = MANAGE.iter().chain(&INTIMATE).chain(&KNOWN).chain([&OPEN]);
    for path in said {
        assert!(served.contains(path), "{path}");
    }
    // A name that no line above knows of is a hole in the matrix.
    for method in &methods {
        let names = ["name", "parent", "artifact", "open.name"];
        let has_name = names.iter().any(|name| method.text(name).is_some());
        let is_list = method.path.ends_with("/ListOperations");
        let is_ours = !method.path.starts_with("grpc.");
        assert_eq!(
            has_name && is_ours && !is_list,
            subject(method).is_some_and(|(field, _)| names.contains(&field)),
            "{}",
            method.path
        );
    }
    site.server.stop().await;
}
