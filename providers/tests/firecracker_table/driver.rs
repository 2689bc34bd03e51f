//! Runs rows on a program, whichever it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::client::{Client, bytes_of};
use crate::jailed;
use crate::outcome::{Answer, Normaliser, Outcome, is_log};
use crate::process::{Process, command, fate, until};
use crate::row::{Api, Asked, Change, Kind, Request, Row, Step};

/// How long a process that may die of a request is given to do so.
const FATAL: Duration = Duration::from_millis(1500);

/// The programs that rows are run on.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) firecracker: PathBuf,
    pub(crate) jailer: PathBuf,
    /// What boots.
    pub(crate) guest: PathBuf,
    /// Their guests are real, and must hold the device that makes them so.
    pub(crate) are_real: bool,
}

/// Runs a row; the error says why nothing can be said of it.
pub(crate) fn run(row: &Row, programs: &Programs) -> Result<Outcome, String> {
    if row.needs_root {
        // SAFETY: a network namespace of this thread's own changes nothing of the process's memory.
        let unshared =
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
        unshared.map_err(|error| format!("no network namespace for the row: {error}"))?;
    }
    let mut rig = Rig::new(programs)?;
    match &row.kind {
        Kind::Api(api) => rig.api(api),
        Kind::Command(steps, arguments) => rig.command(steps, arguments),
        Kind::Jailer(jailer) => jailed::run(jailer, programs, rig.dir.path()),
    }
}

struct Rig<'a> {
    programs: &'a Programs,
    dir: TempDir,
    normaliser: Normaliser,
    /// The last one is asked; the others are kept.
    processes: Vec<Process>,
    started: usize,
    /// The count at which the process before stood when it was left.
    count_before: Option<u64>,
}

impl<'a> Rig<'a> {
    fn new(programs: &'a Programs) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let guest = dir.path().join("guest.elf");
        std::fs::copy(&programs.guest, guest).map_err(|error| error.to_string())?;
        let normaliser = Normaliser::new(dir.path(), &programs.firecracker);
        let processes = Vec::new();
        Ok(Self { programs, dir, normaliser, processes, started: 0, count_before: None })
    }

    fn api(&mut self, api: &Api) -> Result<Outcome, String> {
        self.start()?;
        self.take(&api.steps)?;
        let mut outcome = Outcome::default();
        match &api.asked {
            Asked::Request(request) => {
                let bytes = bytes_of(request, self.dir.path());
                outcome.answers = self.ask(&bytes, 1)?;
            }
            Asked::Bytes(bytes, count) => outcome.answers = self.ask(bytes, *count)?,
            Asked::Connections(count) => self.connect_often(*count, &mut outcome)?,
            Asked::CountsOn => {
                let process = self.process();
                let counted = until(|| process.first_count().is_some());
                let follows = match (self.count_before, self.process().first_count()) {
                    (Some(before), Some(first)) => first == before + 1,
                    _ => false,
                };
                outcome.found.push(format!("counts: {counted}"));
                outcome.found.push(format!("goes on where it stood: {follows}"));
            }
        }
        self.fate(api.may_die, &mut outcome)?;
        if api.exit_varies && ["exits with 0", "exits with 1"].contains(&outcome.fate.as_str()) {
            (outcome.fate, outcome.said) = ("exits with 0 or 1".to_owned(), None);
        }
        Ok(outcome)
    }

    /// Opens so many connections, and looks at the last one.
    fn connect_often(&mut self, count: usize, outcome: &mut Outcome) -> Result<(), String> {
        let socket = self.process().socket.clone();
        let mut clients = Vec::new();
        for number in 1..=count {
            let mut client = Client::connect(&socket).map_err(|error| error.to_string())?;
            // Each but the last shows that it was accepted before the next one comes.
            if number < count || count <= 10 {
                client.send(b"GET /version HTTP/1.1\r\n\r\n").map_err(|error| error.to_string())?;
            }
            let answer = client.receive(&self.normaliser).map_err(|error| error.to_string())?;
            if number == count {
                outcome.answers = answer.into_iter().collect();
                let is_refused = count > 10;
                outcome.found.push(format!("closed: {}", is_refused && client.is_closed()));
            }
            clients.push(client);
        }
        // A fate is looked at through a connection of its own.
        drop(clients);
        Ok(())
    }

    fn command(&mut self, steps: &[Step], arguments: &[&str]) -> Result<Outcome, String> {
        let files = |step: &Step| matches!(step, Step::File(..) | Step::Change(..));
        if !steps.iter().all(files) {
            self.start()?;
        }
        self.take(steps)?;
        self.processes.clear();
        let dir = self.dir.path();
        let path = dir.display().to_string();
        let mut command = command(&self.programs.firecracker, dir);
        if !arguments.contains(&"--api-sock") {
            command.arg("--api-sock").arg(dir.join("unused"));
        }
        command.args(arguments.iter().map(|argument| argument.replace("DIR", &path)));
        let output = command.output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| self.normaliser.text(&String::from_utf8_lossy(bytes));
        let mut outcome = Outcome { fate: fate(output.status), ..Outcome::default() };
        let (printed, said) = (text(&output.stdout), text(&output.stderr));
        // A panic's words name places in the source, and are the log's.
        let panicked = outcome.fate.contains("signal");
        let lines = printed.lines().filter(|line| !panicked && !is_log(line));
        outcome.printed = lines.map(str::to_owned).collect();
        outcome.said = said_last(&said);
        Ok(outcome)
    }

