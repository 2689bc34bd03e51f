//! What the doctor says of the machine that the server runs on, for its providers and its directories.
//!
//! A look runs programs and may take seconds, so it is on a thread of its own, one at a time whoever asks, and
//! what it found is shown to everybody for [`FRESH`]. A look that nobody waits for any more still ends, and is kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hearth_pool::tasks::TaskGroup;
use hearth_providers::directory::Paths;
use hearth_providers::env::Env;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::Config;
use crate::doctor::{Check, Outcome, Subject, look_at_machine, look_at_provider, worst};

/// How long what was found is shown.
pub(super) const FRESH: Duration = Duration::from_secs(60);
/// How long who asks waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Doctor {
    patients: Patients,
    env: Arc<dyn Env>,
    tasks: TaskGroup,
    last: Mutex<Option<(Instant, Arc<Report>)>>,
    turn: Arc<Semaphore>,
    patience: Duration,
}

/// What is looked at.
struct Patients {
    /// By the providers' names.
    subjects: Vec<(String, Subject)>,
    state: PathBuf,
    runtime: PathBuf,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    status: Outcome,
    checks: Vec<Found>,
    time: String,
}

#[derive(Debug, Serialize)]
struct Found {
    /// Unset: it is of the machine, whatever the providers are.
    provider: Option<String>,
    #[serde(flatten)]
    check: Check,
}

impl Doctor {
    /// Of the server that `config` is of, whose directories are `paths`.
    pub(crate) fn new(
        config: &Config,
        paths: &Paths,
        env: Arc<dyn Env>,
        tasks: TaskGroup,
    ) -> Arc<Self> {
        let subject = |(name, it): (&String, &crate::config::ProviderConfig)| {
            let jailer = it.jailer.as_ref();
            let jailer = jailer.map(|it| it.binary.clone().unwrap_or_else(|| "jailer".into()));
            let (binary, socket) = (it.binary.clone(), it.socket.clone());
            let (kind, user) = (it.kind.into(), it.user.clone());
            (name.clone(), Subject { kind, binary, socket, jailer, user })
        };
        let patients = Patients {
            subjects: config.providers.iter().map(subject).collect(),
            state: paths.state.clone(),
            runtime: paths.runtime.clone(),
        };
        let (last, turn) = (Mutex::new(None), Arc::new(Semaphore::new(1)));
        Arc::new(Self { patients, env, tasks, last, turn, patience: PATIENCE })
    }

    /// What it says, no older than [`FRESH`]; `None` when it takes longer than one waits for it.
    ///
    /// # Cancel safety
    /// A look that was begun goes on, and is shown to who asks next.
    pub(super) async fn ask(self: &Arc<Self>) -> Option<Arc<Report>> {
        tokio::time::timeout(self.patience, self.look()).await.ok()?
    }

    async fn look(self: &Arc<Self>) -> Option<Arc<Report>> {
        // It is never closed.
        let turn = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        let known = self.last.lock().clone();
        if let Some((_, report)) = known.filter(|(at, _)| at.elapsed() < FRESH) {
            return Some(report);
        }
        let (looked, waits) = tokio::sync::oneshot::channel();
        let doctor = Arc::clone(self);
        self.tasks.spawn_blocking(move || {
            let _turn = turn;
            let report = Arc::new(doctor.patients.look(doctor.env.now()));
            *doctor.last.lock() = Some((Instant::now(), Arc::clone(&report)));
            // Who asked may be gone.
            let _ = looked.send(report);
        });
        waits.await.ok()
    }
}

impl Patients {
    fn look(&self, now: SystemTime) -> Report {
        let needs: Vec<_> = self.subjects.iter().flat_map(|(_, it)| it.needs()).copied().collect();
        let machine = look_at_machine(Some(&self.state), Some(&self.runtime), &needs);
        let of_machine = machine.into_iter().map(|check| Found { provider: None, check });
        let of_providers = self.subjects.iter().flat_map(|(name, subject)| {
            let found = look_at_provider(subject).into_iter();
            found.map(|check| Found { provider: Some(name.clone()), check })
        });
        let checks: Vec<_> = of_machine.chain(of_providers).collect();
        let status = worst(checks.iter().map(|found| &found.check));
        Report { status, checks, time: prost_types::Timestamp::from(now).to_string() }
    }
}

#[cfg(all(test, target_os = "linux", feature = "docker", feature = "smolvm"))]
mod tests {
    use std::path::Path;

    use hearth_providers::env::SystemEnv;

    use super::*;
    use crate::config::ProviderKind;

    /// What is found of a provider that does not answer: not while one waits, and nevertheless.
    async fn look_at(subject: Subject, directory: &Path) -> Option<Check> {
        let patients = Patients {
            subjects: vec![("hangs".to_owned(), subject)],
            state: directory.to_owned(),
            runtime: directory.to_owned(),
        };
        let (env, tasks, last) = (Arc::new(SystemEnv), TaskGroup::new(), Mutex::new(None));
        let (turn, patience) = (Arc::new(Semaphore::new(1)), Duration::from_millis(100));
        let doctor = Arc::new(Doctor { patients, env, tasks, last, turn, patience });
        assert!(doctor.ask().await.is_none(), "it takes longer than one waits");
        let report = loop {
            if let Some(report) = doctor.ask().await {
                break report;
            }
        };
        assert_eq!(doctor.turn.available_permits(), 1);
        let of_it = |found: &&Found| found.provider.as_deref() == Some("hangs");
        report.checks.iter().find(of_it).map(|found| found.check.clone())
    }

    #[tokio::test]
    async fn an_engine_that_accepts_and_does_not_answer_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let engine = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let kind = ProviderKind::Docker.into();
        let subject =
            Subject { kind, binary: None, socket: Some(socket.clone()), jailer: None, user: None };
        let check = look_at(subject, directory.path()).await.unwrap();
        assert_eq!((check.name, check.status), ("engine", Outcome::Fail), "{check:?}");
        assert!(check.message.contains(socket.to_str().unwrap()), "{check:?}");
        engine.set_nonblocking(true).unwrap();
        assert!(engine.accept().is_ok(), "it was asked");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_and_who_asks_is_told_in_the_meantime() {
        let directory = tempfile::tempdir().unwrap();
        let (program, pid) = (directory.path().join("smolvm"), directory.path().join("pid"));
        let script = format!("#!/bin/sh\necho $$ > {}\nexec sleep 1000\n", pid.display());
        // By a process of its own: what is open for writing in this one may be so in a child, too, and is not run.
        let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let mut shell = std::process::Command::new("sh");
        let shell = shell.args(["-c", write, "sh"]).arg(&program).arg(script);
        assert!(shell.status().unwrap().success());
        let kind = ProviderKind::Smolvm.into();
        let subject =
            Subject { kind, binary: Some(program), socket: None, jailer: None, user: None };
        let check = look_at(subject, directory.path()).await.unwrap();
        assert_eq!(check.status, Outcome::Fail, "{check:?}");
        let pid = std::fs::read_to_string(&pid).unwrap();
        let alive = std::path::Path::new("/proc").join(pid.trim());
        assert!(!alive.exists(), "{check:?} is killed and waited for");
    }
}
