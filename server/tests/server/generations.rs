//! Generations of templates over the wire: listed, gone back to, and built again on a changed host.

use std::path::Path;
use std::time::Duration;

use hearth_proto::client::operation_response;
use hearth_proto::google::longrunning::ListOperationsRequest;
use hearth_proto::v1;
use hearth_proto::v1::template::State;
use hearth_server::config::Config;
use tonic::{Code, Status};

use crate::harness::{
    Server, eventually, from, reason, server, server_with, starting_server_in, violated,
};

const WAIT: Duration = Duration::from_secs(30);

fn names(templates: &[v1::Template]) -> Vec<&str> {
    templates.iter().map(|it| it.name.as_str()).collect()
}

impl Server {
    async fn template(&self, name: &str) -> Result<v1::Template, Status> {
        let request = v1::GetTemplateRequest { name: name.to_owned() };
        self.client.templates.clone().get_template(request).await.map(tonic::Response::into_inner)
    }

    /// Builds the default template's next generation, well or badly.
    async fn rebuild(&self, line: &str) -> Result<v1::Template, Status> {
        let step = v1::warm_up::Step::Request(line.to_owned());
        let changed = v1::Template {
            name: "templates/default".to_owned(),
            warm_up: vec![v1::WarmUp { step: Some(step), ..Default::default() }],
            ..Default::default()
        };
        let update = v1::UpdateTemplateRequest { template: Some(changed), ..Default::default() };
        let begun = self.client.templates.clone().update_template(update).await?.into_inner();
        operation_response(&self.client.wait_operation(&begun.name, WAIT).await?)
    }

    async fn list_generations(
        &self,
        change: impl FnOnce(&mut v1::ListGenerationsRequest),
    ) -> Result<v1::ListGenerationsResponse, Status> {
        let mut request = v1::ListGenerationsRequest {
            name: "templates/default".to_owned(),
            ..Default::default()
        };
        change(&mut request);
        let listed = self.client.templates.clone().list_generations(request).await;
        listed.map(tonic::Response::into_inner)
    }

    async fn roll_back(
        &self,
        request: v1::RollbackTemplateRequest,
    ) -> Result<v1::Template, Status> {
        let rolled_back = self.client.templates.clone().rollback_template(request).await;
        rolled_back.map(tonic::Response::into_inner)
    }
}

fn back(generation: i64) -> v1::RollbackTemplateRequest {
    let name = "templates/default".to_owned();
    v1::RollbackTemplateRequest { name, generation, ..Default::default() }
}

#[tokio::test]
async fn generations_are_listed_in_pages_the_newest_first() {
    let server = server().await;
    server.rebuild("name second").await.unwrap();
    server.rebuild("no such request").await.unwrap_err();
    server.rebuild("name fourth").await.unwrap();
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = server.list_generations(|it| {
            it.page_size = 3;
            it.page_token = page_token;
        });
        let page = page.await.unwrap();
        all.extend(page.generations);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    let expected = [4, 3, 2, 1].map(|it| format!("templates/default@{it}"));
    assert_eq!(names(&all), expected);
    let failed = all[1].failure.as_ref().unwrap();
    assert_eq!((all[1].state(), failed.reason.as_str()), (State::Failed, "BUILD_FAILED"));
    assert!(failed.time.is_some() && all[1].snapshot.is_none());
    assert!(all.iter().all(|it| it.create_time == all[0].create_time && it.update_time.is_some()));
    assert!(all[0].create_time.is_some());

    let ready = server.list_generations(|it| it.filter = "state = READY".to_owned()).await.unwrap();
    assert_eq!(names(&ready.generations), [&*expected[0], &*expected[2], &*expected[3]]);
    for (request, refused) in [("provider = memory", "filter"), ("size = 1", "filter")] {
        let error = server.list_generations(|it| it.filter = request.to_owned()).await.unwrap_err();
        assert_eq!(violated(&error), [refused]);
    }
    let absent = server.list_generations(|it| it.name = "templates/absent".to_owned()).await;
    assert_eq!(reason(&absent.unwrap_err(), Code::NotFound), "TEMPLATE_NOT_FOUND");
    let second = server.template("templates/default@2").await.unwrap();
    // What pins its snapshot changes as pools go over.
    assert_eq!((&second.name, second.generation), (&all[2].name, 2), "each can be read");
    assert_eq!(server.template("templates/default").await.unwrap().name, "templates/default");
    server.stop().await;
}

