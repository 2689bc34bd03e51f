//! Hearing of deaths: one task follows the engine's events, looks at every container whenever it
//! has lost them, and through the engine's list now and then.
//!
//! Events only say where to look: they come late, twice, in other words from one engine to the
//! next, and not always after all. What they missed the list repairs.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, EventMessage};
use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use futures_util::StreamExt as _;

use super::fault::Fault;
use super::labels;
use super::machine::Machine;
use super::shared::{Answer, Look, Shared, Stand, filter};
use crate::id::Uid;
use crate::model::{CONSOLE_TAIL_BYTES, Failure};

/// How long to wait before the engine is asked again.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LAST_BACKOFF: Duration = Duration::from_secs(2);
/// How often the list is looked through.
const REPAIR_PERIOD: Duration = Duration::from_secs(5);
/// How many deaths are looked into at once.
const LOOKS_AT_ONCE: usize = 8;

/// Watches for the life of the backend.
pub(super) async fn run(shared: Arc<Shared>) {
    let (mut backoff, mut was_lost) = (FIRST_BACKOFF, false);
    loop {
        // Events since before the look: what dies between the two is seen by one of them.
        let since = shared.env.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match shared.look_at_all().await {
            Ok(()) => {
                // It may have been asked for things whose answers nobody heard.
                if was_lost {
                    shared.sweep.suspect();
                }
                let heard = tokio::select! {
                    heard = shared.follow_events(since) => heard,
                    repaired = shared.repair() => repaired,
                };
                if heard > 0 {
                    backoff = FIRST_BACKOFF;
                }
                tracing::debug!("the engine's events have ended");
            }
            Err(fault) => tracing::debug!(?fault, "the engine cannot be looked at"),
        }
        was_lost = true;
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(LAST_BACKOFF);
    }
}

impl Shared {
    /// Until the stream ends; answers how many events there were.
    async fn follow_events(&self, since: Duration) -> usize {
        let label = format!("{}={}", labels::STATE, self.config.state);
        let options = EventsOptionsBuilder::new()
            .since(&since.as_secs().to_string())
            .filters(&filter(&[("type", "container".to_owned()), ("label", label)]))
            .build();
        let events = self.client.events(Some(options));
        let heard = AtomicUsize::new(0);
        let good = events.take_while(|event| std::future::ready(event.is_ok()));
        good.filter_map(|event| std::future::ready(event.ok()))
            .inspect(|_| {
                heard.fetch_add(1, Ordering::Relaxed);
            })
            .for_each_concurrent(LOOKS_AT_ONCE, |event| self.hear(event))
            .await;
        heard.into_inner()
    }

    async fn hear(&self, event: EventMessage) {
        let died = match event.action.as_deref() {
            Some("die" | "died") => true,
            Some("destroy" | "remove") => false,
            _ => return,
        };
        let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
        let uid = attributes.get(labels::UID).and_then(|uid| uid.parse::<Uid>().ok());
        let machine = uid.and_then(|uid| self.machine(uid)).filter(|machine| !machine.is_over());
        let Some(machine) = machine else { return };
        let exit_code = attributes.get("exitCode").or_else(|| attributes.get("containerExitCode"));
        let exit_code = exit_code.and_then(|code| code.parse().ok()).filter(|_| died);
        if let Err(fault) = self.examine(&machine, exit_code).await {
            tracing::debug!(uid = %machine.uid, ?fault, "an event could not be followed up");
        }
    }

    /// Looks at every container that should live.
    ///
    /// # Errors
    /// The first fault that was not about one container alone.
    async fn look_at_all(&self) -> Answer<()> {
        // Also without any: it shows that the engine is there.
        self.ask(self.config.command_timeout, self.client.ping()).await?;
        for machine in self.living() {
            match self.examine(&machine, None).await {
                Err(fault) if fault.is_unsettled() => return Err(fault),
                _ => {}
            }
            if machine.must_go_on() {
                self.go_on(&machine).await;
            }
        }
        Ok(())
    }

