//! The API server: many connections, one request at a time.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};

use super::answer::{Answer, Fate, go_ahead, too_many_connections};
use super::settings::What;
use super::vmm::Vmm;
use super::wire::{Event, Reader, Request};

const MAX_CONNECTIONS: usize = 10;

/// Serves `listener` for ever.
pub(super) fn serve(listener: &UnixListener, vmm: Vmm, max_body_bytes: usize) -> ! {
    let console = Arc::clone(&vmm.console);
    let vmm = Arc::new(Mutex::new(vmm));
    let open = Arc::new(AtomicUsize::new(0));
    console.log("fc_api", "API server started.");
    loop {
        let Ok((mut connection, _)) = listener.accept() else { continue };
        // The real server does not even look at a connection while it works on a request.
        drop(vmm.lock());
        if !has_room(&open) {
            // Who has gone does not miss it.
            let _ = connection.write_all(&too_many_connections());
            continue;
        }
        open.fetch_add(1, Ordering::AcqRel);
        let (vmm, open) = (Arc::clone(&vmm), Arc::clone(&open));
        std::thread::spawn(move || {
            // A connection that breaks is the client's affair.
            let _ = converse(&mut connection, &vmm, max_body_bytes);
            drop(connection);
            open.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

/// Whether one more connection may be open. The real server sees who has gone before it sees who
/// comes; here a client that has gone is counted until its thread has seen that, which may take a
/// moment.
fn has_room(open: &AtomicUsize) -> bool {
    (0..50).any(|_| {
        let has_room = open.load(Ordering::Acquire) < MAX_CONNECTIONS;
        if !has_room {
            std::thread::sleep(Duration::from_millis(2));
        }
        has_room
    })
}

fn converse(
    connection: &mut UnixStream,
    vmm: &Mutex<Vmm>,
    max_body_bytes: usize,
) -> io::Result<()> {
    let mut reader = Reader::new(max_body_bytes);
    loop {
        let count = connection.read(reader.room())?;
        if count == 0 {
            return Ok(());
        }
        let mut events = Vec::new();
        let read = reader.take(count, &mut events);
        let mut vmm = vmm.lock();
        for event in events {
            match event {
                Event::Continue(version) => connection.write_all(&go_ahead(version))?,
                // A read that ends in nonsense takes the requests before that with it.
                Event::Request(_) if read.is_err() => {}
                Event::Request(request) => answer(connection, &mut vmm, &request)?,
            }
        }
        if let Err(reason) = read {
            connection.write_all(&Answer::unreadable(&reason).bytes())?;
        }
    }
}

/// Answers one request, unless something goes wrong with it. The caller has the turn, and keeps
/// it when the process is to hang.
fn answer(connection: &mut UnixStream, vmm: &mut Vmm, request: &Request) -> io::Result<()> {
    vmm.settings = vmm.installation.settings();
    let fault = vmm.installation.fault(&vmm.settings, &request.method, &request.path);
    let fault = fault.map(|fault| fault.what);
    match &fault {
        Some(What::Hang) => hang(),
        Some(What::Eof) => std::process::abort(),
        Some(What::Exit(status)) => super::exit(*status),
        Some(What::Signal(number)) => end_by(*number),
        Some(What::Refuse { status, body }) => {
            let body = Some(body.clone());
            let refused = Answer { status: *status, body, ..Answer::done() };
            return connection.write_all(&refused.bytes());
        }
        Some(What::DelayMillis(millis)) => std::thread::sleep(Duration::from_millis(*millis)),
        Some(What::LoseAnswer | What::DieAfter { .. }) | None => {}
    }
    let answer = vmm.handle(request);
    if fault == Some(What::LoseAnswer) {
        return Ok(());
    }
    if answer.fate == Fate::Aborts {
        vmm.console.log("main", "Firecracker panicked: the memory is not of this snapshot");
        std::process::abort();
    }
    let sent = connection.write_all(&answer.bytes());
    if let Fate::Exits(said) = answer.fate {
        eprintln!("Error: {said}");
        vmm.console.log("main", "Firecracker exiting with error. exit_code=1");
        super::exit(1);
    }
    if let Some(What::DieAfter { status }) = fault {
        super::exit(status);
    }
    sent
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

fn end_by(number: i32) -> ! {
    if let Some(signal) = Signal::from_named_raw(number) {
        let own = Pid::from_raw(std::process::id().cast_signed());
        // It may take a moment to arrive.
        let _ = rustix::process::kill_process(own.expect("a process has an id"), signal);
    }
    hang()
}
