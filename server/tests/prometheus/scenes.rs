//! Faults: a hearth each, tenants at some pace, what is done to it, and how that is taken back.
//!
//! All of it is done from outside to the program as it is released: its files are moved away, its process is
//! stopped, killed or bounded, its system calls are delayed or fail (strace), its tenants misbehave.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::load::Pace;
use crate::node::Node;
use crate::tools::wait_for;

/// One fault.
pub(crate) struct Scene {
    /// What its hearth is called.
    pub(crate) name: &'static str,
    /// What is done, as people read it.
    pub(crate) fault: &'static str,
    /// The alerts that have to fire for it.
    pub(crate) alerts: &'static [&'static str],
    /// It is over soon, and takes nothing but Prometheus.
    pub(crate) is_short: bool,
    /// What its hearth is configured with.
    pub(crate) config: &'static str,
    pub(crate) pace: Pace,
    /// The pace while the fault is there, where that is the fault.
    pub(crate) fault_pace: Option<Pace>,
    /// Makes the fault.
    pub(crate) inject: fn(&mut Node) -> Fault,
}

/// A fault that is there.
pub(crate) enum Fault {
    /// It is over by itself.
    Passing,
    /// Something that does it, and ends on SIGINT.
    Program(Child),
    /// A directory that was moved away, and where it belongs.
    Moved(PathBuf, PathBuf),
    /// A process that was stopped.
    Stopped,
    /// A bound that was lowered, and what it was.
    Bounded(Rlimit),
    /// VMs that are to be released.
    Vms(Vec<String>),
}

impl Fault {
    /// Takes it back.
    pub(crate) fn heal(self, node: &Node) {
        match self {
            Self::Passing => {}
            Self::Program(mut program) => {
                kill_process(rustix::process::Pid::from_child(&program), Signal::INT).unwrap();
                program.wait().unwrap();
            }
            Self::Moved(from, to) => std::fs::rename(from, to).unwrap(),
            Self::Stopped => node.signal(Signal::CONT),
            Self::Bounded(was) => drop(prlimit(Some(node.pid()), Resource::Nofile, was).unwrap()),
            Self::Vms(names) => assert!(names.iter().all(|name| node.cli(&["release", name]))),
        }
    }
}

const EIGHT_AT_ONCE: Pace = Pace { at_once: 8, every: Duration::from_millis(500), ..Pace::STEADY };
const FORGETFUL: Pace = Pace { at_once: 4, forgets: Some(Duration::from_secs(1)), ..Pace::STEADY };
const WITH_DEDICATED: Pace = Pace { at_once: 3, with_dedicated: true, ..Pace::STEADY };
const NOBODY: Pace = Pace { at_once: 0, ..Pace::STEADY };
const FOUR: &str = "[default_pool]\ndepth = 4\n";
const SIXTEEN: &str =
    "[limits]\nmax_waiting = 2\n[default_pool]\ndepth = 16\nmax_parallel_restores = 1\n";
const AUDITED: &str = "[audit]\nenabled = true\n[default_pool]\ndepth = 4\n";
const FEW_CONNECTIONS: &str = "[grpc]\nmax_connections = 2\n[default_pool]\ndepth = 4\n";

