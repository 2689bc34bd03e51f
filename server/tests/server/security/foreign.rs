//! A tenant that tries to reach another's VM through every text of every request.

use hearth_proto::google::longrunning::GetOperationRequest;
use hearth_proto::v1;

use super::site::{BOBS, Site, Who, make_artifact, make_snapshot, make_vm};
use super::wire;

#[tokio::test]
async fn no_text_of_any_request_reaches_what_is_anothers() {
    let site = Site::open().await;
    let channel = site.channel().await;
    let (alice, bob) = (site.client(Who::Alice).await, site.client(Who::Bob).await);
    let (frozen, artifact, operation) = make_artifact(&bob).await;
    let snapshot = make_snapshot(&bob).await;
    let snapshotted = snapshot.name.rsplit_once("/snapshots/").unwrap().0.to_owned();
    let id = |name: &str| name.split_once('/').unwrap().1.to_owned();
    let look = async || {
        let (mut vms, mut artifacts) = (bob.vms.clone(), bob.artifacts.clone());
        let mut seen = Vec::new();
        for name in [&frozen.name, &snapshotted] {
            let vm = vms.get_vm(v1::GetVmRequest { name: name.clone() }).await;
            seen.push(format!("{:?}", vm.unwrap().into_inner()));
        }
        let got = vms.get_snapshot(v1::GetSnapshotRequest { name: snapshot.name.clone() }).await;
        seen.push(format!("{:?}", got.unwrap().into_inner()));
        let got =
            artifacts.get_artifact(v1::GetArtifactRequest { name: artifact.name.clone() }).await;
        seen.push(format!("{:?}", got.unwrap().into_inner()));
        let request = GetOperationRequest { name: operation.name.clone() };
        let got = bob.operations.clone().get_operation(request).await;
        seen.push(format!("{:?}", got.unwrap().into_inner()));
        seen
    };
    let before = look().await;
    let theirs = [
        frozen.name.clone(),
        id(&frozen.name),
        frozen.uid.clone(),
        snapshotted.clone(),
        id(&snapshotted),
        snapshot.name.clone(),
        snapshot.uid.clone(),
        artifact.name.clone(),
        id(&artifact.name),
        artifact.uid.clone(),
        artifact.reference.clone(),
        operation.name.clone(),
        id(&operation.name),
        format!("tenant = {BOBS}"),
        format!("vm = {}", frozen.name),
        BOBS.to_owned(),
        format!("../{}", frozen.name),
        format!("vms/x/../{}", id(&frozen.name)),
        "pools/hidden".to_owned(),
    ];
    let mut tries = 0;
    for method in wire::methods(&channel).await {
        let mine = make_vm(&alice).await;
        for text in &method.texts {
            for value in &theirs {
                // Alone, and beside what makes the request good otherwise.
                let mut others = Vec::new();
                for (path, value) in [
                    ("name", mine.name.as_str()),
                    ("open.name", mine.name.as_str()),
                    ("parent", mine.name.as_str()),
                    ("pool", "pools/default"),
                    ("request.pool", "pools/default"),
                    ("new_vm_id", "mine-now"),
                    ("spec.restore_from.snapshot_id", "s"),
                ] {
                    let other = method.text(path).filter(|it| it.path != text.path);
                    others.extend(other.map(|it| (it, value)));
                }
                for beside in [Vec::new(), others] {
                    let texts: Vec<_> =
                        [(text, value.as_str())].into_iter().chain(beside).collect();
                    let request = wire::encode(&texts);
                    let answer = wire::call(&channel, Who::Alice, &method.path, request).await;
                    tries += 1;
                    let Ok(answer) = answer else { continue };
                    let shown = String::from_utf8_lossy(&answer);
                    let tried = format!("{} with {} = {value}", method.path, text.path);
                    assert!(!shown.contains(BOBS) || value.contains(BOBS), "{tried}: {shown:?}");
                    for secret in [&frozen.uid, &artifact.uid, &snapshot.uid] {
                        let said = value.contains(secret.as_str());
                        assert!(!shown.contains(secret.as_str()) || said, "{tried}: {shown:?}");
                    }
                }
            }
        }
        site.release_all_of("alice").await;
    }
    println!("{tries} tries");
    assert!(tries > 2000, "{tries}");
    assert_eq!(look().await, before, "nothing of it has changed");
    site.server.stop().await;
}
