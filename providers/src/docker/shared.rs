//! The engine's client, and what our tasks on it share.
//!
//! Everything here is async and runs on the backend's own runtime. Requests have a connection
//! each, so that an engine that was restarted is found again by the next one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerStateStatusEnum as EngineStatus;
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    InspectContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, StartContainerOptions,
};
use dashmap::DashMap;
use futures_util::StreamExt as _;
use tokio::sync::mpsc::Sender;

use super::blueprint::Blueprint;
use super::config::DockerConfig;
use super::fault::Fault;
use super::labels;
use super::machine::Machine;
use super::sweep::Sweep;
use crate::env::Env;
use crate::id::Uid;

pub(super) type Answer<T> = Result<T, Fault>;

/// How often a commit is tried that another image's removal gets in the way of, and how long it
/// waits before the second time; twice as long before each further one.
const COMMIT_TRIES: u32 = 6;
const COMMIT_PAUSE: Duration = Duration::from_millis(10);
/// How often is looked whether what another removes is gone.
const POLL: Duration = Duration::from_millis(20);

pub(super) struct Shared {
    pub(super) client: Docker,
    pub(super) config: DockerConfig,
    /// The state directory: what has no directory in it is not recorded.
    pub(super) state: PathBuf,
    pub(super) env: Arc<dyn Env>,
    pub(super) machines: DashMap<Uid, Weak<Machine>>,
    pub(super) sweep: Arc<Sweep>,
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// Made and never started.
    Created,
    Running,
    Paused,
    /// Its process has ended.
    Ended,
}

/// What the engine says of a container.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) stand: Stand,
    pub(super) pid: i64,
    pub(super) exit_code: Option<i64>,
    pub(super) oom_killed: bool,
    /// Why the engine could not run it.
    pub(super) error: String,
}

impl Look {
    /// That it has ended, and no more.
    pub(super) const fn ended() -> Self {
        Self {
            stand: Stand::Ended,
            pid: 0,
            exit_code: None,
            oom_killed: false,
            error: String::new(),
        }
    }
}

