//! Counts the system calls of a scene, kills one hearth at each, and has the scene look at the next.

use parking_lot::Mutex;
use tonic::Status;

use crate::host::{Hearth, Host, is_qemu};
use crate::strace::{Site, Strace};
use crate::{Answer, Outcome};

/// Two cores run two hearths.
pub(crate) const WORKERS: usize = 2;
/// How often it is counted.
pub(crate) const COUNTS: usize = 5;
/// How often what is done may be over before its kill.
const MAX_TRIES: usize = 4;

/// Something that hearth does, and what must hold wherever it is killed.
pub(crate) trait Scene: Sized {
    /// What it is called.
    const NAME: &'static str;
    /// The threads that do it, by their names.
    const THREADS: &'static [&'static str];
    /// System calls without which it would not be what it is said to be.
    const HALLMARKS: &'static [&'static str];

    /// Makes the first life ready. Whatever is done for the first time only should be done here, so that
    /// what is counted is like what is killed.
    async fn begin(host: &Host, hearth: &Hearth) -> Answer<Self>;

    /// Does it, once more.
    async fn act(&mut self, host: &Host, hearth: &Hearth) -> Result<(), Status>;

    /// Looks at the life after a kill, and makes it ready for the next one. Answers whether what was
    /// killed had come to pass.
    ///
    /// # Errors
    /// What does not hold.
    async fn look(&mut self, host: &Host, hearth: &Hearth) -> Answer<bool>;
}

/// Runs a scene, and prints what came of it.
pub(crate) async fn run<S: Scene>() -> Outcome {
    let sites = thinned(count::<S>().await?);
    let count = sites.len();
    println!("{}: {count} system calls: {}", S::NAME, summary(&sites));
    let has = |name: &&&str| sites.iter().any(|site| site.name.starts_with(**name));
    if let Some(missing) = S::HALLMARKS.iter().find(|name| !has(name)) {
        return Err(format!("there is no {missing} in {sites:?}").into());
    }
    let left = Mutex::new(sites.into_iter());
    let workers = (0..WORKERS).map(|_| worker::<S>(&left));
    let tallies = futures_util::future::try_join_all(workers).await?;
    report(S::NAME, count, tallies)
}

/// Of calls of one name by one thread that are many, as those that copy memory, some from first to last.
pub(crate) fn thinned(sites: Vec<Site>) -> Vec<Site> {
    let mut by_name = std::collections::BTreeMap::<_, Vec<Site>>::new();
    for site in sites {
        by_name.entry((site.thread, site.name.clone())).or_default().push(site);
    }
    let some = |of_it: Vec<Site>| {
        let step = of_it.len().div_ceil(MOST_OF_ONE);
        of_it.into_iter().step_by(step).collect::<Vec<_>>()
    };
    by_name.into_values().flat_map(some).collect()
}

/// How many calls of one name by one thread are killed at.
const MOST_OF_ONE: usize = 20;

/// What a worker has seen.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) killed: usize,
    /// Kills that never came: what was to be killed was over before.
    pub(crate) passed: usize,
    /// How often what was killed had come to pass.
    pub(crate) done: usize,
    pub(crate) violations: Vec<String>,
}

/// Prints what all workers have seen at `count` places.
pub(crate) fn report(name: &str, count: usize, tallies: Vec<Tally>) -> Outcome {
    let mut sum = Tally::default();
    for tally in tallies {
        sum.killed += tally.killed;
        sum.passed += tally.passed;
        sum.done += tally.done;
        sum.violations.extend(tally.violations);
    }
    let Tally { killed, passed, done, violations } = sum;
    violations.iter().for_each(|violation| println!("violation: {violation}"));
    println!(
        "{name} {killed} of {count}: {} violations ({done} done, {} not)",
        violations.len(),
        killed.saturating_sub(done)
    );
    SUMS.lock().push((format!("{name} {killed} of {count}"), violations.len()));
    // A few may be passed, by a run that has less to do; more where a guest is waited for.
    let may_pass = if is_qemu() { count / 2 } else { count / 5 };
    match violations.is_empty() && killed + passed == count && passed <= may_pass {
        true => Ok(()),
        false => Err(format!("{killed} of {count} kills; {violations:?}").into()),
    }
}

