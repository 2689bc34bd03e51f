//! The audit: who acquired, released, froze, resumed, connected to and managed what, with what came of it.
//!
//! One line of JSON for each call that may change something or that a VM's contents go through, appended
//! to a file that only this user can read; a stream has a line when it begins, too. Files are rotated by
//! size and bounded in number. Calls only leave their line in a bounded queue, which a task of its own
//! writes out several times a second: what is in it when the process is killed is lost. A full queue, or
//! a file that cannot be written, costs lines and not calls; how many is counted, and said in the log
//! and in the file. Calls of whom nobody knows are counted by the metrics alone: a stranger could write
//! the file full.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hearth_pool::tasks::TaskGroup;
use hearth_providers::beneath;
use hearth_providers::env::Env;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use serde::Serialize;

use crate::auth::Caller;
use crate::call::CallId;
use crate::config;
use crate::listen::peer::Peer;
use crate::metrics;

/// How often lines are written out.
const PERIOD: Duration = Duration::from_millis(200);
/// The newest file; `audit.1.jsonl` is the one before it.
const NAME: &str = "audit.jsonl";
/// Bytes of a text that a caller chose: more of it says nothing more.
const MAX_TEXT_BYTES: usize = 256;

/// What a call turned out to be about; its handler notes it down.
#[derive(Debug, Default)]
pub(crate) struct Note(Mutex<Noted>);

#[derive(Clone, Debug, Default)]
struct Noted {
    resource: String,
    uid: String,
    request_id: String,
}

impl Note {
    /// It is about this resource, of this uid, under this request id; what is blank is not known.
    pub(crate) fn is_about(&self, resource: &str, uid: &str, request_id: &str) {
        let short = |text: &str| text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned();
        let mut noted = self.0.lock();
        noted.resource = short(resource);
        noted.uid = short(uid);
        if !request_id.is_empty() {
            noted.request_id = short(request_id);
        }
    }
}

/// One line in the making.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) call: CallId,
    pub(crate) method: &'static str,
    pub(crate) caller: Caller,
    pub(crate) peer: Option<Arc<Peer>>,
    pub(crate) note: Arc<Note>,
    /// Its code; `OPEN` for a stream that has begun.
    pub(crate) result: &'static str,
    pub(crate) took: Duration,
}

/// One line, as it is written.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    call: String,
    method: &'a str,
    who: &'a str,
    tenant: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    peer: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    result: &'a str,
    took_ms: f64,
}

/// A line that says that others are missing.
#[derive(Serialize)]
struct Gap {
    time: String,
    lost: u64,
}

/// Where calls leave their lines.
pub(crate) struct Audit {
    env: Arc<dyn Env>,
    queue: Mutex<VecDeque<(SystemTime, Event)>>,
    capacity: usize,
    lost: AtomicU64,
    files: Mutex<Files>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("queued", &self.queue.lock().len()).finish_non_exhaustive()
    }
}

impl Audit {
    /// One that writes into `dir`. Blocks on the disk.
    ///
    /// # Errors
    /// When that cannot be made, or a file in it not be opened.
    pub(crate) fn open(
        dir: &Path,
        settings: &config::Audit,
        env: Arc<dyn Env>,
    ) -> io::Result<Arc<Self>> {
        beneath::private_dir(dir)?;
        let (max_bytes, max_files) = (settings.max_file_bytes, settings.max_files);
        let files = Files { dir: dir.to_owned(), max_bytes, max_files, open: None };
        let mut files = files;
        files.newest()?;
        Ok(Arc::new(Self {
            env,
            queue: Mutex::default(),
            capacity: settings.max_queued,
            lost: AtomicU64::new(0),
            files: Mutex::new(files),
        }))
    }

    /// Leaves a line. Costs a lock and a move; wakes nobody.
    pub(crate) fn leave(&self, event: Event) {
        let now = self.env.now();
        let mut queue = self.queue.lock();
        if queue.len() < self.capacity {
            queue.push_back((now, event));
        } else {
            drop(queue);
            self.lost(1);
        }
    }

