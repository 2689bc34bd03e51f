//! What happened in one run, in order: every request, every answer as it came over the wire, every
//! effect on a VM, every crash. Nothing else is shown to the checker.

use std::sync::Arc;
use std::time::Duration;

use hearth_proto::v1;
use hearth_providers::{Uid, VmId};
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

impl Who {
    /// What the service calls it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tenant(number) => format!("t{number}"),
            Self::Operator => "operator".to_owned(),
        }
    }
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
    Freeze {
        uid: Uid,
        artifact_id: Option<String>,
    },
    Resume(ResumeAsk),
    Artifacts,
    DeleteArtifact {
        uid: Uid,
    },
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
    pub(crate) overflow: v1::pool::Overflow,
    pub(crate) ttl: Duration,
    pub(crate) deadline: Option<Duration>,
    /// The device of the host that is to be the VM's network.
    pub(crate) device: Option<String>,
}

/// A resume that is asked for, of an artifact of that uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResumeAsk {
    pub(crate) id: String,
    pub(crate) artifact: Uid,
    pub(crate) vm_id: Option<VmId>,
    pub(crate) request_id: Option<String>,
    pub(crate) ttl: Duration,
}

/// A VM, as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenVm {
    pub(crate) vm_id: VmId,
    pub(crate) uid: Uid,
    pub(crate) state: v1::vm::State,
    /// Empty: nobody has it.
    pub(crate) tenant: String,
    /// When its lease ends, since 1970.
    pub(crate) expires: Duration,
    pub(crate) request_id: Option<String>,
}

/// An artifact, as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenArtifact {
    pub(crate) id: String,
    pub(crate) uid: Uid,
    pub(crate) tenant: String,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Got {
        vm: SeenVm,
        replayed: bool,
        is_cold: bool,
    },
    Resumed(SeenVm),
    Seen(SeenVm),
    Vms(Vec<SeenVm>),
    Frozen(SeenArtifact),
    Artifacts(Vec<SeenArtifact>),
    Status {
        waiting: usize,
        restoring: usize,
        warm: usize,
        target: usize,
    },
    /// A template was built: its generation.
    Built(i64),
    Done,
    /// With the reason of its `ErrorInfo`, and what it says of VMs that may be left.
    Refused {
        reason: String,
        allocated: Option<bool>,
    },
    /// Nothing that the API has.
    Nonsense(String),
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
    /// So many bytes of a record that was being written are left at the journal's end.
    Torn(usize),
    /// The host was booted anew: no VM runs any more.
    Rebooted,
    Ask(CallId, Who, Ask),
    Answer(CallId, Answer),
    /// The caller of this call left before its answer.
    Leave(CallId),
    /// The pool was made.
    Pool {
        max_warm_age: Option<Duration>,
        is_paused: bool,
        /// What is warm of the generation before serves until it is replaced.
        is_rolling: bool,
    },
    /// A VM came to be, with the generation of the pool's template, the snapshot that it began from
    /// and the device of the host that it was told to use, if any.
    Made {
        vm_id: VmId,
        uid: Uid,
        generation: Option<i64>,
        snapshot: Option<Uid>,
        device: Option<String>,
    },
    Renamed {
        uid: Uid,
        from: VmId,
        to: VmId,
    },
    /// The service was told that its rename of a warm VM to a tenant's name is done, or would have
    /// been, had it not been killed then.
    Handed {
        uid: Uid,
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
    /// The VMs that it has at the very end, and the snapshots, each with its pins.
    Swept(Vec<(VmId, Uid)>, Vec<String>),
    /// The service's own code panicked.
    Panicked(String),
}

/// One line of a history.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// When, by a clock that nothing steps.
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
        let event = Event { at: self.env.world_time(), what };
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
