//! What tenants were told, and what must therefore be true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hearth_providers::{Uid, VmId, VmStatus};

use crate::checker::Open;
use crate::history::{Answer, Ask, ListedVm, Who};
use crate::tenant::tenant;
use crate::truth::Truth;

/// How long after its end a lease may still be there.
const EXPIRY_SLACK: Duration = Duration::from_secs(1);

/// How far the end of a lease by its tenant's wish has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    No,
    Asked,
    Done,
}

/// A lease that a tenant was told of.
#[derive(Debug)]
struct Lease {
    who: Who,
    request_id: Option<String>,
    /// What it may be called: a rename that was not answered may have been done.
    names: BTreeSet<VmId>,
    deadline: Duration,
    /// The answer that is no replay was heard; a duplicate's may be heard before it.
    was_first: bool,
    release: Release,
    has_expired: bool,
}

impl Lease {
    fn surely_lives(&self, at: Duration) -> bool {
        self.release == Release::No && at < self.deadline
    }

    fn is_surely_called(&self, vm_id: &VmId) -> bool {
        self.names.len() == 1 && self.names.contains(vm_id)
    }
}

/// Everything that was told.
#[derive(Default)]
pub(crate) struct Claims {
    leases: BTreeMap<Uid, Lease>,
    requests: BTreeMap<(Who, String), Uid>,
    /// Acquires whose answer nobody heard, by caller and request id.
    unheard: BTreeSet<(Who, Option<String>)>,
    listed: Vec<ListedVm>,
    pub(crate) expiries: u64,
}

impl Claims {
    pub(crate) fn asked(&mut self, who: Who, ask: &Ask) {
        match ask {
            Ask::Release { vm_id, uid, by_uid } => {
                let is_meant = |it: &Uid, lease: &Lease| match by_uid {
                    true => it == uid,
                    false => lease.who == who && lease.names.contains(vm_id),
                };
                for (uid, lease) in &mut self.leases {
                    if is_meant(uid, lease) && lease.release == Release::No {
                        lease.release = Release::Asked;
                    }
                }
            }
            Ask::Rename { uid, to, .. } => {
                let lease = self.leases.get_mut(uid);
                lease.into_iter().for_each(|lease| lease.names.extend([to.clone()]));
            }
            _ => {}
        }
    }

    pub(crate) fn unanswered(&mut self, call: Open) {
        if let Ask::Acquire(ask) = call.ask {
            self.unheard.insert((call.who, ask.request_id));
        }
    }

    /// A VM was destroyed, or lost its tenant's name.
    pub(crate) fn taken(&mut self, at: Duration, uid: Uid) -> Result<(), String> {
        let Some(lease) = self.leases.get_mut(&uid) else { return Ok(()) };
        if lease.surely_lives(at) {
            return Err(format!("{uid} is taken from its tenant: {lease:?}"));
        }
        if lease.release == Release::No && !std::mem::replace(&mut lease.has_expired, true) {
            self.expiries += 1;
        }
        Ok(())
    }

    pub(crate) fn answered(
        &mut self,
        at: Duration,
        truth: &Truth,
        call: &Open,
        answer: &Answer,
    ) -> Result<(), String> {
        match (&call.ask, answer) {
            (_, Answer::Got { .. }) => self.got(truth, call, answer)?,
            (_, Answer::Seen { vm_id, uid, deadline, status }) => {
                let Some(lease) = self.leases.get_mut(uid) else { return Ok(()) };
                if lease.who != call.who {
                    return Err(format!(
                        "{uid} is seen by {:?}, and is {:?}'s",
                        call.who, lease.who
                    ));
                }
                if lease.release == Release::Done {
                    return Err(format!("{uid} was released and is still seen"));
                }
                if *deadline < lease.deadline {
                    return Err(format!("the lease of {uid} ends earlier than it was told"));
                }
                if !lease.names.contains(vm_id) {
                    return Err(format!("{uid} is called {vm_id}, not any of {:?}", lease.names));
                }
                lease.deadline = *deadline;
                if lease.surely_lives(at) && *status == VmStatus::Destroyed {
                    return Err(format!("{uid} is shown as destroyed"));
                }
                Self::is_called(truth, *uid, vm_id)?;
            }
            (Ask::Get { vm_id } | Ask::Renew { vm_id, .. }, Answer::Refused("not_found")) => {
                let lost = self.leases.iter().find(|(_, lease)| {
                    lease.who == call.who && lease.is_surely_called(vm_id) && lease.surely_lives(at)
                });
                if let Some((uid, lease)) = lost {
                    return Err(format!("{uid} is not found by its tenant: {lease:?}"));
                }
            }
            (Ask::Rename { vm_id, uid, to }, answer) => {
                if let Some(lease) = self.leases.get_mut(uid) {
                    let is_done = *answer == Answer::Done;
                    // Refused, it may still have the name of a rename before that nobody answered.
                    let is_sure = lease.names.iter().all(|name| name == vm_id || name == to);
                    if is_done || is_sure {
                        let name = if is_done { to } else { vm_id };
                        lease.names = BTreeSet::from([name.clone()]);
                    }
                }
            }
            (Ask::Release { uid, by_uid: true, .. }, Answer::Done) => {
                let lease = self.leases.get_mut(uid);
                lease.into_iter().for_each(|lease| lease.release = Release::Done);
            }
            (_, Answer::Vms(vms)) => self.listed.clone_from(vms),
            _ => {}
        }
        Ok(())
    }

