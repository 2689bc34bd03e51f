//! The searches' way to the targets, which are the product's and its tests'.

#[path = "../../server/tests/fuzz/targets/mod.rs"]
mod targets;

/// Runs the target `name` on `bytes`.
///
/// # Panics
/// When something is wrong with hearth, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = targets::all().find(|target| target.name == name).expect("there is such a target");
    (target.run)(bytes);
}
