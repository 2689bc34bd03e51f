//! Rows: a state, what is asked there, and how the fate is waited for.

use serde_json::Value;

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// The row needs root: for network namespaces, or for a jail.
    pub(crate) needs_root: bool,
    /// What is seen depends on this host, so it is compared with the real program alone.
    pub(crate) is_of_this_host: bool,
}

/// What a row is about.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Something asked of the API.
    Api(Api),
    /// A command line of Firecracker that ends by itself, after these steps.
    Command(Vec<Step>, Vec<&'static str>),
    /// A command line of the jailer.
    Jailer(Jailer),
}

/// Something asked of the API.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) steps: Vec<Step>,
    pub(crate) asked: Asked,
    /// The process may die of it, so its end is waited for before anything else is asked.
    pub(crate) may_die: bool,
    /// The exit status is a matter of chance: a guest whose virtual processor shuts down ends
    /// the real program with 0 or with 1.
    pub(crate) exit_varies: bool,
}

impl Api {
    pub(crate) fn new(steps: Vec<Step>, asked: Asked) -> Self {
        Self { steps, asked, may_die: false, exit_varies: false }
    }
}

/// A step towards the state.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A request that is answered with 204.
    Do(Request),
    /// A request that is refused.
    Refused(Request),
    /// Makes a file of so many bytes.
    File(&'static str, u64),
    /// Changes a file.
    Change(&'static str, Change),
    /// Removes a file.
    Remove(&'static str),
    /// Ends the process and starts another; sockets stay.
    Restart,
    /// Starts another process, and keeps the one before.
    Another,
    /// Waits until the guest has counted on.
    Counts,
}

/// How a file is changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    FlipMiddle,
    FlipLast,
    Shorten(u64),
    Empty,
    /// Another version in the header of a state file.
    Version,
    /// Another magic number in it.
    Magic,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// A request.
    Request(Request),
    /// These bytes, and so many answers.
    Bytes(Vec<u8>, usize),
    /// Nothing, on the first of so many connections that is one too many.
    Connections(usize),
    /// Whether the guest's count goes on where the one before stood.
    CountsOn,
}

/// A request; `DIR` in its body is the row's directory.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) body: Option<String>,
}

/// A command line of the jailer.
#[derive(Debug)]
pub(crate) struct Jailer {
    /// `DIR` and `PROGRAM` stand for the row's directory and Firecracker.
    pub(crate) arguments: Vec<&'static str>,
    /// How often it is run, each time but the last to its end.
    pub(crate) runs: usize,
}

pub(crate) fn get(path: &'static str) -> Request {
    Request { method: "GET", path, body: None }
}

pub(crate) fn put(path: &'static str, body: Value) -> Request {
    Request { method: "PUT", path, body: Some(body.to_string()) }
}

pub(crate) fn patch(path: &'static str, body: Value) -> Request {
    Request { method: "PATCH", path, body: Some(body.to_string()) }
}

/// A row that asks one request.
pub(crate) fn row(name: &'static str, steps: Vec<Step>, asked: Request) -> Row {
    row_of(name, Api::new(steps, Asked::Request(asked)))
}

/// A row that asks one request of which the process may die.
pub(crate) fn fatal(name: &'static str, steps: Vec<Step>, asked: Request) -> Row {
    row_of(name, Api { may_die: true, ..Api::new(steps, Asked::Request(asked)) })
}

pub(crate) fn row_of(name: &'static str, api: Api) -> Row {
    Row { name, kind: Kind::Api(api), needs_root: false, is_of_this_host: false }
}
