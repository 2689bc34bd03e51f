//! Pools of containers: what waits, what is handed out, and what is left.

use bollard::models::ContainerStateStatusEnum as Stands;
use hearth_proto::v1::acquire_vm_response::Source;
use hearth_proto::v1::vm::Origin;

use crate::containers::{name, stands};
use crate::docker_engine::EngineHost;
use crate::site::{BOTH, Case, Site, assert_runs, wait_until};

pub(crate) const ALL: &[Case] = &[
    ("a_container_that_runs_already_is_handed_out", a_running_container_is_handed_out, BOTH),
    ("a_container_that_waits_paused_goes_on", a_container_that_waits_paused_goes_on, BOTH),
];

fn a_running_container_is_handed_out(engine: &EngineHost) {
    let site = Site::new(engine, 2);
    let hearth = site.start();
    let waiting = hearth.waiting();
    let pid_of = |uid: &str| stands(engine, &name(uid)).filter(|it| it.0 == Stands::RUNNING);
    let before: Vec<_> = waiting.iter().map(|vm| (vm.uid.clone(), pid_of(&vm.uid))).collect();
    assert_eq!(before.len(), 2);

    let got = hearth.try_acquire("mine").unwrap();
    assert_eq!(got.source(), Source::Warm);
    let vm = got.vm.unwrap();
    assert_eq!(site.exec(&vm, "ls /tmp"), "ready\n", "it boots anew, and waits until it is ready");
    let known = before.iter().find(|(uid, _)| *uid == vm.uid).expect("it was there before");
    assert!(known.1.is_some(), "it ran before");
    assert_eq!(pid_of(&vm.uid), known.1, "it is the same process");
    assert_eq!((vm.name.as_str(), vm.origin()), ("vms/mine", Origin::Template));
    assert_runs(&site, &vm);

    wait_until("it is replaced", || hearth.warm() == 2 && site.containers().len() == 3);
    assert!(hearth.waiting().iter().all(|waiting| waiting.uid != vm.uid));
    hearth.release(&vm);
    wait_until("it is gone", || !site.containers().contains(&name(&vm.uid)));
    assert!(stands(engine, &name(&vm.uid)).is_none());
    site.assert_nothing_left(&hearth);
}

fn a_container_that_waits_paused_goes_on(engine: &EngineHost) {
    let site = Site::with(engine, 2, &engine.socket(), "warm_state = \"paused\"");
    let hearth = site.start();
    let waiting: Vec<_> = hearth.waiting().into_iter().map(|vm| vm.uid).collect();
    assert_eq!(waiting.len(), 2);
    for uid in &waiting {
        assert_eq!(stands(engine, &name(uid)).unwrap().0, Stands::PAUSED, "{uid}");
    }
    let got = hearth.try_acquire("mine").unwrap();
    assert_eq!(got.source(), Source::Warm);
    let vm = got.vm.unwrap();
    assert!(waiting.contains(&vm.uid));
    assert_eq!(stands(engine, &name(&vm.uid)).unwrap().0, Stands::RUNNING);
    assert_runs(&site, &vm);
    let other = waiting.iter().find(|uid| **uid != vm.uid).unwrap();
    assert_eq!(stands(engine, &name(other)).unwrap().0, Stands::PAUSED);
    hearth.release(&vm);
    site.assert_nothing_left(&hearth);
}
