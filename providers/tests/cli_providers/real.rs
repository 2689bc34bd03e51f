//! What runs of the real smolvm without hardware virtualisation: everything but a start and what
//! needs one. Its machines are the calling user's: give it a home of its own.

use std::path::PathBuf;
use std::sync::Arc;

use hearth_providers::cli::CliConfig;
use hearth_providers::env::SystemEnv;
use hearth_providers::{VmProvider as _, VmQuery as _, VmStatus, smolvm};

use crate::rig::{id, paths, snapshot_id, spec};

/// What a case is called, and what it does with the program.
type Case = (&'static str, fn(PathBuf));

pub(crate) const ALL: &[Case] = &[
    ("machines_are_made_listed_taken_up_and_removed", machines_are_made_and_removed),
    ("what_it_refuses_is_said", what_it_refuses_is_said),
];

fn machines_are_made_and_removed(program: PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let config = CliConfig::new(program, "a-test-of-hearth");
    let open = || {
        let (config, paths) = (config.clone(), paths(dir.path()));
        smolvm::open("smolvm", config, Arc::new(SystemEnv), paths).unwrap()
    };
    let (provider, _) = open();
    provider.create_vm_with_spec(&id("vm"), &spec("alpine:3")).unwrap();
    provider.rename_vm(&id("vm"), &id("renamed")).unwrap();
    drop(provider);
    let (provider, report) = open();
    assert_eq!((report.adopted, report.reaped_instances), (1, 0));
    assert_eq!(provider.status(&id("renamed")), Some(VmStatus::Created));
    assert!(provider.describe().iter().any(|(key, value)| *key == "version" && !value.is_empty()));
    provider.destroy_vm(&id("renamed")).unwrap();
    drop(provider);
    // Nothing of it is left to be swept.
    let (_, report) = open();
    assert_eq!((report.adopted, report.reaped_instances), (0, 0));
}

fn what_it_refuses_is_said(program: PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let config = CliConfig::new(program, "another-test-of-hearth");
    let tool = smolvm::Smolvm::find(&config).unwrap();
    use hearth_providers::cli::Tool as _;
    let cut = std::sync::atomic::AtomicBool::new(false);
    let cause = |error: hearth_providers::VmRuntimeError| {
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
    };
    let absent = "hearth-that-is-not-there";
    assert!(cause(tool.start(absent, &cut).unwrap_err()).contains("not found"));
    assert!(cause(tool.stop(absent, &cut).unwrap_err()).contains("not found"));
    assert!(cause(tool.delete(absent).unwrap_err()).contains("not found"));
    let (provider, _) =
        smolvm::open("smolvm", config, Arc::new(SystemEnv), paths(dir.path())).unwrap();
    provider.create_vm_with_spec(&id("vm"), &spec("alpine:3")).unwrap();
    let refused = provider.snapshot_vm(&id("vm"), &snapshot_id("snap")).unwrap_err();
    assert_eq!(refused.kind(), "invalid_transition");
    provider.destroy_vm(&id("vm")).unwrap();
}
