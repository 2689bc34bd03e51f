//! A real directory, shared by two providers, against a map of names: through every step, a crash
//! between any two of them, and the loss of all names.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Cut short: the link is there, the instance is not.
    Create {
        provider: usize,
        vm_id: VmId,
        is_cut: bool,
    },
    /// Cut short: the link is renamed, and nobody has heard of it.
    Rename {
        which: Index,
        new: VmId,
        is_cut: bool,
    },
    Remove {
        which: Index,
        cut: Cut,
    },
    /// By one who does not have the name any more.
    ReleaseOthers {
        which: Index,
    },
    /// Something that is no name of ours.
    Stranger {
        vm_id: VmId,
    },
    Reopen,
    /// A reboot: the names were on a file system that is gone.
    Wipe,
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Nowhere,
    NameIsGone,
    InstanceIsGone,
}

fn vm_id() -> impl Strategy<Value = VmId> {
    let longest = format!("z{}9", "-".repeat(61));
    let bounds = ["a", "0", "a-b", "warm-1", &"a".repeat(63), &longest].map(str::to_owned);
    let any = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
    prop_oneof![9 => select(bounds.to_vec()), 1 => any]
        .prop_map(|text| VmId::parse(&text).expect("it is an id"))
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let cut = select(vec![Cut::Nowhere, Cut::Nowhere, Cut::NameIsGone, Cut::InstanceIsGone]);
    prop_oneof![
        6 => (0..2_usize, vm_id(), prop::bool::weighted(0.1))
            .prop_map(|(provider, vm_id, is_cut)| Step::Create { provider, vm_id, is_cut }),
        6 => (index(), vm_id(), prop::bool::weighted(0.1))
            .prop_map(|(which, new, is_cut)| Step::Rename { which, new, is_cut }),
        3 => (index(), cut).prop_map(|(which, cut)| Step::Remove { which, cut }),
        1 => index().prop_map(|which| Step::ReleaseOthers { which }),
        1 => vm_id().prop_map(|vm_id| Step::Stranger { vm_id }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Wipe),
    ]
}