/// What each scene came to, and its violations.
static SUMS: Mutex<Vec<(String, usize)>> = Mutex::new(Vec::new());

/// Prints one line for all scenes that ran.
pub(crate) fn print_sums() {
    let sums = SUMS.lock();
    let (kind, all) = (if is_qemu() { "qemu" } else { "memory" }, sums.iter());
    let (scenes, violations): (Vec<_>, Vec<_>) =
        all.map(|(it, found)| (it.clone(), *found)).unzip();
    let violations: usize = violations.iter().sum();
    println!("kills {kind}: {}: {violations} violations", scenes.join(", "));
}

/// The system calls of a run, thread by thread: those that it makes each time. What comes over a socket
/// in one piece or in two makes a difference.
async fn count<S: Scene>() -> Answer<Vec<Site>> {
    let mut sites = Vec::new();
    for thread in S::THREADS {
        let mut of_it: Option<Vec<Site>> = None;
        for _ in 0..COUNTS {
            let now = count_once::<S>(thread).await?;
            of_it = Some(match of_it {
                None => now,
                Some(before) => before.into_iter().filter(|site| now.contains(site)).collect(),
            });
        }
        sites.extend(of_it.unwrap_or_default());
    }
    Ok(sites)
}

/// The system calls of one thread in one run. Where it made none, another of its kind had the work, and there is
/// another run.
async fn count_once<S: Scene>(thread: &'static str) -> Answer<Vec<Site>> {
    let mut sites = Vec::new();
    for _ in 0..MAX_TRIES {
        let host = Host::new()?;
        let hearth = host.start().await?;
        let mut scene = S::begin(&host, &hearth).await?;
        let strace = Strace::attach(hearth.thread(thread)?, None, &host.path("strace"))?;
        scene.act(&host, &hearth).await?;
        sites = strace.detach(thread)?;
        if !sites.is_empty() {
            break;
        }
    }
    Ok(sites)
}

/// Kills at what no other worker has taken, on a host of its own.
async fn worker<S: Scene>(left: &Mutex<std::vec::IntoIter<Site>>) -> Answer<Tally> {
    let host = Host::new()?;
    let mut hearth = host.start().await?;
    let mut scene = S::begin(&host, &hearth).await?;
    let mut tally = Tally::default();
    loop {
        let site = left.lock().next();
        let Some(site) = site else { return Ok(tally) };
        let was_killed;
        (hearth, was_killed) = kill_at(&host, hearth, &mut scene, &site).await?;
        if !was_killed {
            tally.passed += 1;
            continue;
        }
        tally.killed += 1;
        match scene.look(&host, &hearth).await {
            Ok(is_done) => tally.done += usize::from(is_done),
            Err(violation) => {
                tally.violations.push(format!("killed at {site}: {violation}"));
                // Whatever is left of it must not be taken for the next one's doing.
                return Ok(tally);
            }
        }
    }
}

/// Has the scene act until the kill comes, and answers the next life; where it was over without the
/// kill, having made a call fewer than the one that was counted, it acts again. Whether it came.
async fn kill_at<S: Scene>(
    host: &Host,
    mut hearth: Hearth,
    scene: &mut S,
    site: &Site,
) -> Answer<(Hearth, bool)> {
    for _ in 0..MAX_TRIES {
        let thread = hearth.thread(site.thread)?;
        let strace = Strace::attach(thread, Some(site), &host.path("strace"))?;
        let acted = scene.act(host, &hearth).await;
        // The kill may have come after the answer.
        if strace.has_killed()? || acted.is_err() {
            hearth.killed().await?;
            return Ok((host.start().await?, true));
        }
        if let Err(violation) = scene.look(host, &hearth).await {
            // strace may have been gone before it could say that it has killed.
            hearth.killed().await.map_err(|_| violation)?;
            return Ok((host.start().await?, true));
        }
    }
    println!("{} never came as far as {site}", S::NAME);
    Ok((hearth, false))
}

/// How often each system call was made, in the order of their names.
fn summary(sites: &[Site]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    sites.iter().for_each(|site| *counts.entry(site.name.as_str()).or_insert(0) += 1);
    let words: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    words.join(", ")
}
