//! Ways in for a search for input that the parsers here cannot bear: see `fuzz/` and decision 31.
//!
//! Each [`Target`] takes any bytes. What is wrong with them is an error like others, which it drops; it
//! panics for what may never be, and so does whatever it calls. Nothing of it is reached by a server.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::agent::Agent;
use crate::directory::Paths;
use crate::engine::Engine;
use crate::env::SeededEnv;
use crate::id::{SnapshotId, Uid, VmId};
use crate::memory::MemoryBackend;
use crate::provider::{GuestChannel, VmProvider as _, VmQuery as _};

/// How long anything may take of whoever has said all that it will ever say.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// One way in.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Takes any bytes. It panics when something is wrong with us.
    pub run: fn(&[u8]),
}

/// All that are here.
pub const TARGETS: &[Target] = &[
    Target { name: "ids", run: ids },
    Target { name: "guest_agent", run: guest_agent },
    Target { name: "snapshots", run: snapshots },
    Target { name: "records", run: records },
    #[cfg(all(feature = "qemu", target_os = "linux"))]
    Target { name: "qmp", run: crate::qemu::fuzz::qmp },
    #[cfg(all(feature = "firecracker", target_os = "linux"))]
    Target { name: "firecracker_api", run: crate::firecracker::fuzz::api },
    #[cfg(all(feature = "firecracker", target_os = "linux"))]
    Target { name: "firecracker_vsock", run: crate::firecracker::fuzz::vsock },
    #[cfg(all(feature = "apple-container", feature = "smolvm"))]
    Target { name: "listings", run: listings },
    #[cfg(feature = "apple-container")]
    Target { name: "container_export", run: crate::apple_container::fuzz::export },
    #[cfg(all(feature = "docker", target_os = "linux"))]
    Target { name: "docker_labels", run: crate::docker::fuzz::labels },
];

/// Bytes cut into pieces, each of which two bytes before it tell the length of.
pub fn pieces(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let [low, high, rest @ ..] = bytes {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (piece, after) = rest.split_at(len);
        pieces.push(piece);
        bytes = after;
    }
    pieces
}

/// The end of a stream whose other end says `words`, whatever it hears, and then that this is all.
/// `None` when they do not fit into it.
pub(crate) fn peer(words: &[u8]) -> Option<UnixStream> {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    theirs.set_nonblocking(true).expect("it does not block");
    theirs.write_all(words).ok()?;
    theirs.shutdown(std::net::Shutdown::Write).expect("it has said all");
    // It is listened to for as long as it is spoken to: a thread for each try would be too slow.
    let mut kept = HEARD.lock();
    kept.push_back(theirs);
    if kept.len() > MAX_HEARD {
        kept.pop_front();
    }
    Some(ours)
}

/// The last peers, which hear what is said to them as long as they are here.
static HEARD: parking_lot::Mutex<std::collections::VecDeque<UnixStream>> =
    parking_lot::Mutex::new(std::collections::VecDeque::new());
const MAX_HEARD: usize = 4;

/// Ids and uids: whatever is one can be a file's name, is its own canonical text, and collides with no
/// other on any file system.
fn ids(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = [
        VmId::parse(text).map(|id| id.to_string()).ok(),
        SnapshotId::parse(text).map(|id| id.to_string()).ok(),
        serde_json::to_string(text)
            .ok()
            .and_then(|json| serde_json::from_str::<VmId>(&json).ok())
            .map(|id| id.to_string()),
    ];
    for id in read.into_iter().flatten() {
        assert_eq!(id, text, "an id is what was said");
        let of_file_names =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!((1..=63).contains(&id.len()) && id.bytes().all(of_file_names), "{id:?}");
        assert!(!id.starts_with('-') && !id.ends_with('-'), "{id:?} would be an option");
    }
    if let Ok(uid) = text.parse::<Uid>() {
        let canonical = uid.to_string();
        assert_eq!(canonical.parse(), Ok(uid));
        assert_eq!(canonical.len(), 36);
        assert!(VmId::parse(&canonical).is_ok(), "a uid is a file's name");
    }
}