    fn lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
        metrics::audit_lost(lines);
    }

    /// Writes out what there is. Blocks on the disk.
    pub(crate) fn write_out(&self) {
        // Before the queue is taken: whoever writes next writes what came later.
        let mut files = self.files.lock();
        let events = std::mem::take(&mut *self.queue.lock());
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(
                lost,
                "lines of the audit are missing: they came faster than they were written"
            );
            let time = humantime::format_rfc3339_millis(self.env.now()).to_string();
            drop(files.append(&Gap { time, lost }));
        }
        let count = events.len() as u64;
        for (written, (time, event)) in events.iter().enumerate() {
            if let Err(error) = files.append(&line(*time, event, &event.note.0.lock())) {
                let lost = count - written as u64;
                tracing::warn!(%error, lost, "the audit cannot be written");
                return self.lost(lost);
            }
        }
    }

    /// Writes out what there is from time to time, as a task of `tasks`.
    pub(crate) fn follow(self: &Arc<Self>, tasks: &TaskGroup) {
        let (audit, group) = (Arc::clone(self), tasks.clone());
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(PERIOD) => {}
                    () = group.stopping().cancelled() => return,
                }
                if audit.queue.lock().is_empty() {
                    continue;
                }
                let (written, waited) = tokio::sync::oneshot::channel::<()>();
                let audit = Arc::clone(&audit);
                group.spawn_blocking(move || {
                    audit.write_out();
                    drop(written);
                });
                // It ends when the writer is done, and says nothing else.
                drop(waited.await);
            }
        });
    }
}

fn line<'a>(time: SystemTime, event: &'a Event, noted: &'a Noted) -> Line<'a> {
    Line {
        time: humantime::format_rfc3339_millis(time).to_string(),
        call: event.call.to_string(),
        method: event.method.trim_start_matches('/'),
        who: event.caller.name(),
        tenant: event.caller.tenant.as_str(),
        peer: event.peer.as_ref().map(|peer| peer.address.to_string()).unwrap_or_default(),
        resource: &noted.resource,
        uid: &noted.uid,
        request_id: &noted.request_id,
        result: event.result,
        took_ms: (event.took.as_secs_f64() * 1e6).round() / 1e3,
    }
}

/// The files, newest first.
struct Files {
    dir: PathBuf,
    max_bytes: u64,
    max_files: usize,
    /// The newest, and how long it is.
    open: Option<(File, u64)>,
}

impl Files {
    fn path(&self, age: usize) -> PathBuf {
        match age {
            0 => self.dir.join(NAME),
            age => self.dir.join(format!("audit.{age}.jsonl")),
        }
    }

