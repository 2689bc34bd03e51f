//! Starting a program in a session of its own by `posix_spawn`.
//!
//! The standard library makes a session only in a child that was forked, and a fork copies our
//! page tables: of a server of some hundred MiB that takes as long as a restore. `posix_spawn`
//! lets the child borrow our memory until it has its own program.

use std::ffi::{CString, OsStr, OsString, c_char, c_int, c_short};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use rustix::process::Pid;

/// A session of its own, and no signal is ignored or blocked because we ignore or block it.
const FLAGS: c_int =
    libc::POSIX_SPAWN_SETSID as c_int | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;

/// Starts `program` in `dir` without an environment: its input is `/dev/null`, both outputs are
/// `output`. The child is to be reaped by the caller. Blocks until it has become the program.
///
/// # Errors
/// Those of the system calls on both sides; nothing then runs.
pub(super) fn spawn(
    program: &Path,
    arguments: &[OsString],
    dir: &Path,
    output: BorrowedFd<'_>,
) -> io::Result<Pid> {
    let program = c_string(program.as_os_str())?;
    let dir = c_string(dir.as_os_str())?;
    let arguments = arguments.iter().map(|argument| c_string(argument));
    let arguments: Vec<_> = arguments.collect::<io::Result<_>>()?;
    let all = [&program].into_iter().chain(&arguments);
    let mut pointers: Vec<*mut c_char> = all.map(|text| text.as_ptr().cast_mut()).collect();
    pointers.push(ptr::null_mut());
    let environment = [ptr::null_mut()];
    let (mut actions, mut attributes) = (Actions::new()?, Attributes::new()?);
    actions.enter(&dir)?;
    actions.open_input()?;
    actions.set_output(output, libc::STDOUT_FILENO)?;
    actions.set_output(output, libc::STDERR_FILENO)?;
    attributes.set()?;
    let (actions, attributes) = (actions.0.as_ptr(), attributes.0.as_ptr());
    let (arguments, environment) = (pointers.as_ptr(), environment.as_ptr());
    let (program, mut pid) = (program.as_ptr(), 0);
    // SAFETY: all pointers are to live, initialised values; both lists end with a null pointer, and
    // are of strings that live until the end of this function and are not written to.
    check(unsafe {
        libc::posix_spawn(&raw mut pid, program, actions, attributes, arguments, environment)
    })?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("a child without a number"))
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// These functions answer the error's number.
fn check(number: c_int) -> io::Result<()> {
    match number {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

/// What the child does before it becomes the program. Boxed: it may hold pointers to itself.
struct Actions(Box<MaybeUninit<libc::posix_spawn_file_actions_t>>);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut made = Box::new(MaybeUninit::uninit());
        // SAFETY: the pointer is to memory of this type, which the call initialises.
        check(unsafe { libc::posix_spawn_file_actions_init(made.as_mut_ptr()) })?;
        Ok(Self(made))
    }

    fn enter(&mut self, dir: &CString) -> io::Result<()> {
        let actions = self.0.as_mut_ptr();
        // SAFETY: `new` has initialised the actions; the string, which is copied, lives.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(actions, dir.as_ptr()) })
    }

    fn open_input(&mut self) -> io::Result<()> {
        let (actions, path) = (self.0.as_mut_ptr(), c"/dev/null".as_ptr());
        let (input, flags) = (libc::STDIN_FILENO, libc::O_RDONLY);
        // SAFETY: `new` has initialised the actions; the string lives for ever.
        check(unsafe { libc::posix_spawn_file_actions_addopen(actions, input, path, flags, 0) })
    }

    fn set_output(&mut self, from: BorrowedFd<'_>, to: c_int) -> io::Result<()> {
        let (actions, from) = (self.0.as_mut_ptr(), from.as_raw_fd());
        // SAFETY: `new` has initialised the actions; the numbers are looked at by the child alone.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(actions, from, to) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: `new` has initialised them, and nobody uses them any more.
        unsafe { libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr()) };
    }
}

/// What the child is.
struct Attributes(Box<MaybeUninit<libc::posix_spawnattr_t>>);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut made = Box::new(MaybeUninit::uninit());
        // SAFETY: the pointer is to memory of this type, which the call initialises.
        check(unsafe { libc::posix_spawnattr_init(made.as_mut_ptr()) })?;
        Ok(Self(made))
    }

    /// Sets [`FLAGS`], and what they are about.
    fn set(&mut self) -> io::Result<()> {
        let attributes = self.0.as_mut_ptr();
        let (mut none, mut ignored) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the pointer is to memory of this type, which the call initialises.
        unsafe { libc::sigemptyset(none.as_mut_ptr()) };
        // SAFETY: as above.
        unsafe { libc::sigemptyset(ignored.as_mut_ptr()) };
        // SAFETY: the set has been initialised by the line before, and the signal exists. It is the
        // one that every Rust program ignores.
        unsafe { libc::sigaddset(ignored.as_mut_ptr(), libc::SIGPIPE) };
        // SAFETY: `new` has initialised the attributes, and the set is initialised, too.
        check(unsafe { libc::posix_spawnattr_setsigmask(attributes, none.as_ptr()) })?;
        // SAFETY: as above.
        check(unsafe { libc::posix_spawnattr_setsigdefault(attributes, ignored.as_ptr()) })?;
        // SAFETY: `new` has initialised the attributes.
        check(unsafe { libc::posix_spawnattr_setflags(attributes, FLAGS as c_short) })
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: `new` has initialised them, and nobody uses them any more.
        unsafe { libc::posix_spawnattr_destroy(self.0.as_mut_ptr()) };
    }
}
