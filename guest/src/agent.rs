//! What the guest answers, and the little state that makes its answers worth asking for.
//!
//! The [`Counter`] stands still while the machine is paused, goes on in every clone where the
//! snapshot stood, and starts from nothing only when a machine boots. So it tells a restored
//! machine from a booted one, and a running machine from a paused one.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::system::{RebootCommand, reboot};
use rustix::time::{ClockId, clock_gettime};

use crate::console;
use crate::line::Cut;
use crate::request::Request;
use crate::store::Store;

/// Where the kernel keeps the id that it drew at boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How the machine is to end after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Switched off in order.
    PowerOff,
    /// Torn down at once, as when something in it went wrong.
    Abort,
}

impl End {
    /// Ends the machine. Returns only if the kernel refused.
    pub(crate) fn now(self) {
        let command = match self {
            Self::PowerOff => {
                rustix::fs::sync();
                RebootCommand::PowerOff
            }
            Self::Abort => {
                console::line("agent: panic asked for");
                RebootCommand::Restart
            }
        };
        if let Err(error) = reboot(command) {
            console::line(&format!("agent: cannot end the machine: {error}"));
        }
    }
}

/// An answer, and what is to follow once it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// One line, without its newline.
    pub(crate) line: String,
    /// How the machine ends after that, if it does.
    pub(crate) end: Option<End>,
}

/// A number that grows by one every [`Counter::TICK_MS`] milliseconds.
///
/// It is caught up at every turn of the agent, at least once a second, rather than counted in
/// as many wake-ups as it has steps: those would cost every idle clone a twentieth of a core.
#[derive(Debug)]
struct Counter {
    count: u64,
    /// Time since boot up to which it has been counted.
    counted_until: Duration,
}

impl Counter {
    /// Time in which it grows by one, in milliseconds.
    const TICK_MS: u64 = 10;

    /// A counter at 0, at `now` after boot.
    fn start(now: Duration) -> Self {
        Self { count: 0, counted_until: now }
    }

    /// Counts every whole tick up to `now`, which may not be before an earlier one.
    fn catch_up(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.counted_until);
        let ticks = u64::try_from(passed.as_millis()).unwrap_or(0) / Self::TICK_MS;
        self.count += ticks;
        self.counted_until += Duration::from_millis(ticks * Self::TICK_MS);
    }
}

/// The guest as its host sees it.
#[derive(Debug)]
pub(crate) struct Agent {
    store: Store,
    name: Option<String>,
    counter: Counter,
}

impl Agent {
    /// An agent without a name that keeps texts in `data_dir`, and whose counter runs.
    pub(crate) fn start(data_dir: PathBuf) -> Self {
        Self { store: Store::new(data_dir), name: None, counter: Counter::start(uptime()) }
    }

    /// Does what time asks for; to be called at least once a second.
    pub(crate) fn tick(&mut self) {
        self.counter.catch_up(uptime());
    }

    /// Answers what was cut from the channel. Blocks for as long as the disk does.
    pub(crate) fn answer(&mut self, cut: &Cut) -> Answer {
        let Cut::Line(line) = cut else { return just("error line too long".to_owned()) };
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(refusal) => return just(format!("error {refusal}")),
        };
        just(match request {
            Request::Ping => self.pong(),
            Request::Name(name) => {
                self.name = Some(name.to_owned());
                format!("ok name={name}")
            }
            Request::Echo(text) => format!("echo {text}"),
            Request::Write { file, text } => match self.store.write(file, text) {
                Ok(bytes) => format!("ok bytes={bytes}"),
                Err(error) => format!("error cannot write {file}: {error}"),
            },
            Request::Read { file } => match self.store.read(file) {
                Ok(text) => format!("data {text}"),
                Err(error) => format!("error cannot read {file}: {error}"),
            },
            Request::PowerOff => return Answer { line: "ok".to_owned(), end: Some(End::PowerOff) },
            Request::Panic => return Answer { line: "ok".to_owned(), end: Some(End::Abort) },
        })
    }

    fn pong(&mut self) -> String {
        let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let now = uptime();
        self.counter.catch_up(now);
        format!(
            "pong counter={} boot_id={} name={} uptime_ms={}",
            self.counter.count,
            boot_id.trim(),
            self.name.as_deref().unwrap_or("-"),
            now.as_millis(),
        )
    }
}

/// Time since boot, without the time for which the machine was paused or asleep.
pub(crate) fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// An answer after which everything goes on.
fn just(line: String) -> Answer {
    Answer { line, end: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Agent {
        Agent::start(PathBuf::from("/nonexistent"))
    }

    fn ask(agent: &mut Agent, line: &str) -> String {
        agent.answer(&Cut::Line(line.as_bytes().to_vec())).line
    }

    #[test]
    fn counter_grows_by_one_every_tick_however_often_it_is_caught_up() {
        let at = Duration::from_millis;
        let mut counter = Counter::start(at(1005));
        for (now, count) in [(1005, 0), (1014, 0), (1015, 1), (1024, 1), (1029, 2), (3005, 200)] {
            counter.catch_up(at(now));
            assert_eq!(counter.count, count, "at {now} ms");
        }
        counter.catch_up(at(1000));
        assert_eq!(counter.count, 200, "it never goes back");
    }

    #[test]
    fn ping_tells_counter_boot_and_the_last_name() {
        let mut agent = agent();
        agent.counter.count = 41;
        // An hour ahead, so that it stands while we look.
        agent.counter.counted_until += Duration::from_secs(3600);
        let boot_id = fs::read_to_string(BOOT_ID).unwrap();
        let expected = format!("pong counter=41 boot_id={} name=- uptime_ms=", boot_id.trim());
        assert!(ask(&mut agent, "ping").starts_with(&expected));
        assert_eq!(ask(&mut agent, "name first"), "ok name=first");
        assert_eq!(ask(&mut agent, "name second"), "ok name=second");
        assert!(ask(&mut agent, "name NO").starts_with("error bad name"));
        let answer = ask(&mut agent, "ping");
        assert!(answer.contains(" name=second "), "{answer}");
        let uptime = answer.rsplit('=').next().unwrap();
        assert!(uptime.parse::<u64>().is_ok_and(|uptime| uptime > 0), "{answer}");
    }

    #[test]
    fn every_line_has_one_answer_line() {
        let mut agent = agent();
        assert_eq!(ask(&mut agent, "echo a  b "), "echo a  b ");
        assert_eq!(ask(&mut agent, "write a b").lines().count(), 1);
        assert!(ask(&mut agent, "write a b").starts_with("error cannot write a: "));
        assert!(ask(&mut agent, "read a").starts_with("error cannot read a: "));
        assert_eq!(ask(&mut agent, "what?"), "error unknown request");
        assert_eq!(agent.answer(&Cut::TooLong).line, "error line too long");
    }

    #[test]
    fn machine_ends_only_when_asked_to() {
        let mut agent = agent();
        let mut end = |line: &str| agent.answer(&Cut::Line(line.as_bytes().to_vec())).end;
        assert_eq!(end("poweroff"), Some(End::PowerOff));
        assert_eq!(end("panic"), Some(End::Abort));
        assert_eq!(end("poweroff now"), None);
        assert_eq!(end("ping"), None);
    }
}