    fn newest(&mut self) -> io::Result<&mut (File, u64)> {
        if self.open.is_none() {
            let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
            let file = beneath::open(&self.path(0), flags)?;
            let length = file.metadata()?.len();
            self.open = Some((file, length));
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let max_bytes = self.max_bytes;
        let (_, length) = self.newest()?;
        if *length > 0 && *length + text.len() as u64 > max_bytes {
            self.rotate()?;
        }
        let (file, length) = self.newest()?;
        file.write_all(&text)?;
        *length += text.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        for age in (0..self.max_files.saturating_sub(1)).rev() {
            match std::fs::rename(self.path(age), self.path(age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match self.max_files {
            // There is no older one for it to become.
            1 => std::fs::remove_file(self.path(0)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use hearth_pool::ids::Tenant;
    use hearth_providers::env::SystemEnv;
    use serde_json::Value;

    use super::*;

    fn audit(dir: &Path, settings: &config::Audit) -> Arc<Audit> {
        Audit::open(dir, settings, Arc::new(SystemEnv)).unwrap()
    }

    fn event(resource: &str) -> Event {
        let note = Arc::new(Note::default());
        note.is_about(resource, "", "id");
        Event {
            call: CallId::next(),
            method: "/hearth.v1.VmService/AcquireVm",
            caller: Caller::tenant(Tenant::new("ci")),
            peer: None,
            note,
            result: "OK",
            took: Duration::from_micros(1500),
        }
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_says_who_did_what_and_what_came_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let audit = audit(dir.path(), &config::Audit::default());
        audit.leave(event("vms/a\n\"b\""));
        audit.write_out();
        let path = dir.path().join(NAME);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let [line] = &*lines(&path) else { panic!("one line") };
        assert_eq!(line["method"], "hearth.v1.VmService/AcquireVm");
        assert_eq!((&line["who"], &line["tenant"]), (&"ci".into(), &"ci".into()));
        assert_eq!(
            (&line["resource"], &line["request_id"]),
            (&"vms/a\n\"b\"".into(), &"id".into())
        );
        assert_eq!((&line["result"], &line["took_ms"]), (&"OK".into(), &1.5.into()));
        assert!(line["time"].as_str().unwrap().ends_with('Z') && line.get("uid").is_none());
        // Callers choose texts: they get no more of the file than they need.
        audit.leave(event(&format!("n{}", "\u{e9}".repeat(10_000))));
        audit.write_out();
        let kept = format!("n{}", "\u{e9}".repeat((MAX_TEXT_BYTES - 1) / 2));
        assert_eq!(lines(&path)[1]["resource"], kept);
    }

    #[test]
    fn files_are_bounded_in_size_and_number_and_only_the_oldest_lines_go() {
        are_bounded(3, &["audit.2.jsonl", "audit.1.jsonl", NAME]);
        are_bounded(1, &[NAME]);
    }

    fn are_bounded(max_files: usize, names: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            config::Audit { max_file_bytes: 1000, max_files, ..config::Audit::default() };
        let first = audit(dir.path(), &settings);
        for number in 0..50 {
            first.leave(event(&format!("vms/{number}")));
            first.write_out();
        }
        // The next start goes on where this one ended.
        drop(first);
        let next = audit(dir.path(), &settings);
        next.leave(event("vms/50"));
        next.write_out();
        let mut kept = Vec::new();
        for name in names {
            let path = dir.path().join(name);
            assert!((1..=1000).contains(&path.metadata().unwrap().len()), "{name}");
            kept.extend(
                lines(&path).iter().map(|line| line["resource"].as_str().unwrap().to_owned()),
            );
        }
        let last: Vec<_> = (0..=50).map(|it| format!("vms/{it}")).collect();
        assert_eq!(kept, last[last.len() - kept.len()..]);
        assert_eq!(dir.path().read_dir().unwrap().count(), max_files);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_said_once_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            config::Audit { max_file_bytes: 1, max_files: 2, ..config::Audit::default() };
        let audit = audit(dir.path(), &settings);
        let put = |names: &[&str]| {
            names.iter().for_each(|name| audit.leave(event(name)));
            audit.write_out();
        };
        put(&["vms/a"]);
        // The next line takes another file, for which there is no place.
        let in_its_place = dir.path().join("audit.1.jsonl");
        std::fs::create_dir(&in_its_place).unwrap();
        put(&["vms/b", "vms/c"]);
        assert_eq!(lines(&dir.path().join(NAME)).len(), 1);
        std::fs::remove_dir(&in_its_place).unwrap();
        put(&["vms/d"]);
        assert_eq!(lines(&dir.path().join(NAME))[0]["resource"], "vms/d");
        assert_eq!(lines(&in_its_place)[0]["lost"], 2);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let settings = config::Audit { max_queued: 3, ..config::Audit::default() };
        let audit = audit(dir.path(), &settings);
        (0..5).for_each(|number| audit.leave(event(&format!("vms/{number}"))));
        audit.write_out();
        let lines = lines(&dir.path().join(NAME));
        assert_eq!((lines.len(), &lines[0]["lost"]), (4, &2.into()));
    }

    #[test]
    fn a_file_elsewhere_is_not_written_through_a_link() {
        let (dir, elsewhere) =
            (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(NAME)).unwrap();
        assert!(Audit::open(dir.path(), &config::Audit::default(), Arc::new(SystemEnv)).is_err());
    }
}
