//! The guest channel: a byte stream to the host, of which the host may let go at any time.
//!
//! A virtio-serial port without a peer reads as ended and polls as hung up, at once and
//! for ever. Waiting is therefore edge-triggered: the kernel wakes us when a peer comes,
//! sends or goes, and nothing turns meanwhile, so an idle clone costs next to nothing.
//!
//! The kernel takes bytes and the news that a peer came or went on different ways. A request
//! can be here before its peer is known to be, so an answer waits a little for a peer; and a
//! peer that went and came again may not have been seen to go, so what one peer began or did
//! not fetch can reach the next. Whoever needs a clean start sends an empty line and an
//! `echo` of something new, and reads up to its answer.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::agent::{Agent, uptime};
use crate::console;
use crate::device;
use crate::line::LineCutter;

/// How long answers wait for a peer that is not there, or does not read, before they are dropped.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked for a peer while an answer waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How often we look around when nothing happens.
const IDLE_PERIOD: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The open channel, or the lack of one.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: Option<Stream>,
}

impl Channel {
    /// Looks for the channel until it is there, or until it is clear that there is none.
    pub(crate) fn find() -> Self {
        const TRIES: u32 = 400;
        for _ in 0..TRIES {
            let stream = Stream::open();
            // The driver tells of its ports a moment after it has found the device.
            if stream.is_some() || !device::is_present(device::Virtio::Console) {
                return Self { stream };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { stream: None }
    }

    /// Lets `agent` answer lines with lines, as long as the machine lives.
    pub(crate) fn serve(&mut self, agent: &mut Agent) -> ! {
        if self.stream.is_none() {
            console::line("agent: there is no guest channel");
        }
        loop {
            match self.stream.as_mut().map(|stream| stream.turn(agent)) {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    console::line(&format!("agent: the guest channel broke: {error}"));
                    self.stream = None;
                }
                None => {
                    std::thread::sleep(Duration::from_secs(1));
                    self.stream = Stream::open();
                }
            }
            agent.tick();
            reap();
        }
    }
}

/// One device, open, raw and watched.
#[derive(Debug)]
struct Stream {
    device: File,
    watch: OwnedFd,
    cutter: LineCutter,
    /// When answers stop waiting; set while one waits or the last one was dropped.
    give_up_at: Option<Duration>,
}

impl Stream {
    /// Opens the device if there is one; `None` also when it cannot be opened, which the
    /// console is told.
    fn open() -> Option<Self> {
        let path = device::guest_channel()?;
        Self::open_at(&path)
            .inspect_err(|error| {
                console::line(&format!("agent: cannot open {}: {error}", path.display()));
            })
            .ok()
    }

    fn open_at(path: &Path) -> std::io::Result<Self> {
        // A serial port that waited for its carrier, or became our controlling terminal,
        // would stop the first process.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let device = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        if let Ok(mut terminal) = tcgetattr(&device) {
            terminal.make_raw();
            tcsetattr(&device, OptionalActions::Now, &terminal)?;
        }
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let events = epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ET;
        epoll::add(&watch, &device, epoll::EventData::new_u64(0), events)?;
        Ok(Self { device, watch, cutter: LineCutter::default(), give_up_at: None })
    }

    /// Waits until something happens, or for [`IDLE_PERIOD`], and answers what has come.
    fn turn(&mut self, agent: &mut Agent) -> std::io::Result<()> {
        let nothing = epoll::EventFlags::empty();
        let mut happened = [epoll::Event { flags: nothing, data: epoll::EventData::new_u64(0) }];
        match epoll::wait(&self.watch, &mut happened, Some(&IDLE_PERIOD)) {
            Ok(0) => {
                if self.state(PollFlags::empty(), Duration::ZERO)?.contains(PollFlags::HUP) {
                    // The peer has been gone for long, and what it began is nobody's.
                    self.cutter.reset();
                }
                return Ok(());
            }
            Ok(_) => self.give_up_at = None,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // The edge is told once: all that is there has to be taken now.
        let mut bytes = [0; 4096];
        loop {
            match self.device.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    for cut in self.cutter.push(&bytes[..count]) {
                        let answer = agent.answer(&cut);
                        self.send(&answer.line)?;
                        if let Some(end) = answer.end {
                            end.now();
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one line, or drops it when [`PATIENCE`] has run out. It runs for all answers to
    /// what was read at once, so that a peer that left many requests does not stop us for long.
    fn send(&mut self, line: &str) -> std::io::Result<()> {
        let bytes = format!("{line}\n").into_bytes();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match self.device.write(rest) {
                Ok(count) => {
                    rest = &rest[count..];
                    self.give_up_at = None;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let now = uptime();
                    let give_up_at = *self.give_up_at.get_or_insert(now + PATIENCE);
                    if now >= give_up_at {
                        return Ok(());
                    }
                    // Hung up is told at once and again and again: pause in between.
                    if self.state(PollFlags::OUT, give_up_at - now)?.contains(PollFlags::HUP) {
                        std::thread::sleep(LOOK_AGAIN);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is true of the device among `wanted` and its being hung up, waiting for it at
    /// most for `patience`.
    fn state(&self, wanted: PollFlags, patience: Duration) -> std::io::Result<PollFlags> {
        let mut polled = [PollFd::new(&self.device, wanted)];
        let patience = Timespec {
            tv_sec: patience.as_secs().cast_signed(),
            tv_nsec: patience.subsec_nanos().into(),
        };
        match poll(&mut polled, Some(&patience)) {
            Ok(_) => Ok(polled[0].revents()),
            Err(Errno::INTR) => Ok(PollFlags::empty()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes leave of every child that has ended, ours or an orphan that became ours.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