    fn got(&mut self, truth: &Truth, call: &Open, answer: &Answer) -> Result<(), String> {
        let (Ask::Acquire(ask), Answer::Got { vm_id, uid, replayed, deadline, .. }) =
            (&call.ask, answer)
        else {
            return Ok(());
        };
        if let Some(request_id) = &ask.request_id {
            let key = (call.who, request_id.clone());
            let first = *self.requests.entry(key).or_insert(*uid);
            if first != *uid {
                return Err(format!("request {request_id} got {first}, and then {uid}"));
            }
        }
        if let Some(lease) = self.leases.get_mut(uid) {
            let is_second = !replayed && std::mem::replace(&mut lease.was_first, true);
            if lease.who != call.who || lease.request_id != ask.request_id || is_second {
                return Err(format!("{uid} is given to {:?}, and is {lease:?}", call.who));
            }
            return Self::is_called(truth, *uid, vm_id);
        }
        if *replayed && ask.request_id.is_none() {
            return Err(format!("{uid} is replayed for no request"));
        }
        let vm = truth.vm(*uid).ok_or_else(|| format!("{uid} is given out and is no more"))?;
        if !replayed {
            if vm.died.is_some_and(|died| died < call.at) {
                return Err(format!("{uid} is given out and is dead"));
            }
            if vm.probed.is_none() || (!vm.runs && vm.died.is_none()) {
                return Err(format!("{uid} is given out and is not ready: {vm:?}"));
            }
            if vm.generation.is_none_or(|generation| generation < call.generation) {
                return Err(format!("{uid} is given out and is of an old generation"));
            }
            if *deadline < call.at + ask.ttl {
                return Err(format!("the lease of {uid} is shorter than was asked for"));
            }
            if ask.vm_id.as_ref().is_some_and(|wanted| wanted != vm_id) {
                return Err(format!("{uid} is called {vm_id}, and another name was asked for"));
            }
        }
        Self::is_called(truth, *uid, vm_id)?;
        let lease = Lease {
            who: call.who,
            request_id: ask.request_id.clone(),
            names: BTreeSet::from([vm_id.clone()]),
            deadline: *deadline,
            was_first: !replayed,
            release: Release::No,
            has_expired: false,
        };
        self.leases.insert(*uid, lease);
        Ok(())
    }

    /// Whoever uses the name reaches this VM.
    fn is_called(truth: &Truth, uid: Uid, vm_id: &VmId) -> Result<(), String> {
        match truth.named(vm_id) == Some(uid) {
            true => Ok(()),
            false => Err(format!("{vm_id} leads to {:?}, not to {uid}", truth.named(vm_id))),
        }
    }

    /// Nothing is under way, and the service has told what it has: all of it is accounted for.
    pub(crate) fn settled(&self, at: Duration, truth: &Truth, target: usize) -> Result<(), String> {
        let mut leased = BTreeMap::new();
        let mut requests = BTreeSet::new();
        for (vm_id, uid, lease) in &self.listed {
            let Some((of, request_id)) = lease else { continue };
            leased.insert(*uid, vm_id);
            if request_id.is_some() && !requests.insert((of, request_id)) {
                return Err(format!("two VMs of one request: {of}, {request_id:?}"));
            }
            let is_whose = |who: &Who| matches!(who, Who::Tenant(number) if tenant(*number).as_str() == of.as_str());
            match self.leases.get(uid) {
                Some(lease) if !is_whose(&lease.who) || lease.request_id != *request_id => {
                    return Err(format!("{uid} is listed as of {of}, and is {lease:?}"));
                }
                Some(lease) if lease.release == Release::Done => {
                    return Err(format!("{uid} was released and is listed"));
                }
                Some(lease) if at > lease.deadline + EXPIRY_SLACK => {
                    return Err(format!("{uid} should have expired: {lease:?}"));
                }
                Some(_) => {}
                None => {
                    let mut unheard = self.unheard.iter();
                    if !unheard.any(|(who, id)| is_whose(who) && id == request_id) {
                        return Err(format!("{uid} is leased, and nobody asked for it"));
                    }
                }
            }
        }
        let lost = self
            .leases
            .iter()
            .find(|(uid, lease)| lease.surely_lives(at) && !leased.contains_key(uid));
        if let Some((uid, lease)) = lost {
            return Err(format!("{uid} is not listed: {lease:?}"));
        }
        let warm: Vec<_> =
            truth.list().into_iter().filter(|(_, uid)| !leased.contains_key(uid)).collect();
        let is_warm = |(vm_id, uid): &(VmId, Uid)| {
            let vm = truth.vm(*uid);
            let fits = |vm: &crate::truth::Vm| {
                let is_new = vm.generation.is_some_and(|it| it >= truth.generation);
                vm.probed.is_some() && vm.died.is_none() && is_new && !vm.was_handed
            };
            vm_id.is_pools_own() && vm.is_some_and(fits)
        };
        if warm.len() != target || !warm.iter().all(is_warm) {
            return Err(format!("{target} should be warm; there are {warm:?}"));
        }
        Ok(())
    }
}