    fn start(&mut self) -> Result<(), String> {
        self.started += 1;
        let process = Process::start(&self.programs.firecracker, self.dir.path(), self.started)?;
        self.processes.push(process);
        Ok(())
    }

    fn process(&mut self) -> &mut Process {
        self.processes.last_mut().expect("a process was started")
    }

    fn take(&mut self, steps: &[Step]) -> Result<(), String> {
        steps.iter().try_for_each(|step| {
            self.step(step).map_err(|error| format!("on the way there, at {step:?}: {error}"))
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let dir = self.dir.path().to_owned();
        let io = |error: std::io::Error| error.to_string();
        match step {
            Step::Do(request) => self.expect(request, "HTTP/1.1 204"),
            Step::Refused(request) => self.expect(request, "HTTP/1.1 400"),
            Step::File(name, bytes) => {
                let file = std::fs::File::create(dir.join(name)).map_err(io)?;
                file.set_len(*bytes).map_err(io)
            }
            Step::Change(name, change) => alter(&dir.join(name), *change).map_err(io),
            Step::Remove(name) => std::fs::remove_file(dir.join(name)).map_err(io),
            Step::Restart => {
                self.count_before = self.process().count();
                self.processes.pop();
                self.start()
            }
            // What a clone counts is compared with the first of them.
            Step::Another => {
                self.count_before = self.count_before.or(self.process().count());
                self.start()
            }
            Step::Counts => {
                let process = self.process();
                let before = process.count();
                match until(|| process.count() > before) {
                    true => Ok(()),
                    false => Err(format!("the guest does not count; {}", process.console())),
                }
            }
        }
    }

    fn expect(&mut self, request: &Request, wanted: &str) -> Result<(), String> {
        let bytes = bytes_of(request, self.dir.path());
        let answers = self.ask(&bytes, 1)?;
        match answers.first() {
            Some(answer) if answer.status.starts_with(wanted) => Ok(()),
            answer => Err(format!("{answer:?}; {}", self.process().console())),
        }
    }

    fn ask(&mut self, bytes: &[u8], count: usize) -> Result<Vec<Answer>, String> {
        let socket = self.process().socket.clone();
        let mut client = Client::connect(&socket).map_err(|error| error.to_string())?;
        client.send(bytes).map_err(|error| error.to_string())?;
        let mut answers = Vec::new();
        for _ in 0..count {
            let answer = client.receive(&self.normaliser).map_err(|error| error.to_string())?;
            answers.extend(answer);
        }
        Ok(answers)
    }

    /// Looks at what became of the process. One that may die is left alone until it has had
    /// time to: a request that meets it while it ends makes it panic.
    fn fate(&mut self, may_die: bool, outcome: &mut Outcome) -> Result<(), String> {
        let ended = if may_die { self.process().ends_within(FATAL) } else { None };
        if let Some(ended) = ended {
            outcome.fate = fate(ended);
            outcome.said = said_last(&self.process().console());
            return Ok(());
        }
        let mut answer = None;
        until(|| {
            let answers = self.ask(b"GET / HTTP/1.1\r\n\r\n", 1);
            answer = answers.ok().and_then(|answers| answers.into_iter().next());
            // Connections that a row has closed may be counted for a moment, and then a new one is
            // answered with 503 or broken off.
            match &answer {
                Some(answer) => !answer.status.contains("503"),
                None => self.process().ends_within(Duration::ZERO).is_some(),
            }
        });
        let Some(answer) = answer else {
            let ended = self.process().end();
            outcome.fate = ended.map_or_else(|| "does not answer".to_owned(), fate);
            return Ok(());
        };
        let body: serde_json::Value =
            serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
        let state = body["state"].as_str().unwrap_or_default();
        outcome.fate = format!("lives: {state}");
        let id = self.process().id();
        match self.programs.are_real && state != "Not started" && !holds_kvm(id) {
            true => Err(format!("process {id} is {state} and does not hold /dev/kvm")),
            false => Ok(()),
        }
    }
}

/// The last line in which the program says its error.
fn said_last(text: &str) -> Option<String> {
    let mut lines = text.lines().filter(|line| line.starts_with("Error: "));
    lines.next_back().map(str::to_owned)
}

/// Whether a process has the device open that runs real guests.
pub(crate) fn holds_kvm(id: u32) -> bool {
    let files = std::fs::read_dir(format!("/proc/{id}/fd"));
    let mut files = files.into_iter().flatten().flatten();
    files
        .any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target.ends_with("dev/kvm")))
}

fn alter(path: &Path, change: Change) -> std::io::Result<()> {
    /// Where a state file has its version, in text.
    const VERSION: usize = 10;
    let file = std::fs::File::options().write(true).open(path)?;
    let length = file.metadata()?.len();
    let flip = |at: usize| -> std::io::Result<()> {
        let mut bytes = std::fs::read(path)?;
        bytes[at] ^= 1;
        std::fs::write(path, bytes)
    };
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    match change {
        Change::FlipMiddle => flip(size / 2),
        Change::FlipLast => flip(size - 1),
        Change::Shorten(by) => file.set_len(length - by),
        Change::Empty => file.set_len(0),
        Change::Version => flip(VERSION + 1),
        Change::Magic => flip(3),
    }
}