impl Shared {
    /// Waits for an answer, bounded.
    pub(super) async fn ask<T>(
        &self,
        timeout: Duration,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Answer<T> {
        match tokio::time::timeout(timeout, request).await {
            Ok(answer) => answer.map_err(Fault::from),
            Err(_) => Err(Fault::Late(timeout)),
        }
    }

    /// As [`Self::ask`], until the machine is doomed.
    pub(super) async fn ask_for<T>(
        &self,
        machine: &Machine,
        timeout: Duration,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Answer<T> {
        let doomed = machine.doomed();
        tokio::select! {
            answer = self.ask(timeout, request) => answer,
            () = doomed => Err(Fault::Interrupted),
        }
    }

    /// Makes a container and answers its id.
    pub(super) async fn create(&self, uid: Uid, blueprint: &Blueprint) -> Answer<String> {
        let options = CreateContainerOptionsBuilder::new().name(&labels::container(uid)).build();
        let request = blueprint.request(uid, &self.config);
        let create = self.client.create_container(Some(options), request);
        Ok(self.ask(self.config.start_timeout, create).await?.id)
    }

    pub(super) async fn start(&self, machine: &Machine) -> Answer<()> {
        let start = self.client.start_container(machine.container(), None::<StartContainerOptions>);
        self.ask_for(machine, self.config.start_timeout, start).await
    }

    pub(super) async fn pause(&self, machine: &Machine) -> Answer<()> {
        let pause = self.client.pause_container(machine.container());
        self.ask_for(machine, self.config.command_timeout, pause).await
    }

    pub(super) async fn unpause(&self, machine: &Machine) -> Answer<()> {
        let unpause = self.client.unpause_container(machine.container());
        self.ask_for(machine, self.config.command_timeout, unpause).await
    }

    /// Commits a container to the image of `snapshot`; answers the image's id and how many bytes it
    /// has with those below it.
    ///
    /// What another image's removal takes with it is made anew: also the image itself, which has no
    /// name for a moment after it was made, and is then taken for a leftover. So an image counts
    /// when it was seen after its commit.
    pub(super) async fn commit(&self, machine: &Machine, snapshot: Uid) -> Answer<(String, u64)> {
        let mut pause = COMMIT_PAUSE;
        for _ in 1..COMMIT_TRIES {
            match self.commit_once(machine, snapshot).await {
                Err(fault) if fault.is_lost_image() => {
                    tracing::debug!(uid = %machine.uid, ?fault, "a commit is tried again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                committed => return committed,
            }
        }
        self.commit_once(machine, snapshot).await
    }

    async fn commit_once(&self, machine: &Machine, snapshot: Uid) -> Answer<(String, u64)> {
        let options = CommitContainerOptionsBuilder::new()
            .container(machine.container())
            .repo(labels::REPOSITORY)
            .tag(&snapshot.to_string())
            // Said always: engines differ in what they take silence for.
            .pause(true)
            .changes(&labels::changes_for_commit(&self.config.state))
            .build();
        let config = bollard::models::ContainerConfig::default();
        let commit = self.client.commit_container(options, config);
        let id = self.ask_for(machine, self.config.snapshot_timeout, commit).await?.id;
        let size_bytes = self.image_size_bytes(&labels::image(snapshot)).await?;
        Ok((id, size_bytes))
    }

    pub(super) async fn look(&self, container: &str) -> Answer<Look> {
        let inspect = self.client.inspect_container(container, None::<InspectContainerOptions>);
        let state = self.ask(self.config.command_timeout, inspect).await?.state.unwrap_or_default();
        Ok(Look {
            stand: match state.status {
                Some(EngineStatus::CREATED) => Stand::Created,
                Some(EngineStatus::RUNNING | EngineStatus::RESTARTING) => Stand::Running,
                Some(EngineStatus::PAUSED) => Stand::Paused,
                Some(
                    EngineStatus::STOPPING
                    | EngineStatus::REMOVING
                    | EngineStatus::EXITED
                    | EngineStatus::DEAD
                    | EngineStatus::EMPTY,
                )
                | None => Stand::Ended,
            },
            pid: state.pid.unwrap_or(0),
            exit_code: state.exit_code,
            oom_killed: state.oom_killed == Some(true),
            error: state.error.unwrap_or_default(),
        })
    }

    /// How many bytes a container has written to its disk.
    pub(super) async fn writable_bytes(&self, container: &str) -> Answer<u64> {
        let options = InspectContainerOptionsBuilder::new().size(true).build();
        let inspect = self.client.inspect_container(container, Some(options));
        let size = self.ask(self.config.command_timeout, inspect).await?.size_rw;
        Ok(size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0))
    }

    /// Sends what the engine saves of an image, piece by piece, for as long as somebody listens.
    pub(super) async fn save(&self, image: &str, pieces: Sender<Vec<u8>>) -> Answer<()> {
        let mut stream = std::pin::pin!(self.client.export_image(image));
        // The engine may gather the whole before it sends the first piece.
        let limit = self.config.snapshot_timeout;
        while let Some(piece) =
            tokio::time::timeout(limit, stream.next()).await.map_err(|_| Fault::Late(limit))?
        {
            if pieces.send(piece?.to_vec()).await.is_err() {
                return Err(Fault::Interrupted);
            }
        }
        Ok(())
    }

    /// How many bytes an image has, with those below it.
    pub(super) async fn image_size_bytes(&self, image: &str) -> Answer<u64> {
        let inspect = self.client.inspect_image(image);
        let size = self.ask(self.config.command_timeout, inspect).await?.size;
        Ok(size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0))
    }

    /// The engine is sure that it has no such image.
    pub(super) async fn has_no_image(&self, image: &str) -> bool {
        let inspected = self.ask(self.config.command_timeout, self.client.inspect_image(image));
        inspected.await.is_err_and(|fault| fault.is_absent())
    }

    /// The last lines that a container wrote.
    pub(super) async fn last_words(&self, container: &str) -> Answer<Vec<u8>> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("64").build();
        let mut stream = std::pin::pin!(self.client.logs(container, Some(options)));
        let read = async {
            let mut words = Vec::new();
            while let Some(piece) = stream.next().await {
                words.extend(piece?.into_bytes());
            }
            Ok(words)
        };
        self.ask(self.config.command_timeout, read).await
    }

    /// Ends a container and removes it with its volumes; one that is gone is none of our errors.
    /// One that somebody else is removing is waited for.
    pub(super) async fn remove(&self, container: &str) -> Answer<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let remove = self.client.remove_container(container, Some(options));
        let refused = match self.ask(self.config.remove_timeout, remove).await {
            Err(fault) if fault.is_absent() => return Ok(()),
            Err(fault @ Fault::Refused { .. }) => fault,
            removed => return removed,
        };
        let gone = async {
            loop {
                match self.look(container).await {
                    Err(fault) if fault.is_absent() => return Ok(()),
                    Ok(_) if refused.is_in_progress() => tokio::time::sleep(POLL).await,
                    _ => return Err(()),
                }
            }
        };
        match tokio::time::timeout(self.config.remove_timeout, gone).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(())) | Err(_) => Err(refused),
        }
    }

    /// Removes the tag of an image, and with the last one the image.
    pub(super) async fn remove_image(&self, image: &str) -> Answer<()> {
        let options = RemoveImageOptionsBuilder::new().force(false).noprune(false).build();
        let remove = self.client.remove_image(image, Some(options), None);
        match self.ask(self.config.remove_timeout, remove).await {
            Err(fault) if fault.is_absent() => Ok(()),
            removed => removed.map(drop),
        }
    }

    /// The container that is called after `uid` and carries our labels.
    pub(super) async fn find(&self, uid: Uid) -> Answer<Option<String>> {
        let name = labels::container(uid);
        let inspect = self.client.inspect_container(&name, None::<InspectContainerOptions>);
        match self.ask(self.config.command_timeout, inspect).await {
            Err(fault) if fault.is_absent() => Ok(None),
            Err(fault) => Err(fault),
            Ok(found) => {
                let carried = found.config.and_then(|config| config.labels).unwrap_or_default();
                let ours = labels::uid_of_container(&self.config.state, &carried, &[name]);
                Ok(found.id.filter(|_| ours == Some(uid)))
            }
        }
    }

    /// The live machine of `uid`.
    pub(super) fn machine(&self, uid: Uid) -> Option<Arc<Machine>> {
        self.machines.get(&uid)?.upgrade()
    }
}

/// A filter of the engine's: `key` is `value`.
pub(super) fn filter(pairs: &[(&str, String)]) -> HashMap<String, Vec<String>> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), vec![value.clone()])).collect()
}
