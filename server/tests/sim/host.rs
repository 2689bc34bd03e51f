//! What happens to the VMs of a host whatever the service does.

use std::time::Duration;

use hearth_pool::env::Env as _;
use hearth_providers::agent::Agent;
use hearth_providers::{Uid, VmId};

use crate::env::Dice;
use crate::history::What;
use crate::world::World;

/// How long a guest's agent may take, which answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

impl World {
    /// What the provider has.
    pub(crate) fn provider_list(&self) -> Vec<(VmId, Uid)> {
        self.memory.list_vms().into_iter().map(|view| (view.vm_id, view.uid)).collect()
    }

    /// Some VM powers itself off.
    pub(crate) fn kill_a_vm(&self, dice: &Dice) {
        let vms = self.memory.list_vms();
        if let Some(view) = dice.pick(&vms) {
            self.power_off(&view.vm_id, view.uid);
        }
    }

    /// The host is booted anew. Disks stay: VMs are found, dead, and snapshots whole.
    pub(crate) fn reboot(&self) {
        for view in self.memory.list_vms() {
            // One that stands still would not hear that it is to end.
            let _ = self.memory.resume_vm(&view.vm_id);
            self.power_off(&view.vm_id, view.uid);
        }
        self.env.reboot();
        self.history.push(What::Rebooted);
    }

    fn power_off(&self, vm_id: &VmId, uid: Uid) {
        let Ok(channel) = self.memory.guest_channel(vm_id) else { return };
        let Ok(mut agent) = Agent::greet(channel, self.env.uid(), PATIENCE) else { return };
        self.history.push(What::Died { uid });
        let _ = agent.ask("poweroff", PATIENCE);
    }
}
