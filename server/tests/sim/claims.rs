//! What tenants were told, and what must therefore be true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hearth_proto::v1::vm::State;
use hearth_providers::{Uid, VmId};

use crate::checker::Open;
use crate::history::{Answer, Ask, SeenVm, Who};
use crate::lease::{Clock, Lease, Release};
use crate::truth::{Truth, Vm};

/// How long after its end a lease may still be there.
const EXPIRY_SLACK: Duration = Duration::from_secs(1);

/// Everything that was told.
#[derive(Default)]
pub(crate) struct Claims {
    clock: Clock,
    leases: BTreeMap<Uid, Lease>,
    requests: BTreeMap<(Who, String), Uid>,
    /// When a request was first made.
    first_asked: BTreeMap<(Who, String), Duration>,
    /// Calls for a VM whose answer nobody heard, by caller and request id.
    unheard: BTreeSet<(Who, Option<String>)>,
    listed: Vec<SeenVm>,
    pub(crate) expiries: u64,
}

impl Claims {
    pub(crate) fn asked(&mut self, at: Duration, who: Who, ask: &Ask) {
        match ask {
            Ask::Release { vm_id, uid, by_uid } => {
                let is_meant = |it: &Uid, lease: &Lease| match by_uid {
                    true => it == uid && (who == lease.who || who == Who::Operator),
                    false => lease.who == who && lease.names.contains(vm_id),
                };
                for (uid, lease) in &mut self.leases {
                    if is_meant(uid, lease) && lease.release == Release::No {
                        lease.release = Release::Asked;
                    }
                }
            }
            Ask::Rename { uid, to, .. } => {
                let lease = self.leases.get_mut(uid).into_iter();
                lease.for_each(|lease| lease.rename_asked(to));
            }
            _ => {}
        }
        if let Some(id) = request_id(ask) {
            self.first_asked.entry((who, id.clone())).or_insert(at);
        }
    }

    pub(crate) fn unanswered(&mut self, at: Duration, call: Open) {
        match call.ask {
            Ask::Acquire(_) | Ask::Resume(_) => {
                self.unheard.insert((call.who, request_id(&call.ask).cloned()));
            }
            Ask::Renew { uid, ttl, .. } => {
                let lease = self.leases.get_mut(&uid).into_iter();
                lease.for_each(|lease| lease.may_be_renewed(at, ttl));
            }
            _ => {}
        }
    }

    pub(crate) fn stepped(&mut self, at: Duration, seconds: i64) {
        self.clock.step(at, seconds);
    }

    /// No time of the boot before means anything: the wall clock will stand in for it.
    pub(crate) fn rebooted(&mut self, at: Duration) {
        self.clock.boot(at);
        self.leases.values_mut().for_each(|lease| lease.is_booted_over(at));
    }

