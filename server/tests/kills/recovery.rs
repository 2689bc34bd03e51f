//! A start: wherever it is killed, the next one finds everything that the first was to recover.

use std::collections::HashMap;
use std::process::Command;

use hearth_proto::v1;
use hearth_providers::env::{Env as _, SystemEnv};
use parking_lot::Mutex;

use crate::driver::{COUNTS, Scene, Tally, WORKERS, report, thinned};
use crate::handoff::{Handoff, PATIENCE, settled};
use crate::host::{Hearth, Host, WORKER};
use crate::strace::{Site, Strace};
use crate::{Answer, Outcome, check};

/// A lease that lives through all of it.
const HELD: &str = "held";
/// What changes something that outlives the process; the rest of a start reads and maps.
const CHANGES: [&str; 16] = [
    "write",
    "pwrite64",
    "writev",
    "rename",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "rmdir",
    "symlinkat",
    "linkat",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "flock",
];

/// Counts what a start changes, kills one at each, and prints what came of it.
pub(crate) async fn run() -> Outcome {
    let sites = thinned(count().await?);
    let count = sites.len();
    println!("recovery: {count} system calls that change something");
    check(count > 15, || format!("{sites:?}"))?;

    let left = Mutex::new(sites.into_iter());
    let workers = (0..WORKERS).map(|_| worker(&left));
    let tallies = futures_util::future::try_join_all(workers).await?;
    report("recovery", count, tallies)
}

/// The calls that a start makes each time that it has this to recover.
async fn count() -> Answer<Vec<Site>> {
    let host = Host::new()?;
    let mut life = Life::begin(&host).await?;
    let mut counted: Option<Vec<Site>> = None;
    for _ in 0..COUNTS {
        life.cut(&host).await?;
        let log = host.path("strace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-b", "execve", "-o"]).arg(&log);
        let traced = host.start_traced(strace).await?.ok_or("it did not start")?;
        traced.kill_traced()?;
        let now = sites(&std::fs::read_to_string(log)?);
        counted = Some(match counted {
            None => now,
            Some(before) => before.into_iter().filter(|site| now.contains(site)).collect(),
        });
        life.look(&host).await?;
    }
    Ok(counted.unwrap_or_default())
}

/// The calls of each name, up to as many as the thread made that made most of them.
fn sites(log: &str) -> Vec<Site> {
    let mut counts: HashMap<(&str, &str), u32> = HashMap::new();
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        if CHANGES.contains(&name) {
            *counts.entry((name, thread)).or_default() += 1;
        }
    }
    let most = |name: &str| {
        let of_it = counts.iter().filter(|((counted, _), _)| *counted == name);
        of_it.map(|(_, count)| *count).max().unwrap_or(0)
    };
    let of = |name: &'static str| {
        let site = move |nth| Site { thread: "any thread", name: name.to_owned(), nth };
        (1..=most(name)).map(site)
    };
    CHANGES.into_iter().flat_map(of).collect()
}

async fn worker(left: &Mutex<std::vec::IntoIter<Site>>) -> Answer<Tally> {
    let host = Host::new()?;
    let mut life = Life::begin(&host).await?;
    let mut tally = Tally::default();
    loop {
        let site = left.lock().next();
        let Some(site) = site else { return Ok(tally) };
        life.cut(&host).await?;
        match kill_a_start_at(&host, &site).await? {
            true => tally.killed += 1,
            // A start that has less to do than the one that was counted comes to its end.
            false => tally.passed += 1,
        }
        match life.look(&host).await {
            Ok(()) => tally.done += 1,
            Err(violation) => {
                tally.violations.push(format!("killed at {site}: {violation}"));
                return Ok(tally);
            }
        }
    }
}

/// Whether it was killed. One that was not has recovered everything, and is killed afterwards.
async fn kill_a_start_at(host: &Host, site: &Site) -> Answer<bool> {
    let mut strace = Command::new("strace");
    let inject = format!("--inject={}:signal=KILL:when={}", site.name, site.nth);
    // VMMs are let go: they are not what is killed.
    strace.args(["-f", "-b", "execve", "-o", "/dev/null", &inject]);
    match host.start_traced(strace).await? {
        None => Ok(true),
        Some(hearth) => hearth.kill_traced().map(|()| false),
    }
}

/// What lives on from one hearth to the next.
struct Life {
    uid: String,
    handoff: Handoff,
    /// The hearth that runs, between two cuts.
    hearth: Option<Hearth>,
}

impl Life {
    async fn begin(host: &Host) -> Answer<Self> {
        let hearth = host.start().await?;
        let request = v1::AcquireVmRequest {
            pool: "pools/default".to_owned(),
            vm_id: HELD.to_owned(),
            request_id: SystemEnv.uid().to_string(),
            ..Default::default()
        };
        let vm = hearth.client.acquire(request, PATIENCE).await?.vm.ok_or("no vm")?;
        settled(&hearth, 1).await?;
        let handoff = Handoff::begin(host, &hearth).await?;
        Ok(Self { uid: vm.uid, handoff, hearth: Some(hearth) })
    }

    /// Kills hearth between the append and the rename of a handoff: there is something to recover.
    async fn cut(&mut self, host: &Host) -> Outcome {
        let mut hearth = self.hearth.take().ok_or("no hearth")?;
        let rename = Site { thread: WORKER, name: "renameat2".to_owned(), nth: 1 };
        let strace = Strace::attach(hearth.thread(WORKER)?, Some(&rename), &host.path("cut"))?;
        let cut = self.handoff.act(host, &hearth).await;
        check(cut.is_err(), || "the handoff was not cut".to_owned())?;
        hearth.killed().await?;
        drop(strace);
        Ok(())
    }

    /// The next start has both leases, and no VM more or less.
    async fn look(&mut self, host: &Host) -> Outcome {
        let hearth = host.start().await?;
        let held = hearth.get(HELD).await?;
        check(held.uid == self.uid, || format!("{held:?}"))?;
        let is_replayed = self.handoff.recovered(&hearth).await?;
        check(is_replayed, || "a lease that was committed is lost".to_owned())?;
        self.hearth = Some(hearth);
        Ok(())
    }
}
