//! A rollback: afterwards the template is at one generation or at the next, whole, and what is pinned is
//! what is kept. Its pool keeps nothing warm, so that nothing else goes on meanwhile.

use std::collections::BTreeSet;

use hearth_proto::convert::duration_to_wire;
use hearth_proto::google::longrunning::operation::Result as Ended;
use hearth_proto::google::longrunning::{Operation, WaitOperationRequest};
use hearth_proto::v1;
use hearth_proto::v1::template::State;
use tonic::Status;

use crate::driver::Scene;
use crate::handoff::{PATIENCE, settled};
use crate::host::{BLOCKING, Hearth, Host, WORKER};
use crate::{Answer, Outcome, check};

const ID: &str = "cut";
const TEMPLATE: &str = "templates/cut";
/// As many as are kept, so that each rollback lets go of one.
const KEPT: i64 = 4;

pub(crate) struct Rollback {
    /// The number of the current generation.
    current: i64,
}

impl Scene for Rollback {
    const NAME: &'static str = "rollback";
    const THREADS: &'static [&'static str] = &[WORKER, BLOCKING];
    const HALLMARKS: &'static [&'static str] = &["rename", "fsync", "write"];

    async fn begin(_: &Host, hearth: &Hearth) -> Answer<Self> {
        let mut templates = hearth.client.templates.clone();
        let default = v1::GetTemplateRequest { name: "templates/default".to_owned() };
        let default = templates.get_template(default).await?.into_inner();
        let recipe = v1::Template { name: TEMPLATE.to_owned(), ..default };
        let create = v1::CreateTemplateRequest {
            template_id: ID.to_owned(),
            template: Some(v1::Template { etag: String::new(), ..recipe.clone() }),
            ..Default::default()
        };
        ended(hearth, templates.create_template(create).await?.into_inner()).await?;
        let pool = v1::Pool {
            template: TEMPLATE.to_owned(),
            sizing: Some(v1::Sizing {
                mode: Some(v1::sizing::Mode::Fixed(v1::sizing::Fixed { depth: 0 })),
            }),
            ..Default::default()
        };
        let pool = v1::CreatePoolRequest {
            pool_id: ID.to_owned(),
            pool: Some(pool),
            ..Default::default()
        };
        hearth.client.pools.clone().create_pool(pool).await?;
        let paths = vec!["warm_up".to_owned()];
        let update = v1::UpdateTemplateRequest {
            template: Some(v1::Template { etag: String::new(), ..recipe }),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..Default::default()
        };
        ended(hearth, templates.update_template(update).await?.into_inner()).await?;
        while generations(hearth).await?.len() < KEPT as usize {
            roll_back(hearth).await?;
        }
        settled(hearth, 0).await?;
        Ok(Self { current: KEPT })
    }

    async fn act(&mut self, _: &Host, hearth: &Hearth) -> Result<(), Status> {
        roll_back(hearth).await.map(drop)
    }

    async fn look(&mut self, host: &Host, hearth: &Hearth) -> Answer<bool> {
        let kept = generations(hearth).await?;
        let numbers: Vec<_> = kept.iter().map(|it| it.generation).collect();
        let newest = numbers.first().copied().unwrap_or(0);
        let is_done = newest == self.current + 1;
        check(is_done || newest == self.current, || format!("{numbers:?}, was {}", self.current))?;
        let in_order: Vec<_> = (0..KEPT).map(|back| newest - back).collect();
        check(numbers == in_order, || format!("{numbers:?}"))?;
        let is_whole = |it: &v1::Template| it.state() == State::Ready && it.snapshot.is_some();
        check(kept.iter().all(is_whole), || format!("{kept:?}"))?;
        let pins: BTreeSet<_> = numbers.iter().map(|it| format!("template:{ID}@{it}")).collect();
        let pinned = pinned(host)?;
        check(pinned == pins, || format!("pinned: {pinned:?}, kept: {numbers:?}"))?;
        // Its two, and that of the default template.
        check(host.snapshots() == 3, || format!("{} snapshots", host.snapshots()))?;
        self.current = newest;
        // And VMs are restored from it.
        let request = v1::AcquireVmRequest {
            pool: format!("pools/{ID}"),
            overflow: v1::pool::Overflow::ColdOnly.into(),
            ..Default::default()
        };
        let vm = hearth.client.acquire(request, PATIENCE).await?.vm.ok_or("no vm")?;
        check(vm.template_generation == newest, || format!("{vm:?}, not of {newest}"))?;
        hearth.client.release(&vm).await?;
        settled(hearth, 0).await?;
        Ok(is_done)
    }
}

/// Waits until what was begun is done.
async fn ended(hearth: &Hearth, begun: Operation) -> Outcome {
    let timeout = Some(duration_to_wire(PATIENCE));
    let wait = WaitOperationRequest { name: begun.name, timeout };
    let done = hearth.client.operations.clone().wait_operation(wait).await?.into_inner();
    check(matches!(done.result, Some(Ended::Response(_))), || format!("{done:?}"))
}

async fn roll_back(hearth: &Hearth) -> Result<v1::Template, Status> {
    let request = v1::RollbackTemplateRequest { name: TEMPLATE.to_owned(), ..Default::default() };
    Ok(hearth.client.templates.clone().rollback_template(request).await?.into_inner())
}

async fn generations(hearth: &Hearth) -> Result<Vec<v1::Template>, Status> {
    let request = v1::ListGenerationsRequest { name: TEMPLATE.to_owned(), ..Default::default() };
    let listed = hearth.client.templates.clone().list_generations(request).await?;
    Ok(listed.into_inner().generations)
}

/// Under which names snapshots are pinned, by their records on disk.
fn pinned(host: &Host) -> Answer<BTreeSet<String>> {
    let mut pinned = BTreeSet::new();
    for entry in std::fs::read_dir(host.path("state/snapshots"))? {
        let record = std::fs::read(entry?.path().join("snapshot.json"))?;
        let record: serde_json::Value = serde_json::from_slice(&record)?;
        let pins = record["pins"].as_array().into_iter().flatten();
        let of_it = pins.filter_map(|pin| pin.as_str()).filter(|pin| pin.contains(":cut@"));
        pinned.extend(of_it.map(str::to_owned));
    }
    Ok(pinned)
}
