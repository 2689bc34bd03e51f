//! What a test tells the fake, also while that runs: every request reads the settings anew.

use serde::{Deserialize, Serialize};

/// How the fake is to behave.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The release that it says it is. Before 1.16.0 a load knows neither `vsock_override` nor
    /// `clock_realtime`; from 1.17.0 on snapshots have format 11.0.0 and a pause leaves vsock
    /// alone.
    pub(crate) version: String,
    /// What goes wrong; the first that fits a request and is not used up applies.
    pub(crate) faults: Vec<Fault>,
    /// What happens before the API socket is there.
    pub(crate) before_socket: Option<BeforeSocket>,
    /// The vsock port on which the guest's agent listens.
    pub(crate) agent_port: Option<u32>,
    /// A TAP of a name can be open in one process of this installation at a time.
    pub(crate) taps_are_exclusive: bool,
    /// Milliseconds between two counts on the console.
    pub(crate) count_every_millis: u64,
    /// Kept by the installation: grows with each change, so that faults are counted anew.
    pub(crate) generation: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: "1.16.1".to_owned(),
            faults: Vec::new(),
            before_socket: None,
            agent_port: None,
            taps_are_exclusive: false,
            count_every_millis: 20,
            generation: 0,
        }
    }
}

/// Something that goes wrong with a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// The request's method.
    pub(crate) method: String,
    /// Its path.
    pub(crate) path: String,
    /// What goes wrong.
    pub(crate) what: What,
    /// How often, over all processes of the installation; `None` is always.
    pub(crate) times: Option<u32>,
}

/// What goes wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// It is neither done nor answered, and nothing after it is.
    Hang,
    /// It is neither done nor answered: the process aborts.
    Eof,
    /// It is done, and never answered.
    LoseAnswer,
    /// It is done and answered; then the process exits.
    DieAfter {
        /// The process's exit status.
        status: i32,
    },
    /// It is not done, and answered with this.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// The whole body.
        body: String,
    },
    /// It is done so many milliseconds later.
    DelayMillis(u64),
    /// The process is ended by this signal instead.
    Signal(i32),
    /// The process exits instead.
    Exit(i32),
}

/// What happens before the API socket is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BeforeSocket {
    /// The process exits.
    Exit {
        /// Its exit status.
        code: i32,
    },
    /// It takes so many milliseconds longer.
    HangForMillis(u64),
}

impl Settings {
    /// Whether the release is at least this one.
    pub(super) fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.version.split('.').map(|number| number.parse().unwrap_or(0));
        let release: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        release >= (major, minor)
    }

    /// The format of snapshots that the release writes and reads.
    pub(super) fn snapshot_format(&self) -> &'static str {
        match (self.is_at_least(1, 17), self.is_at_least(1, 16)) {
            (true, _) => "11.0.0",
            (false, true) => "10.0.0",
            (false, false) => "9.0.0",
        }
    }
}