    /// The service reads its leases about now, `is_anew` when it has just been started.
    pub(crate) fn recovers(&mut self, at: Duration, is_anew: bool) {
        let old = self.leases.values_mut().filter(|lease| lease.is_of_old_boot);
        old.for_each(|lease| lease.reckon(at, &self.clock, is_anew));
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
            (_, Answer::Got { .. } | Answer::Resumed(_)) => self.got(at, truth, call, answer)?,
            (_, Answer::Seen(vm)) => self.seen(at, truth, call, vm)?,
            (_, Answer::Vms(vms)) if call.who == Who::Operator => self.listed.clone_from(vms),
            (_, Answer::Vms(vms)) => self.listed_to(at, call.who, vms)?,
            (Ask::Get { vm_id } | Ask::Renew { vm_id, .. }, Answer::Refused { reason, .. })
                if reason == "VM_NOT_FOUND" || reason == "LEASE_NOT_HELD" =>
            {
                let lost = self.leases.iter().find(|(_, lease)| {
                    lease.who == call.who && lease.is_surely_called(vm_id) && lease.surely_lives(at)
                });
                if let Some((uid, lease)) = lost {
                    return Err(format!("{uid} is not found by its tenant: {lease:?}"));
                }
            }
            (Ask::Rename { vm_id, uid, to }, answer) => {
                let is_done = *answer == Answer::Done;
                let lease = self.leases.get_mut(uid).into_iter();
                lease.for_each(|lease| lease.rename_answered(vm_id, to, is_done));
            }
            (Ask::Release { uid, by_uid: true, .. }, Answer::Done) => {
                let lease = self.leases.get_mut(uid).into_iter();
                lease.for_each(|lease| lease.release = Release::Done);
            }
            (ask, Answer::Refused { reason, allocated }) => {
                let id = request_id(ask);
                if *allocated == Some(true) {
                    self.unheard.insert((call.who, id.cloned()));
                }
                let uid = id.and_then(|id| self.requests.get(&(call.who, id.clone())));
                let lease = uid.and_then(|uid| self.leases.get(uid));
                if reason == "LEASE_EXPIRED" && lease.is_some_and(|it| it.surely_lives(at)) {
                    return Err(format!("it is not expired: {lease:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn seen(
        &mut self,
        at: Duration,
        truth: &Truth,
        call: &Open,
        vm: &SeenVm,
    ) -> Result<(), String> {
        let (uid, who) = (vm.uid, call.who);
        if vm.tenant != who.name() {
            return Err(format!("{who:?} sees {vm:?}"));
        }
        let Some(lease) = self.leases.get_mut(&uid) else { return Ok(()) };
        if lease.who != who {
            return Err(format!("{uid} is seen by {who:?}, and is {:?}'s", lease.who));
        }
        if lease.release == Release::Done {
            return Err(format!("{uid} was released and is still seen"));
        }
        if !lease.names.contains(&vm.vm_id) {
            return Err(format!("{uid} is called {}, not any of {:?}", vm.vm_id, lease.names));
        }
        lease.expires = vm.expires;
        if let Ask::Renew { ttl, .. } = call.ask {
            lease.renewed(call.at, at, ttl);
        }
        match vm.state == State::Destroyed {
            true if lease.surely_lives(at) => Err(format!("{uid} is shown as destroyed")),
            // It has expired, and is on its way out.
            true => Ok(()),
            false => is_called(truth, uid, &vm.vm_id),
        }
    }

    fn got(
        &mut self,
        at: Duration,
        truth: &Truth,
        call: &Open,
        answer: &Answer,
    ) -> Result<(), String> {
        // A resume does not say whether it is replayed.
        let (shown, replayed) = match answer {
            Answer::Got { vm, replayed, .. } => (vm, Some(*replayed)),
            Answer::Resumed(vm) => (vm, None),
            _ => return Ok(()),
        };
        let (uid, id) = (shown.uid, request_id(&call.ask));
        if shown.tenant != call.who.name() || shown.request_id.as_ref() != id {
            return Err(format!("{:?} gets {shown:?}", call.who));
        }
        if let Some(id) = id {
            let first = *self.requests.entry((call.who, id.clone())).or_insert(uid);
            if first != uid {
                return Err(format!("request {id} got {first}, and then {uid}"));
            }
        }
        if let Some(lease) = self.leases.get_mut(&uid) {
            let is_first = replayed == Some(false) || (replayed.is_none() && id.is_none());
            let is_second = is_first && std::mem::replace(&mut lease.was_first, true);
            if lease.who != call.who || lease.request_id.as_ref() != id || is_second {
                return Err(format!("{uid} is given to {:?}, and is {lease:?}", call.who));
            }
            lease.expires = shown.expires;
            return is_called(truth, uid, &shown.vm_id);
        }
        if replayed == Some(true) && id.is_none() {
            return Err(format!("{uid} is replayed for no request"));
        }
        let vm = truth.vm(uid).ok_or_else(|| format!("{uid} is given out and is no more"))?;
        is_called(truth, uid, &shown.vm_id)?;
        is_as_asked(call, answer, shown, vm)?;
        let first_asked = id.and_then(|id| self.first_asked.get(&(call.who, id.clone())));
        let first_asked = first_asked.copied().filter(|_| replayed != Some(false));
        let from = first_asked.unwrap_or(call.at);
        if replayed != Some(true) && !self.clock.was_stepped_since(from) {
            let least = self.clock.wall(from) + ttl(&call.ask);
            if shown.expires < least {
                return Err(format!("the lease of {uid} is shorter than was asked for"));
            }
        }
        let was_first = replayed != Some(true);
        let lease = Lease::new(call.who, id.cloned(), shown, was_first, (from, at), ttl(&call.ask));
        let is_vague = self.clock.was_booted_since(from);
        self.leases.insert(uid, if is_vague { lease.vague() } else { lease });
        Ok(())
    }

    /// A tenant's list: all that it surely has, and nothing of another's.
    fn listed_to(&self, at: Duration, who: Who, vms: &[SeenVm]) -> Result<(), String> {
        for vm in vms {
            let is_others = self.leases.get(&vm.uid).is_some_and(|lease| lease.who != who);
            if is_others || vm.tenant != who.name() {
                return Err(format!("{who:?} is shown {vm:?}"));
            }
        }
        let lost = self.leases.iter().find(|(uid, lease)| {
            lease.who == who && lease.surely_lives(at) && !vms.iter().any(|vm| vm.uid == **uid)
        });
        match lost {
            Some((uid, lease)) => Err(format!("{uid} is not listed to its tenant: {lease:?}")),
            None => Ok(()),
        }
    }

    /// Whose the operator was told that it is.
    pub(crate) fn listed_tenant(&self, uid: Uid) -> Option<&str> {
        let found = self.listed.iter().find(|vm| vm.uid == uid);
        found.map(|vm| vm.tenant.as_str()).filter(|it| !it.is_empty())
    }

    /// Nothing is under way, and the service has told what it has: all of it is accounted for.
    pub(crate) fn settled(&self, at: Duration, truth: &Truth, target: usize) -> Result<(), String> {
        let mut leased = BTreeSet::new();
        let mut requests = BTreeSet::new();
        for SeenVm { uid, tenant, request_id, .. } in &self.listed {
            if tenant.is_empty() {
                continue;
            }
            leased.insert(*uid);
            if request_id.is_some() && !requests.insert((tenant, request_id)) {
                return Err(format!("two VMs of one request: {tenant}, {request_id:?}"));
            }
            match self.leases.get(uid) {
                Some(lease) if lease.who.name() != *tenant || lease.request_id != *request_id => {
                    return Err(format!("{uid} is listed as of {tenant}, and is {lease:?}"));
                }
                Some(lease) if lease.release == Release::Done => {
                    return Err(format!("{uid} was released and is listed"));
                }
                Some(lease) if lease.ends_by.is_some_and(|by| at > by + EXPIRY_SLACK) => {
                    return Err(format!("{uid} should have expired: {lease:?}"));
                }
                Some(_) => {}
                None => {
                    let mut unheard = self.unheard.iter();
                    if !unheard.any(|(who, id)| who.name() == *tenant && id == request_id) {
                        return Err(format!("{uid} is leased, and nobody asked for it"));
                    }
                }
            }
        }
        let is_lost =
            |(uid, lease): &(&Uid, &Lease)| lease.surely_lives(at) && !leased.contains(uid);
        if let Some((uid, lease)) = self.leases.iter().find(is_lost) {
            return Err(format!("{uid} is not listed: {lease:?}"));
        }
        let mut warm = truth.list();
        warm.retain(|(_, uid)| !leased.contains(uid));
        let is_warm = |(vm_id, uid): &(VmId, Uid)| {
            let fits = |vm: &Vm| {
                let is_new = vm.generation.is_some_and(|it| it >= truth.generation);
                let is_new = is_new || (truth.is_rolling && vm.make.is_some());
                vm.probed.is_some() && vm.died.is_none() && is_new && !vm.was_handed
            };
            vm_id.is_pools_own() && truth.vm(*uid).is_some_and(fits)
        };
        if warm.len() != target || !warm.iter().all(is_warm) {
            return Err(format!("{target} should be warm; there are {warm:?}"));
        }
        Ok(())
    }
}

/// The VM that is given out is ready, and what the caller asked for.
fn is_as_asked(call: &Open, answer: &Answer, shown: &SeenVm, vm: &Vm) -> Result<(), String> {
    let uid = shown.uid;
    let is_replayed = matches!(answer, Answer::Got { replayed: true, .. });
    match (&call.ask, answer) {
        (Ask::Acquire(ask), Answer::Got { is_cold, .. }) => {
            if vm.device != ask.device || (ask.device.is_some() && !(*is_cold && vm.is_dedicated)) {
                return Err(format!("{uid} has another network than was asked for: {vm:?}"));
            }
            if !is_replayed && vm.probed.is_none() {
                return Err(format!("{uid} is given out and was never probed"));
            }
            if !is_replayed && vm.generation.is_none_or(|it| it < call.generation) {
                return Err(format!("{uid} is given out and is of an old generation"));
            }
        }
        _ if vm.generation.is_some() || !vm.is_dedicated => {
            return Err(format!("{uid} does not go on where it was frozen: {vm:?}"));
        }
        _ => {}
    }
    let wanted = match &call.ask {
        Ask::Acquire(ask) => ask.vm_id.as_ref(),
        Ask::Resume(ask) => ask.vm_id.as_ref(),
        _ => None,
    };
    if is_replayed {
        return Ok(());
    }
    if wanted.is_some_and(|wanted| *wanted != shown.vm_id) {
        return Err(format!("{uid} is called {}, and not as was asked for", shown.vm_id));
    }
    if matches!(answer, Answer::Resumed(_)) && request_id(&call.ask).is_some() {
        // It may be replayed.
        return Ok(());
    }
    if vm.died.is_some_and(|died| died < call.at) {
        return Err(format!("{uid} is given out and is dead"));
    }
    match vm.died.is_none() && !(vm.runs && shown.state == State::Running) {
        true => Err(format!("{uid} is given out and does not run: {vm:?}, {shown:?}")),
        false => Ok(()),
    }
}

const fn request_id(ask: &Ask) -> Option<&String> {
    match ask {
        Ask::Acquire(ask) => ask.request_id.as_ref(),
        Ask::Resume(ask) => ask.request_id.as_ref(),
        _ => None,
    }
}

const fn ttl(ask: &Ask) -> Duration {
    match ask {
        Ask::Acquire(ask) => ask.ttl,
        Ask::Resume(ask) => ask.ttl,
        _ => Duration::ZERO,
    }
}

/// Whoever uses the name reaches this VM.
fn is_called(truth: &Truth, uid: Uid, vm_id: &VmId) -> Result<(), String> {
    match truth.named(vm_id) == Some(uid) {
        true => Ok(()),
        false => Err(format!("{vm_id} leads to {:?}, not to {uid}", truth.named(vm_id))),
    }
}
