//! What happened in one run, in order: every request, answer, effect on a VM, crash. Nothing else
//! is shown to the checker.

use std::sync::Arc;
use std::time::Duration;

use hearth_pool::env::Env as _;
use hearth_pool::journal::Source;
use hearth_pool::pool::Overflow;
use hearth_providers::{Uid, VmId, VmStatus};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::env::SimEnv;

/// Names one call of the service.
pub(crate) type CallId = u64;

/// Who asks: a tenant's number, or the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Tenant(u64),
    Operator,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Acquire(AcquireAsk),
    /// `uid` is who is meant; `by_uid` says whether the service is told.
    Release {
        vm_id: VmId,
        uid: Uid,
        by_uid: bool,
    },
    Renew {
        vm_id: VmId,
        uid: Uid,
        ttl: Duration,
    },
    Rename {
        vm_id: VmId,
        uid: Uid,
        to: VmId,
    },
    Get {
        vm_id: VmId,
    },
    List,
    Status,
    Depth(usize),
    Drain(bool),
    Rebuild,
}

/// An acquire that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcquireAsk {
    pub(crate) vm_id: Option<VmId>,
    pub(crate) request_id: Option<String>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) ttl: Duration,
    pub(crate) deadline: Option<Duration>,
}

/// A VM in a list, with the tenant and the request id of its lease.
pub(crate) type ListedVm = (VmId, Uid, Option<(String, Option<String>)>);

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Got {
        vm_id: VmId,
        uid: Uid,
        replayed: bool,
        source: Source,
        deadline: Duration,
    },
    Seen {
        vm_id: VmId,
        uid: Uid,
        deadline: Duration,
        status: VmStatus,
    },
    Vms(Vec<ListedVm>),
    Status {
        waiting: usize,
        restoring: usize,
        warm: usize,
        target: usize,
    },
    /// A template was built: its generation.
    Built(i64),
    Done,
    Refused(&'static str),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A life of the service begins: it recovers.
    Life(usize),
    /// It serves.
    Started,
    /// Everybody leaves, and nothing fails any more.
    Quiet,
    /// It is killed.
    Crash(&'static str),
    Ask(CallId, Who, Ask),
    Answer(CallId, Answer),
    /// The caller of this call left before its answer.
    Leave(CallId),
    /// The pool was made.
    Pool {
        max_warm_age: Option<Duration>,
    },
    /// A VM came to be, with the generation of the pool's template, if any.
    Made {
        vm_id: VmId,
        uid: Uid,
        generation: Option<i64>,
    },
    Renamed {
        uid: Uid,
        from: VmId,
        to: VmId,
    },
    Destroyed {
        uid: Uid,
        vm_id: VmId,
    },
    Probed {
        uid: Uid,
    },
    Paused {
        uid: Uid,
    },
    Resumed {
        uid: Uid,
    },
    /// A VM ended by itself.
    Died {
        uid: Uid,
    },
    /// A call of the provider failed, or its answer was lost.
    Failed {
        verb: &'static str,
        vm_id: Option<VmId>,
        kind: &'static str,
    },
    /// A job of this class has a place until then.
    Job {
        class: &'static str,
        until: Duration,
    },
    /// The wall clock was stepped.
    Stepped(i64),
    /// What the provider has when nothing is under way any more.
    Settled(Vec<(VmId, Uid)>),
    /// What it has after everything was released and the pool's depth is 0.
    Emptied(Vec<(VmId, Uid)>),
    /// The service's own code panicked.
    Panicked(String),
}

/// One line of a history.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// When, by the boot clock.
    pub(crate) at: Duration,
    pub(crate) what: What,
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>12} us  {:?}", self.at.as_micros(), self.what)
    }
}

/// A history that is being written.
#[derive(Clone)]
pub(crate) struct History {
    env: Arc<SimEnv>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    hash: Sha256,
    calls: CallId,
}

impl History {
    pub(crate) fn new(env: Arc<SimEnv>) -> Self {
        Self { env, log: Arc::default() }
    }

    pub(crate) fn push(&self, what: What) {
        let event = Event { at: self.env.boot_time(), what };
        let mut log = self.log.lock();
        log.hash.update(event.to_string());
        log.hash.update("\n");
        log.events.push(event);
    }

    /// Notes a request; answers what its answer is to name.
    pub(crate) fn ask(&self, who: Who, ask: Ask) -> CallId {
        let call = {
            let mut log = self.log.lock();
            log.calls += 1;
            log.calls
        };
        self.push(What::Ask(call, who, ask));
        call
    }

    pub(crate) fn answer(&self, call: CallId, answer: Answer) {
        self.push(What::Answer(call, answer));
    }

    /// Ends it: everything that happened, and its SHA-256 in hexadecimal.
    pub(crate) fn finish(&self) -> (Vec<Event>, String) {
        let mut log = self.log.lock();
        let hash = std::mem::take(&mut log.hash).finalize();
        let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        (std::mem::take(&mut log.events), hash)
    }
}