#[tokio::test]
async fn a_rollback_is_made_once_and_refused_by_reason() {
    let server = server().await;
    let none = server.roll_back(back(0)).await.unwrap_err();
    assert_eq!(reason(&none, Code::NotFound), "TEMPLATE_NOT_FOUND");
    let second = server.rebuild("name second").await.unwrap();
    server.rebuild("no such request").await.unwrap_err();
    let failed = server.roll_back(back(3)).await.unwrap_err();
    assert_eq!(reason(&failed, Code::FailedPrecondition), "TEMPLATE_NOT_READY");
    let absent = server.roll_back(back(9)).await.unwrap_err();
    assert_eq!(reason(&absent, Code::NotFound), "TEMPLATE_NOT_FOUND");
    for generation in [-1, 2] {
        assert_eq!(
            violated(&server.roll_back(back(generation)).await.unwrap_err()),
            ["generation"]
        );
    }
    let stale = v1::RollbackTemplateRequest { etag: "old".to_owned(), ..back(1) };
    let stale = server.roll_back(stale).await.unwrap_err();
    assert_eq!(reason(&stale, Code::Aborted), "ETAG_MISMATCH");

    let request = v1::RollbackTemplateRequest {
        etag: second.etag,
        request_id: "6f1c2a54-58d1-4d0d-9f5f-3b7a1f0e9a11".to_owned(),
        ..back(0)
    };
    let made = server.roll_back(request.clone()).await.unwrap();
    assert_eq!((made.name.as_str(), made.generation), ("templates/default", 4));
    let first = server.template("templates/default@1").await.unwrap();
    let snapshot = |it: &v1::Template| it.snapshot.as_ref().unwrap().uid.clone();
    assert_eq!((snapshot(&made), &made.warm_up), (snapshot(&first), &first.warm_up));
    // The same request again is the same answer, and nothing else happens.
    assert_eq!(server.roll_back(request).await.unwrap(), made);
    assert_eq!(server.template("templates/default").await.unwrap().generation, 4);
    eventually("the pool has gone over", async || {
        let status = server.status("default").await;
        (status.generation, status.warm, status.outdated) == (4, 4, 0)
    })
    .await;
    let vm = server.acquire(from("default")).await.unwrap().vm.unwrap();
    assert_eq!(vm.template_generation, 4);
    server.stop().await;
}

/// Has every snapshot say that it was made on another architecture.
fn change_host(state: &Path) {
    for entry in std::fs::read_dir(state.join("snapshots")).unwrap() {
        let record = entry.unwrap().path().join("snapshot.json");
        let mut json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        json["made_with"]["architecture"] = "pdp11".into();
        std::fs::write(record, json.to_string()).unwrap();
    }
}

#[tokio::test]
async fn on_a_changed_host_what_was_built_is_built_again_and_what_was_imported_says_how_to_mend_it()
{
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let durable = |config: &mut Config| {
        config.state = Some(state.clone());
        config.providers.get_mut("memory").unwrap().durable = Some(true);
    };
    let first = server_with(durable).await;
    first.until_warm("default", 4).await;
    let made = first.template("templates/default").await.unwrap();
    let source = v1::SnapshotRef {
        vm: Some(v1::snapshot_ref::Vm::Uid(made.snapshot.as_ref().unwrap().vm_uid.clone())),
        snapshot_id: "generation-1".to_owned(),
        ..Default::default()
    };
    let import = v1::ImportTemplateRequest {
        template_id: "imported".to_owned(),
        source: Some(source),
        ..Default::default()
    };
    first.client.templates.clone().import_template(import).await.unwrap();
    first.make_pool("imported", 0, |pool| pool.template = "templates/imported".to_owned()).await;
    first.stop_leaving_vms().await;
    change_host(&state);

    let second = starting_server_in(dir, durable).await;
    second.hearth.begin(false).await.unwrap();
    eventually("it was built again", async || {
        let now = second.template("templates/default").await.unwrap();
        assert_ne!(now.state(), State::Failed, "{now:?}");
        assert!(now.state() == State::Building || now.generation == 2, "{now:?}");
        now.state() == State::Ready
    })
    .await;
    let mut operations = second.client.operations.clone();
    let listed = operations.list_operations(ListOperationsRequest::default()).await;
    let listed = listed.unwrap().into_inner().operations;
    let is_rebuild = |name: &str| name.starts_with("operations/rebuildtemplate-");
    assert_eq!(listed.iter().filter(|it| it.done && is_rebuild(&it.name)).count(), 1);
    let now = second.template("templates/default").await.unwrap();
    assert_eq!((now.create_time, &now.spec), (made.create_time, &made.spec));
    eventually("the pool has gone over", async || {
        let status = second.status("default").await;
        (status.generation, status.warm, status.outdated) == (2, 4, 0)
    })
    .await;

    let imported = second.template("templates/imported").await.unwrap();
    let told = imported.failure.unwrap().message;
    assert_eq!(v1::template::State::try_from(imported.state).unwrap(), State::Failed);
    let here = std::env::consts::ARCH;
    for part in ["pdp11", here, "import a snapshot that was made on this host"] {
        assert!(told.contains(part), "{told}");
    }
    let refused = second.acquire(from("imported")).await.unwrap_err();
    assert_eq!(reason(&refused, Code::FailedPrecondition), "TEMPLATE_NOT_READY");
    second.stop().await;
}
