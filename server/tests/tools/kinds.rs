//! The other names of the kinds, wherever a kind can be said.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::cli_fake::Settings;
use crate::site::{Case, Hearth, Site, apple, smolvm};

pub(crate) const ALL: &[Case] = &[
    ("a_configuration_may_say_smolmachines", a_configuration_may_say_smolmachines),
    ("a_configuration_may_say_macos_container", a_configuration_may_say_macos_container),
    ("a_flag_may_say_smolmachines", a_flag_may_say_smolmachines),
    ("a_variable_may_say_macos_container", a_variable_may_say_macos_container),
];

const IMAGE: (&str, &str) = ("HEARTH_DEFAULT_TEMPLATE__IMAGE", "base");
const DEPTH: (&str, &str) = ("HEARTH_DEFAULT_POOL__DEPTH", "1");

fn a_configuration_may_say_smolmachines() {
    in_the_file("smolmachines", &smolvm(), "smolvm");
}

fn a_configuration_may_say_macos_container() {
    in_the_file("macos-container", &apple("1.2.1"), "apple-container");
}

fn in_the_file(said: &str, settings: &Settings, kind: &str) {
    let site = Site::new(said, settings);
    assert_kind(&site.start(), "tool", kind, &settings.version);
}

/// The program is found in the path, as it is called by itself.
fn path_with(site: &Site, name: &str) -> String {
    symlink(&site.program, site.path().join(name)).unwrap();
    format!("{}:{}", site.path().display(), std::env::var("PATH").unwrap_or_default())
}

fn a_flag_may_say_smolmachines() {
    let site = Site::new("smolvm", &smolvm());
    let path = path_with(&site, "smolvm");
    let flags = ["--provider".as_ref(), "smolmachines".as_ref()];
    let hearth = site.start_with(&flags, &[("PATH", &path), IMAGE, DEPTH]);
    assert_kind(&hearth, "smolvm", "smolvm", "1.32.2");
}

fn a_variable_may_say_macos_container() {
    let site = Site::new("apple-container", &apple("1.2.1"));
    let path = path_with(&site, "container");
    let kind = ("HEARTH_PROVIDERS__MAC__KIND", "macos-container");
    let hearth = site.start_with(&[], &[("PATH", &path), IMAGE, DEPTH, kind]);
    assert_kind(&hearth, "mac", "apple-container", "1.2.1");
}

/// There is one provider, of this name and kind, and it has VMs.
fn assert_kind(hearth: &Hearth, name: &str, kind: &str, version: &str) {
    let node = hearth.json(&["node", "get"]);
    let providers = node["providers"].as_array().unwrap();
    let [provider] = providers.as_slice() else { panic!("{node}") };
    let said = ["name", "kind", "version"].map(|key| provider[key].clone());
    assert_eq!(said, [json!(name), json!(kind), json!(version)], "{node}");
    assert_eq!(hearth.acquire("mine")["provider"], name);
}
