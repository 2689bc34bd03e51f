//! What the VMs are, by what was done to them, whatever the service was told or believes.

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_providers::{Uid, VmId};

use crate::history::What;

/// One VM.
#[derive(Clone, Debug)]
pub(crate) struct Vm {
    pub(crate) name: VmId,
    pub(crate) generation: Option<i64>,
    /// The first generation that was made of the same snapshot: what is gone back to is as good.
    pub(crate) make: Option<i64>,
    /// When it first answered.
    pub(crate) probed: Option<Duration>,
    /// It has answered in this life of the service.
    was_probed_lately: bool,
    pub(crate) died: Option<Duration>,
    pub(crate) runs: bool,
    /// It was made under a tenant's name, for that tenant alone.
    pub(crate) is_dedicated: bool,
    /// The device of the host that it was told to use.
    pub(crate) device: Option<String>,
    /// It had a tenant's name.
    pub(crate) was_handed: bool,
    /// It lost it again: nobody else is to have it.
    returned: bool,
}

/// Every VM that lives.
#[derive(Default)]
pub(crate) struct Truth {
    vms: BTreeMap<Uid, Vm>,
    names: BTreeMap<VmId, Uid>,
    /// The service has recovered: what is handed out now is promised now.
    pub(crate) is_serving: bool,
    /// The last generation of the template that is known to be in use.
    pub(crate) generation: i64,
    pub(crate) max_warm_age: Option<Duration>,
    /// The pool keeps its VMs paused.
    pub(crate) is_paused: bool,
    /// What is warm of the generation before serves until it is replaced.
    pub(crate) is_rolling: bool,
    makes: BTreeMap<Uid, i64>,
    /// Of a pool that rolls: the latest make that somebody got, and when the first one was.
    served: Option<(i64, Duration)>,
}

impl Truth {
    pub(crate) fn vm(&self, uid: Uid) -> Option<&Vm> {
        self.vms.get(&uid)
    }

    pub(crate) fn named(&self, vm_id: &VmId) -> Option<Uid> {
        self.names.get(vm_id).copied()
    }

    /// Every VM, as the provider lists them.
    pub(crate) fn list(&self) -> Vec<(VmId, Uid)> {
        self.names.iter().map(|(vm_id, uid)| (vm_id.clone(), *uid)).collect()
    }

    /// Follows what was done at `at`.
    ///
    /// # Errors
    /// What must not have been done.
    pub(crate) fn follow(&mut self, at: Duration, what: &What) -> Result<(), String> {
        match what {
            What::Made { vm_id, uid, generation, snapshot, device } => {
                let make = snapshot.zip(*generation);
                let make = make.map(|(of, number)| *self.makes.entry(of).or_insert(number));
                let vm = Vm {
                    name: vm_id.clone(),
                    generation: *generation,
                    make,
                    probed: None,
                    was_probed_lately: false,
                    died: None,
                    runs: true,
                    is_dedicated: !vm_id.is_pools_own(),
                    device: device.clone(),
                    was_handed: !vm_id.is_pools_own(),
                    returned: false,
                };
                self.vms.insert(*uid, vm);
                self.names.insert(vm_id.clone(), *uid);
            }
            What::Pool { max_warm_age, is_paused, is_rolling } => {
                (self.max_warm_age, self.is_paused) = (*max_warm_age, *is_paused);
                self.is_rolling = *is_rolling;
            }
            What::Life(_) => self.vms.values_mut().for_each(|vm| vm.was_probed_lately = false),
            What::Started => self.is_serving = true,
            What::Crash(_) => self.is_serving = false,
            What::Probed { uid } => self.change(*uid, |vm| {
                vm.probed = vm.probed.or(Some(at));
                vm.was_probed_lately = true;
            }),
            What::Died { uid } => self.change(*uid, |vm| {
                vm.died = vm.died.or(Some(at));
                vm.runs = false;
            }),
            What::Paused { uid } => self.change(*uid, |vm| vm.runs = false),
            What::Resumed { uid } => self.change(*uid, |vm| vm.runs = true),
            What::Destroyed { uid, .. } => {
                if let Some(vm) = self.vms.remove(uid) {
                    self.names.remove(&vm.name);
                }
            }
            What::Renamed { uid, from, to } => {
                if from.is_pools_own() && !to.is_pools_own() {
                    self.handed_over(at, *uid)?;
                }
                self.names.remove(from);
                self.names.insert(to.clone(), *uid);
                self.change(*uid, |vm| {
                    vm.name = to.clone();
                    vm.returned |= vm.was_handed && to.is_pools_own();
                    vm.was_handed |= !to.is_pools_own();
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn change(&mut self, uid: Uid, change: impl FnOnce(&mut Vm)) {
        if let Some(vm) = self.vms.get_mut(&uid) {
            change(vm);
        }
    }

    /// A warm VM gets a tenant's name. While the service recovers it only keeps a promise that it
    /// made before.
    fn handed_over(&mut self, at: Duration, uid: Uid) -> Result<(), String> {
        let Some(vm) = self.vms.get(&uid).filter(|_| self.is_serving) else { return Ok(()) };
        let Some(probed) = vm.probed else {
            return Err(format!("{uid} is handed out and was never probed"));
        };
        // One that is paused was probed before, and nothing has run in it since.
        if !vm.was_probed_lately && !self.is_paused {
            return Err(format!("{uid} is handed out and was not probed since the last start"));
        }
        if vm.died.is_some() {
            return Err(format!("{uid} is handed out and is dead"));
        }
        if vm.returned {
            return Err(format!("{uid} is handed out and was a tenant's before"));
        }
        if vm.generation.is_none_or(|it| it < self.generation && !self.is_rolling) {
            let (is, wanted) = (vm.generation, self.generation);
            return Err(format!("{uid} is handed out and is of generation {is:?}, not {wanted}"));
        }
        // Two who got theirs in the same moment may have been served in either order.
        if self.is_rolling
            && let (Some(make), Some((served, since))) = (vm.make, self.served)
            && make < served
            && since < at
        {
            return Err(format!("{uid} is handed out, of make {make}, after one of {served}"));
        }
        if self.max_warm_age.is_some_and(|max| at - probed > max) {
            return Err(format!("{uid} is handed out and is warm for {:?}", at - probed));
        }
        if let Some(make) = vm.make
            && self.served.is_none_or(|(served, _)| served < make)
        {
            self.served = Some((make, at));
        }
        Ok(())
    }
}
