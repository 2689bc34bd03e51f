//! What a crash may leave of ours on the host: reaped and counted, kind by kind. What is not ours
//! stays, though it lies right beside.

use std::collections::HashSet;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hearth_providers::env::{Env as _, SystemEnv};

use crate::cases::settle;
use crate::hearth::{Answer, Host, Outcome};
use crate::running::cases;

cases! {
    true orphans_of_every_kind_are_reaped_and_counted_and_strangers_stay,
}

/// A process that works in a directory; ended when this is dropped.
struct Works(Child);

impl Works {
    fn begin(dir: &Path) -> Answer<Self> {
        // In a session of its own: one with a terminal would be somebody who looks around there.
        let mut command = Command::new("setsid");
        command.args(["sleep", "1000000"]).current_dir(dir).stdin(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    fn has_ended(&mut self) -> Answer<bool> {
        Ok(self.0.try_wait()?.is_some())
    }
}

impl Drop for Works {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Some of each kind in the instance's directory `dir` and beside it.
struct Planted {
    dir: PathBuf,
    process: Works,
    cgroup: Option<PathBuf>,
    snapshot: PathBuf,
    name: PathBuf,
}

impl Planted {
    /// What is called `name` in the directories of `host`, or what looks like it.
    fn plant(host: &Host, name: &str, cgroups: Option<&Path>) -> Answer<Self> {
        let dir = host.state().join("instances").join(name);
        fs::create_dir(&dir)?;
        drop(UnixListener::bind(dir.join("qmp.sock"))?);
        fs::write(dir.join("disk-0.qcow2"), "cut short")?;
        let process = Works::begin(&dir)?;
        let cgroup = cgroups.map(|parent| parent.join(name));
        cgroup.iter().try_for_each(fs::create_dir)?;
        let snapshot = host.state().join("snapshots").join(name);
        fs::create_dir(&snapshot)?;
        fs::write(snapshot.join("ram"), "half of it")?;
        let name = host.runtime().join("names").join(format!("ghost-{}", &name[..8]));
        Ok(Self { dir, process, cgroup, snapshot, name })
    }

    fn places(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.dir, &self.snapshot, &self.name].into_iter().chain(&self.cgroup)
    }
}

async fn orphans_of_every_kind_are_reaped_and_counted_and_strangers_stay() -> Outcome {
    let host = Host::new("qemu")?;
    let hearth = host.start().await?;
    settle(&hearth, &host, 0).await?;
    let warm: HashSet<_> = hearth.warm_vms().await?.into_iter().map(|vm| vm.uid).collect();
    hearth.kill()?;

    let cgroups = host.cgroups().first().and_then(|cgroup| cgroup.parent()).map(Path::to_owned);
    let cgroups = cgroups.as_deref();
    let mut ours = Planted::plant(&host, &SystemEnv.uid().to_string(), cgroups)?;
    std::os::unix::fs::symlink(host.state().join("instances").join("gone"), &ours.name)?;
    let mut theirs = Planted::plant(&host, &format!("stranger-{}", std::process::id()), cgroups)?;
    fs::write(&theirs.name, "no link")?;
    // Another hearth's, for all we know: it is called as ours are, and nothing here mentions it.
    let unknown = cgroups.map(|parent| parent.join(SystemEnv.uid().to_string()));
    unknown.iter().try_for_each(fs::create_dir)?;

    let hearth = host.start().await?;
    assert!(ours.process.has_ended()?, "a process of ours lives");
    for place in ours.places() {
        assert!(fs::symlink_metadata(place).is_err(), "{} is there", place.display());
    }
    assert!(!theirs.process.has_ended()?, "a stranger's process was ended");
    assert!(theirs.dir.join("qmp.sock").exists(), "a stranger's socket is gone");
    for place in theirs.places().chain(&unknown) {
        assert!(fs::symlink_metadata(place).is_ok(), "{} is gone", place.display());
    }
    let cgroup_count = u8::from(cgroups.is_some());
    for (kind, count) in [
        ("instance", 1),
        ("process", 1),
        ("socket", 1),
        ("cgroup", cgroup_count),
        ("snapshot", 1),
        ("container", 0),
        ("vm", 0),
    ] {
        let series = format!("hearth_orphans_reaped_total{{kind=\"{kind}\"}}");
        assert_eq!(hearth.metric(&series).await, Some(f64::from(count)), "{kind}");
    }
    let again: HashSet<_> = hearth.warm_vms().await?.into_iter().map(|vm| vm.uid).collect();
    assert_eq!(again, warm, "what is whole is adopted");
    for cgroup in theirs.cgroup.iter().chain(&unknown) {
        fs::remove_dir(cgroup)?;
    }
    Ok(())
}