/// Two providers, and what must be found.
struct World {
    paths: Paths,
    providers: [Directory; 2],
    names: BTreeMap<VmId, (Uid, usize)>,
    instances: BTreeSet<Uid>,
    strangers: BTreeSet<VmId>,
    ever: BTreeSet<VmId>,
    made: u8,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().join("state"), runtime: dir.path().join("run") };
        let providers = [0, 1].map(|_| Directory::open(paths.clone()).unwrap());
        Self {
            paths,
            providers,
            names: BTreeMap::new(),
            instances: BTreeSet::new(),
            strangers: BTreeSet::new(),
            ever: BTreeSet::new(),
            made: 0,
            _dir: dir,
        }
    }

    fn is_free(&self, vm_id: &VmId) -> bool {
        !self.names.contains_key(vm_id) && !self.strangers.contains(vm_id)
    }

    fn pick(&self, which: &Index) -> Option<(VmId, Uid, usize)> {
        let all: Vec<_> = self.names.iter().collect();
        let (vm_id, (uid, provider)) = all.get(which.index(all.len().max(1)))?;
        Some(((*vm_id).clone(), *uid, *provider))
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Create { provider, vm_id, is_cut } => {
                self.made += 1;
                let uid = Uid::from_random([self.made; 16]);
                let claimed = self.providers[provider].claim(&vm_id, uid);
                prop_assert_eq!(claimed.is_ok(), self.is_free(&vm_id));
                if let Err(error) = claimed {
                    prop_assert_eq!(error.kind(), "already_exists");
                    return Ok(());
                }
                self.ever.insert(vm_id.clone());
                self.names.insert(vm_id, (uid, provider));
                if is_cut {
                    return self.reopen();
                }
                std::fs::create_dir(self.paths.instance(uid)).unwrap();
                self.instances.insert(uid);
            }
            Step::Rename { which, new, is_cut } => {
                let Some((old, uid, provider)) = self.pick(&which) else { return Ok(()) };
                let names = &self.providers[provider];
                let link = |vm_id: &VmId| self.paths.names().join(vm_id.as_str()).is_symlink();
                let cut = || -> ! { resume_unwind(Box::new("cut short")) };
                let switch = || {
                    assert_eq!((names.lookup(&old), names.lookup(&new)), (Some(uid), Some(uid)));
                    assert_eq!((link(&old), link(&new)), (false, true));
                    if is_cut {
                        cut()
                    }
                };
                let renamed =
                    catch_unwind(AssertUnwindSafe(|| names.rename(&old, &new, uid, switch)));
                let Ok(renamed) = renamed else {
                    prop_assert!(is_cut && self.is_free(&new));
                    self.ever.insert(new.clone());
                    self.names.remove(&old);
                    self.names.insert(new, (uid, provider));
                    return self.reopen();
                };
                prop_assert_eq!(renamed.is_ok(), self.is_free(&new));
                match renamed {
                    Ok(()) => {
                        self.ever.insert(new.clone());
                        self.names.remove(&old);
                        self.names.insert(new, (uid, provider));
                    }
                    Err(error) => prop_assert_eq!(error.kind(), "already_exists"),
                }
            }
            Step::Remove { which, cut } => {
                let Some((vm_id, uid, provider)) = self.pick(&which) else { return Ok(()) };
                if !matches!(cut, Cut::InstanceIsGone) {
                    self.providers[provider].release(&vm_id, uid);
                    self.names.remove(&vm_id);
                }
                if !matches!(cut, Cut::NameIsGone) {
                    std::fs::remove_dir(self.paths.instance(uid)).unwrap();
                    self.instances.remove(&uid);
                }
                if !matches!(cut, Cut::Nowhere) {
                    return self.reopen();
                }
            }
            Step::ReleaseOthers { which } => {
                let Some((vm_id, _, provider)) = self.pick(&which) else { return Ok(()) };
                self.providers[provider].release(&vm_id, Uid::from_random([0xFF; 16]));
                self.providers[1 - provider].release(&vm_id, Uid::from_random([0xFF; 16]));
            }
            Step::Stranger { vm_id } => {
                if self.is_free(&vm_id) {
                    std::fs::write(self.paths.names().join(vm_id.as_str()), "").unwrap();
                    self.strangers.insert(vm_id);
                }
            }
            Step::Reopen => return self.reopen(),
            Step::Wipe => {
                std::fs::remove_dir_all(self.paths.names()).unwrap();
                self.strangers.clear();
                self.providers = [0, 1].map(|_| Directory::open(self.paths.clone()).unwrap());
                prop_assert_eq!(self.providers[0].names_on_disk().unwrap(), []);
                // As the instances' records and the journal have them.
                for (vm_id, (uid, provider)) in &self.names {
                    self.providers[*provider].claim(vm_id, *uid).unwrap();
                }
            }
        }
        Ok(())
    }

    /// A new life: what the former had in memory is lost.
    fn reopen(&mut self) -> Result<(), TestCaseError> {
        self.names.retain(|_, (uid, _)| self.instances.contains(uid));
        self.providers = [0, 1].map(|_| Directory::open(self.paths.clone()).unwrap());
        let mut found = self.providers[0].names_on_disk().unwrap();
        found.sort();
        let wanted: Vec<_> = self.names.iter().map(|(vm_id, (uid, _))| (vm_id, *uid)).collect();
        prop_assert_eq!(found.iter().map(|(id, uid)| (id, *uid)).collect::<Vec<_>>(), wanted);
        for (vm_id, uid) in found {
            let (_, provider) = self.names[&vm_id];
            self.providers[provider].adopt(&vm_id, uid).unwrap();
            prop_assert!(self.providers[provider].adopt(&vm_id, uid).is_err());
        }
        Ok(())
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        for vm_id in &self.ever {
            for (number, provider) in self.providers.iter().enumerate() {
                let has = self.names.get(vm_id).filter(|(_, its)| *its == number);
                prop_assert_eq!(provider.lookup(vm_id), has.map(|(uid, _)| *uid), "{}", vm_id);
            }
        }
        let mut on_disk = BTreeMap::new();
        for entry in std::fs::read_dir(self.paths.names()).unwrap() {
            let entry = entry.unwrap();
            let vm_id = VmId::parse(entry.file_name().to_str().unwrap()).unwrap();
            on_disk.insert(vm_id, std::fs::read_link(entry.path()).ok());
        }
        let links = self.names.iter().map(|(id, (uid, _))| (id, Some(self.paths.instance(*uid))));
        let strangers = self.strangers.iter().map(|id| (id, None));
        let wanted = links.chain(strangers).map(|(id, to)| (id.clone(), to));
        prop_assert_eq!(on_disk, wanted.collect::<BTreeMap<_, _>>());
        Ok(())
    }
}

proptest! {
    #[test]
    fn names_are_those_of_a_map_through_crashes_and_losses(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new();
        for step in steps {
            world.apply(step)?;
            world.compare()?;
        }
    }
}
