//! A socket between hearth and the engine that can hold a commit: before the engine hears of it,
//! or when it is done and hearth has not heard.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;

use crate::docker_engine::LONG;
use crate::site::wait_until;

/// Where a commit is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The engine has not heard of it.
    Request,
    /// The engine has done it, and its answer is here.
    Answer,
}

/// How it stands with the next commit, or with the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    ToBeHeld(At),
    Held,
    Lost,
    GoesOn,
    /// After it went on: the engine has answered.
    Answered,
}

#[derive(Debug)]
struct Shared {
    engine: PathBuf,
    stage: Mutex<Stage>,
    changed: Condvar,
    /// The first line of every request.
    requests: Mutex<Vec<String>>,
    is_closed: AtomicBool,
}

/// The socket. Dropped, it is closed, and what is held is lost.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    dir: TempDir,
}

impl Proxy {
    /// Forwards to the engine at `engine`.
    pub(crate) fn new(engine: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let shared = Arc::new(Shared {
            engine: engine.to_owned(),
            stage: Mutex::new(Stage::Free),
            changed: Condvar::new(),
            requests: Mutex::default(),
            is_closed: AtomicBool::new(false),
        });
        let forwarder = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Whoever closes it connects once more.
                if forwarder.is_closed.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&forwarder);
                std::thread::spawn(move || shared.serve(client));
            }
        });
        Self { shared, dir }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// The next commit is held.
    pub(crate) fn hold(&self, at: At) {
        self.shared.set(Stage::ToBeHeld(at));
    }

    /// Waits until a commit is held.
    pub(crate) fn wait_held(&self) {
        wait_until("a commit is held", || *self.shared.stage.lock() == Stage::Held);
    }

    /// What is held is lost, with its connection.
    pub(crate) fn lose(&self) {
        self.shared.set(Stage::Lost);
    }

    /// What is held goes on.
    pub(crate) fn go_on(&self) {
        self.shared.set(Stage::GoesOn);
    }

    /// Waits until the engine has answered what was held and went on.
    pub(crate) fn wait_answered(&self) {
        wait_until("the commit is done", || *self.shared.stage.lock() == Stage::Answered);
    }

    /// How many requests have had `part` in their first line.
    pub(crate) fn asked(&self, part: &str) -> usize {
        self.shared.requests.lock().iter().filter(|line| line.contains(part)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.lose();
        self.shared.is_closed.store(true, Ordering::Release);
        let _ = UnixStream::connect(self.socket());
    }
}

impl Shared {
    fn set(&self, stage: Stage) {
        *self.stage.lock() = stage;
        self.changed.notify_all();
    }

    /// Holds whoever calls, if a commit is to be held at `at`; false when it is lost.
    fn pass(&self, at: At) -> bool {
        let mut stage = self.stage.lock();
        if *stage != Stage::ToBeHeld(at) {
            return true;
        }
        *stage = Stage::Held;
        self.changed.notify_all();
        let moved = |stage: &mut Stage| *stage == Stage::Held;
        self.changed.wait_while_for(&mut stage, moved, LONG);
        *stage == Stage::GoesOn
    }

    /// Forwards one connection, which has one request: hearth makes one for each.
    fn serve(&self, mut client: UnixStream) {
        let Some(head) = read_head(&mut client) else { return };
        let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or(&[]));
        let is_commit = line.starts_with("POST ") && line.contains("/commit?");
        self.requests.lock().push(line.into_owned());
        let was_held = is_commit && *self.stage.lock() != Stage::Free;
        if is_commit && !self.pass(At::Request) {
            return;
        }
        let Ok(mut engine) = UnixStream::connect(&self.engine) else { return };
        let (Ok(mut from_client), Ok(mut to_engine)) = (client.try_clone(), engine.try_clone())
        else {
            return;
        };
        if to_engine.write_all(&head).is_err() {
            return;
        }
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_engine);
            // A commit's answer is waited for although nobody is left to get it.
            let end = if is_commit { Shutdown::Write } else { Shutdown::Both };
            let _ = to_engine.shutdown(end);
        });
        let mut first = [0; 4096];
        let Ok(count @ 1..) = engine.read(&mut first) else { return };
        if is_commit && !self.pass(At::Answer) {
            return;
        }
        if was_held {
            self.set(Stage::Answered);
        }
        if client.write_all(&first[..count]).is_ok() {
            let _ = std::io::copy(&mut engine, &mut client);
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}

/// A request up to its empty line, and what came with it.
fn read_head(client: &mut UnixStream) -> Option<Vec<u8>> {
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read(&mut piece) {
            Ok(count @ 1..) => head.extend_from_slice(&piece[..count]),
            Ok(_) | Err(_) => return None,
        }
    }
    Some(head)
}
