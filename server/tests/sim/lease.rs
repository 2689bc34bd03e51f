//! One lease as its tenant knows it, and how long it lives at least and at most.
//!
//! A lease ends by a clock that nothing steps. What answers show is the wall clock's time, which
//! means that only where it was not stepped since; after a boot of the host it is all there is.

use std::collections::BTreeSet;
use std::time::Duration;

use hearth_providers::VmId;

use crate::checker::LONGEST_CALL;
use crate::history::{SeenVm, Who};

/// What the wall clock shows when the world's shows nothing.
const WALL: Duration = Duration::from_secs(50 * 365 * 24 * 3600);
/// The longest that a lease lives after a boot.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// The wall clock, and the boots of the host.
#[derive(Default)]
pub(crate) struct Clock {
    ahead_seconds: i64,
    stepped: Option<Duration>,
    booted: Option<Duration>,
}

impl Clock {
    pub(crate) fn step(&mut self, at: Duration, seconds: i64) {
        self.ahead_seconds += seconds;
        self.stepped = Some(at);
    }

    pub(crate) fn was_stepped_since(&self, since: Duration) -> bool {
        self.stepped.is_some_and(|at| at >= since)
    }

    pub(crate) fn was_booted_since(&self, since: Duration) -> bool {
        self.booted.is_some_and(|at| at >= since)
    }

    pub(crate) fn boot(&mut self, at: Duration) {
        self.booted = Some(at);
    }

    /// What the wall clock shows at this time, if it is not stepped.
    pub(crate) fn wall(&self, at: Duration) -> Duration {
        let by = Duration::from_secs(self.ahead_seconds.unsigned_abs());
        if self.ahead_seconds < 0 { WALL + at - by } else { WALL + at + by }
    }

    /// When the wall clock shows this, if it is not stepped; 0 for what is long ago.
    fn when(&self, wall: Duration) -> Duration {
        let by = Duration::from_secs(self.ahead_seconds.unsigned_abs());
        let since = if self.ahead_seconds < 0 { wall + by } else { wall.saturating_sub(by) };
        since.saturating_sub(WALL)
    }
}

/// How far the end of a lease by its tenant's wish has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    No,
    Asked,
    Done,
}

/// A lease that a tenant was told of.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) who: Who,
    pub(crate) request_id: Option<String>,
    /// What it may be called: a rename that was not answered may have been done.
    pub(crate) names: BTreeSet<VmId>,
    lives_until: Duration,
    /// The latest that it may end; unset: nobody knows.
    pub(crate) ends_by: Option<Duration>,
    /// As it was shown last.
    pub(crate) expires: Duration,
    /// It was made before the host was booted, and not renewed since.
    pub(crate) is_of_old_boot: bool,
    /// How it was written down last is not known.
    is_vague: bool,
    /// The answer that is no replay was heard; a duplicate's may be heard before it.
    pub(crate) was_first: bool,
    pub(crate) release: Release,
    pub(crate) has_expired: bool,
}

impl Lease {
    /// A lease of `ttl`, made some time between `from` and `to`.
    pub(crate) fn new(
        who: Who,
        request_id: Option<String>,
        shown: &SeenVm,
        was_first: bool,
        (from, to): (Duration, Duration),
        ttl: Duration,
    ) -> Self {
        Self {
            who,
            request_id,
            names: BTreeSet::from([shown.vm_id.clone()]),
            lives_until: from + ttl,
            ends_by: Some(to + ttl),
            expires: shown.expires,
            is_of_old_boot: false,
            is_vague: false,
            was_first,
            release: Release::No,
            has_expired: false,
        }
    }

    /// The same, of whose time nothing is known.
    pub(crate) const fn vague(mut self) -> Self {
        self.blur();
        self
    }

    const fn blur(&mut self) {
        self.is_vague = true;
        self.lives_until = Duration::ZERO;
        self.ends_by = None;
    }

    /// The host is booted anew; what may have ended before that does not live again.
    pub(crate) fn is_booted_over(&mut self, at: Duration) {
        self.is_of_old_boot = true;
        if !self.surely_lives(at) {
            self.blur();
        }
    }

    pub(crate) fn surely_lives(&self, at: Duration) -> bool {
        self.release == Release::No && at < self.lives_until
    }

    pub(crate) fn is_surely_called(&self, vm_id: &VmId) -> bool {
        self.names.len() == 1 && self.names.contains(vm_id)
    }

    pub(crate) fn rename_asked(&mut self, to: &VmId) {
        self.names.insert(to.clone());
        if self.is_of_old_boot {
            self.blur();
        }
    }

    pub(crate) fn rename_answered(&mut self, from: &VmId, to: &VmId, is_done: bool) {
        // Refused, it may still have the name of a rename before that nobody answered.
        let is_sure = self.names.iter().all(|name| name == from || name == to);
        if is_done || is_sure {
            self.names = BTreeSet::from([if is_done { to } else { from }.clone()]);
        }
    }

    /// A renewal of `ttl` was asked for at `from` and answered at `to`: it never shortens.
    pub(crate) fn renewed(&mut self, from: Duration, to: Duration, ttl: Duration) {
        if self.is_of_old_boot || self.is_vague {
            return self.blur();
        }
        self.lives_until = self.lives_until.max(from + ttl);
        self.ends_by = self.ends_by.map(|by| by.max(to + ttl));
    }

    /// A renewal has no answer.
    pub(crate) fn may_be_renewed(&mut self, at: Duration, ttl: Duration) {
        if self.is_of_old_boot || self.is_vague {
            return self.blur();
        }
        self.ends_by = self.ends_by.map(|by| by.max(at + LONGEST_CALL + ttl));
        // Should the host be booted now, it is not known what the wall clock stands in for.
        self.is_vague = true;
    }

    /// The service reads it, about now, after a boot: the wall clock says when it ends. `is_anew`
    /// when it has not read it before in this life.
    pub(crate) fn reckon(&mut self, at: Duration, clock: &Clock, is_anew: bool) {
        // What may have ended before does not live again when the clock is stepped back.
        if self.is_vague || !self.surely_lives(at) {
            return self.blur();
        }
        let end = clock.when(self.expires);
        let (until, by) = (end.min(at + MAX_TTL), end.max(at));
        let or_before = |before: Duration| if is_anew { by } else { by.max(before) };
        self.lives_until = if is_anew { until } else { until.min(self.lives_until) };
        self.ends_by = Some(self.ends_by.map_or(by, or_before));
    }
}