/// Every scene.
pub(crate) const SCENES: [Scene; 11] = [
    Scene {
        name: "broken",
        fault: "the template's snapshot is moved away",
        alerts: &[
            "HearthPoolEmpty",
            "HearthAcquiresFail",
            "HearthRestoresFail",
            "HearthBreakerOpen",
        ],
        is_short: true,
        config: FOUR,
        pace: WITH_DEDICATED,
        fault_pace: None,
        inject: |node| {
            let (here, away) = (node.state().join("snapshots"), node.state().join("away"));
            std::fs::rename(&here, &away).unwrap();
            Fault::Moved(away, here)
        },
    },
    Scene {
        name: "forgotten",
        fault: "tenants neither release nor renew",
        alerts: &["HearthLeasesExpire"],
        is_short: true,
        config: FOUR,
        pace: Pace::STEADY,
        fault_pace: Some(FORGETFUL),
        inject: |_| Fault::Passing,
    },
    Scene {
        name: "panicking",
        fault: "the guests of four VMs panic",
        alerts: &["HearthVmsFail"],
        is_short: true,
        config: FOUR,
        pace: Pace::STEADY,
        fault_pace: None,
        inject: |node| {
            let names: Vec<_> = (0..4).map(|it| format!("patient-{it}")).collect();
            for name in &names {
                wait_for("a VM to fail", || {
                    node.cli(&["acquire", "--name", name, "--ttl", "1h"]).then_some(())
                });
                // It ends before it has answered.
                node.cli(&["vms", "ask", name, "panic"]);
            }
            Fault::Vms(names)
        },
    },
    Scene {
        name: "bounded",
        fault: "the bound of its file descriptors is lowered to what it has open",
        alerts: &["HearthFilesRunOut"],
        is_short: true,
        config: FOUR,
        pace: Pace::STEADY,
        fault_pace: None,
        inject: |node| {
            let was = getrlimit(Resource::Nofile);
            let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid().as_raw_nonzero()));
            let bound = open.unwrap().count() as u64 * 11 / 10;
            let bound = Rlimit { current: Some(bound), maximum: was.maximum };
            Fault::Bounded(prlimit(Some(node.pid()), Resource::Nofile, bound).unwrap())
        },
    },
    Scene {
        name: "crowded",
        fault: "more clients connect than it may have connections",
        alerts: &["HearthConnectionsRefused"],
        is_short: true,
        config: FEW_CONNECTIONS,
        pace: NOBODY,
        fault_pace: None,
        inject: |node| {
            // The three seconds that the alert waits for, and more.
            for _ in 0..60 {
                let crowd: Vec<_> = (0..20).map(|_| TcpStream::connect(node.address())).collect();
                std::thread::sleep(Duration::from_millis(100));
                drop(crowd);
            }
            Fault::Passing
        },
    },
    Scene {
        name: "stopped",
        fault: "its process is stopped (SIGSTOP)",
        alerts: &["HearthDown"],
        is_short: false,
        config: FOUR,
        pace: Pace::STEADY,
        fault_pace: None,
        inject: |node| {
            node.signal(Signal::STOP);
            Fault::Stopped
        },
    },
    Scene {
        name: "crashing",
        fault: "it is killed four times, and finds half of an instance",
        alerts: &["HearthRestarts", "HearthOrphansReaped"],
        is_short: false,
        config: FOUR,
        pace: Pace::STEADY,
        fault_pace: None,
        inject: |node| {
            let half = |state: &Path| {
                let instance = "5f0c1a2b-2ba6-48c2-b0e8-ca81fe556e73";
                std::fs::create_dir(state.join("instances").join(instance)).unwrap();
            };
            for life in 0..4 {
                node.crash(|state| {
                    if life == 3 {
                        half(state)
                    }
                });
                // Each life is seen.
                std::thread::sleep(Duration::from_millis(1500));
            }
            Fault::Passing
        },
    },
    Scene {
        name: "slow-restores",
        fault: "every restore takes 400 ms longer (strace: mkdir)",
        alerts: &[
            "HearthRefillSaturated",
            "HearthColdPathFull",
            "HearthMissesBurnFast",
            "HearthMissesBurnSlowly",
            "HearthMissesBurnOverDays",
        ],
        is_short: false,
        config: SIXTEEN,
        pace: EIGHT_AT_ONCE,
        fault_pace: None,
        inject: |node| strace(node, &[], "mkdir,mkdirat:delay_enter=400000"),
    },
    Scene {
        name: "slow-journal",
        fault: "every write to the journal takes 40 ms longer (strace: write)",
        alerts: &["HearthJournalSlow", "HearthAcquireSlow"],
        is_short: false,
        config: FOUR,
        pace: Pace { at_once: 1, ..Pace::STEADY },
        fault_pace: None,
        inject: |node| strace(node, &journals(node), "write,writev,pwrite64:delay_enter=40000"),
    },
    Scene {
        name: "no-space",
        fault: "writes to journal and audit fail with ENOSPC (strace: write)",
        alerts: &["HearthStorageDown", "HearthAuditLost"],
        is_short: false,
        config: AUDITED,
        pace: Pace::STEADY,
        fault_pace: None,
        inject: |node| {
            let mut files = journals(node);
            files.push(node.state().join("audit/audit.jsonl"));
            strace(node, &files, "write,writev,pwrite64:error=ENOSPC")
        },
    },
    Scene {
        name: "no-names",
        fault: "renames fail with EIO (strace: renameat2)",
        alerts: &["HearthHandoversFail"],
        is_short: false,
        config: FOUR,
        pace: Pace::STEADY,
        fault_pace: None,
        inject: |node| strace(node, &[], "renameat2:error=EIO"),
    },
];

/// The files of the journal that are written to.
fn journals(node: &Node) -> Vec<PathBuf> {
    let files = std::fs::read_dir(node.state().join("journal")).unwrap();
    let files = files.map(|it| it.unwrap().path());
    files.filter(|it| it.extension().is_some_and(|it| it == "log")).collect()
}

/// Has strace do something to the system calls of `node`, those on `files` alone where there are some.
fn strace(node: &Node, files: &[PathBuf], what: &str) -> Fault {
    let log = node.state().join("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log).arg("-p").arg(node.pid().to_string());
    let calls = what.split(':').next().unwrap_or_default();
    command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={what}")]);
    files.iter().for_each(|file| {
        command.arg("-P").arg(file);
    });
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Fault::Program(child.unwrap_or_else(|error| panic!("strace: {error}")))
}
