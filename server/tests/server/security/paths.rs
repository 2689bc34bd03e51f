//! Texts that are no ids, in every text of every request: what a path, a file system or a program could make
//! of them.

use std::collections::BTreeSet;
use std::path::Path;

use hearth_proto::v1;
use tonic::Code;

use super::site::{Site, Who, make_vm};
use super::wire;
use crate::harness::named;

/// Others that a file system could take for `id`, and what leads elsewhere.
fn tricks(id: &str) -> Vec<String> {
    let mut tricks = vec![
        id.to_uppercase(),
        format!("{id}."),
        format!("{id} "),
        format!("{id}\0"),
        format!("{id}%00"),
        format!("{id}\u{301}"),
        format!("{id}\u{200d}"),
        format!("{id}/"),
        format!("./{id}"),
        format!("x/../{id}"),
        format!("../{id}"),
        format!("..%2f{id}"),
        format!("%2e%2e/{id}"),
        format!("/{id}"),
        format!("{id}::$DATA"),
        "..".to_owned(),
        ".".to_owned(),
        "%61".to_owned(),
        "-a".to_owned(),
        "--help".to_owned(),
        "con.".to_owned(),
        "\u{ff41}".to_owned(),
        "ａ".repeat(85),
        "../".repeat(30) + "tmp/hearth-was-here",
    ];
    tricks.extend([64, 255, 256, 4096].map(|length| "a".repeat(length)));
    tricks
}

/// The names of everything below `dir`.
fn names(dir: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        into.insert(entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names(&entry.path(), into);
        }
    }
}

#[tokio::test]
async fn what_is_no_id_names_nothing_and_makes_nothing() {
    let site = Site::open().await;
    let channel = site.channel().await;
    let root = site.client(Who::Root).await;
    let request = |vm_id: &str| v1::AcquireVmRequest { vm_id: vm_id.to_owned(), ..named("") };
    let patience = std::time::Duration::from_secs(30);
    root.acquire(request("a"), patience).await.unwrap();
    for trick in tricks("a") {
        let name = format!("vms/{trick}");
        let got = root.vms.clone().get_vm(v1::GetVmRequest { name }).await;
        assert_eq!(got.unwrap_err().code(), Code::InvalidArgument, "{trick:?}");
        let made = root.acquire(request(&trick), patience).await;
        assert_eq!(made.unwrap_err().code(), Code::InvalidArgument, "{trick:?}");
    }
    let mut tries = 0;
    for method in wire::methods(&channel).await {
        // What changes the node's own state says nothing of names.
        let texts = method.texts.iter().filter(|text| {
            let field = text.path.rsplit('.').next().unwrap_or_default();
            field == "name" || field == "parent" || field.ends_with("_id") || field == "pool"
        });
        for text in texts {
            let mine = make_vm(&root).await;
            for trick in tricks("a") {
                let prefixed = format!("{}/{trick}", mine.name.split('/').next().unwrap());
                for value in [&trick, &prefixed] {
                    let request = wire::encode(&[(text, value)]);
                    let _ = wire::call(&channel, Who::Root, &method.path, request).await;
                    tries += 1;
                }
            }
            site.release_all().await;
        }
    }
    println!("{tries} tries");
    assert!(tries > 2000, "{tries}");
    let mut found = BTreeSet::new();
    names(site.dir(), &mut found);
    let is_ours = |name: &String| {
        name.len() <= 63
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
    };
    let strange: Vec<_> = found.iter().filter(|name| !is_ours(name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(!Path::new("/tmp/hearth-was-here").exists());
    site.server.stop().await;
}