/// A guest that answers its host.
fn guest_agent(bytes: &[u8]) {
    struct Channel(UnixStream);
    impl std::io::Read for Channel {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(into)
        }
    }
    impl std::io::Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl GuestChannel for Channel {
        fn set_timeout(&mut self, timeout: Duration) -> std::io::Result<()> {
            self.0.set_write_timeout(Some(timeout))?;
            self.0.set_read_timeout(Some(timeout))
        }
    }
    let nonce = Uid::from_random([7; 16]);
    // A guest knows what it was asked; a search does not find 128 bits.
    let mut words = format!("echo {nonce}\n").into_bytes();
    words.extend_from_slice(bytes);
    let Some(stream) = peer(&words) else { return };
    let mut agent = Agent::greet(Box::new(Channel(stream)), nonce, TIMEOUT).expect("it answers");
    // Nobody takes what is asked, so it is not asked without end.
    for _ in 0..64 {
        let (Ok(_) | Err(crate::VmRuntimeError::Backend { .. })) = agent.ping(TIMEOUT) else {
            return;
        };
    }
}

/// What tools say of their machines.
#[cfg(all(feature = "apple-container", feature = "smolvm"))]
fn listings(bytes: &[u8]) {
    crate::smolvm::fuzz::listing(bytes);
    crate::apple_container::fuzz::listing(bytes);
}

/// The records of processes and machines, as a start reads them: the first byte says of which kind.
fn records(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => drop(crate::files::fuzz::<crate::snapshots::Record>(text)),
        1 => crate::engine::fuzz(text),
        #[cfg(target_os = "linux")]
        2 => drop(crate::files::fuzz::<crate::supervise::ProcessRecord>(text)),
        #[cfg(all(feature = "qemu", target_os = "linux"))]
        3 => crate::qemu::fuzz::image(text),
        #[cfg(all(feature = "firecracker", target_os = "linux"))]
        4 => crate::firecracker::fuzz::image(text),
        #[cfg(all(feature = "docker", target_os = "linux"))]
        5 => crate::docker::fuzz::record(text),
        #[cfg(any(feature = "apple-container", feature = "smolvm"))]
        6 => crate::cli::fuzz(text),
        _ => {}
    }
}

/// A state directory with damaged records of two snapshots and a VM. Whatever they say, the provider
/// opens, nothing outside of the directory is touched, and what it shows it can destroy.
fn snapshots(bytes: &[u8]) {
    let pieces = pieces(bytes);
    let [record, guest, rest @ ..] = pieces.as_slice() else { return };
    let root = Scratch::new();
    let paths = Paths { state: root.0.join("state"), runtime: root.0.join("run") };
    let uid = |byte| Uid::from_random([byte; 16]);
    let put = |dir: &std::path::Path, name: &str, text: &[u8]| {
        std::fs::create_dir_all(dir).expect("a directory");
        std::fs::write(dir.join(name), text).expect("a file");
    };
    put(&root.0, "outside", b"outside");
    put(&paths.snapshot(uid(1)), "snapshot.json", record);
    put(&paths.snapshot(uid(1)), "guest.json", guest);
    if let [record, guest, ..] = rest {
        put(&paths.instance(uid(2)), "instance.json", record);
        put(&paths.instance(uid(2)), "guest.json", guest);
    }
    let env = std::sync::Arc::new(SeededEnv::new(1));
    let backend = MemoryBackend::durable(std::sync::Arc::clone(&env) as _);
    let (engine, _) = Engine::open("memory", backend, std::sync::Arc::clone(&env) as _, paths)
        .expect("damaged records keep no provider from opening");
    for view in engine.list_vms() {
        let _ = engine.snapshot_vm(&view.vm_id, &SnapshotId::parse("s").expect("an id"));
        let _ = engine.start_vm(&view.vm_id);
        engine.destroy_vm(&view.vm_id).expect("what it shows it can destroy");
    }
    for snapshot in engine.all_snapshots() {
        for pin in &snapshot.pinned_by {
            let _ = engine.unpin_snapshot(snapshot.uid, pin);
        }
    }
    drop(engine);
    assert_eq!(std::fs::read(root.0.join("outside")).expect("it is there"), b"outside");
    let left: Vec<_> = std::fs::read_dir(&root.0).expect("it is there").flatten().collect();
    assert_eq!(left.len(), 3, "nothing is made beside the directory: {left:?}");
}

/// A directory of its own, in memory where the host has a place for that; gone when dropped.
pub struct Scratch(
    /// Where it is.
    pub std::path::PathBuf,
);

impl Scratch {
    /// A new one.
    ///
    /// # Panics
    /// When none can be made.
    #[expect(clippy::new_without_default, reason = "it makes something")]
    pub fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = std::path::Path::new("/dev/shm");
        let within = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = within.join(format!("hearth-fuzz-{}-{number}", std::process::id()));
        crate::directory::make_private_dir(&dir).expect("a directory");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