    /// Until the engine does not answer; answers how often it did.
    async fn repair(&self) -> usize {
        let mut count = 0;
        loop {
            tokio::time::sleep(REPAIR_PERIOD).await;
            if self.look_through_list().await.is_err() {
                return count;
            }
            count += 1;
        }
    }

    /// Looks at those containers that do not live, as the engine's list has it: one request for
    /// all of them.
    async fn look_through_list(&self) -> Answer<()> {
        // Taken first: what is in the list later is not missed for being new.
        let machines = self.living();
        let label = format!("{}={}", labels::STATE, self.config.state);
        let options =
            ListContainersOptionsBuilder::new().all(true).filters(&filter(&[("label", label)]));
        let list = self.client.list_containers(Some(options.build()));
        let list = self.ask(self.config.command_timeout, list).await?;
        let living = |found: &ContainerSummary| {
            use ContainerSummaryStateEnum as State;
            matches!(found.state, Some(State::CREATED | State::RUNNING | State::PAUSED))
        };
        let living: HashSet<_> =
            list.into_iter().filter(living).filter_map(|found| found.id).collect();
        for machine in machines.iter().filter(|machine| !living.contains(machine.container())) {
            self.examine(machine, None).await?;
        }
        Ok(())
    }

    fn living(&self) -> Vec<Arc<Machine>> {
        let all = self.machines.iter().filter_map(|entry| entry.value().upgrade());
        all.filter(|machine| !machine.is_over()).collect()
    }

    /// Looks at a container and reports its end, if that is what there is to see. `exit_code` is
    /// that of a death that was heard of: whatever runs now is another process.
    pub(super) async fn examine(
        &self,
        machine: &Machine,
        exit_code: Option<i64>,
    ) -> Answer<Option<Look>> {
        if machine.is_over() {
            return Ok(None);
        }
        let look = match self.look(machine.container()).await {
            Ok(look) => look,
            Err(fault) if fault.is_absent() => {
                self.report(
                    machine,
                    "its container was removed from outside".to_owned(),
                    exit_code,
                )
                .await;
                return Ok(None);
            }
            Err(fault) => return Err(fault),
        };
        match look.stand {
            Stand::Created => {}
            Stand::Ended => {
                let exit_code = exit_code.or(look.exit_code);
                self.report(machine, reason(&look, exit_code), exit_code).await;
            }
            Stand::Running | Stand::Paused => {
                let another = exit_code.is_some() || !machine.is_process(look.pid);
                if another && machine.was_started() {
                    let reason = "its container was restarted from outside".to_owned();
                    self.report(machine, reason, exit_code).await;
                }
            }
        }
        Ok(Some(look))
    }

    async fn report(&self, machine: &Machine, reason: String, exit_code: Option<i64>) {
        if machine.is_over() {
            return;
        }
        let console_tail = match self.last_words(machine.container()).await {
            Ok(words) => {
                let from = words.len().saturating_sub(CONSOLE_TAIL_BYTES);
                String::from_utf8_lossy(&words[from..]).into_owned()
            }
            Err(Fault::Refused { .. } | Fault::Garbled(_)) => {
                machine.console.tail(CONSOLE_TAIL_BYTES)
            }
            Err(fault) => {
                tracing::debug!(uid = %machine.uid, ?fault, "no last words");
                machine.console.tail(CONSOLE_TAIL_BYTES)
            }
        };
        let exit_status = exit_code.and_then(|code| i32::try_from(code).ok());
        let time = self.env.now();
        machine.report(Failure { reason, time, exit_status, console_tail });
    }
}

fn reason(look: &Look, exit_code: Option<i64>) -> String {
    if look.oom_killed {
        return "it used up its memory and was killed".to_owned();
    }
    match exit_code {
        _ if !look.error.is_empty() => format!("the engine could not run it: {}", look.error),
        Some(0) => "its command ended".to_owned(),
        Some(code) if code > 128 => format!("its command was ended by signal {}", code - 128),
        Some(code) => format!("its command ended with status {code}"),
        None => "its command ended, and nobody knows how".to_owned(),
    }
}
