//! How what is ours is told from what is a stranger's: names and labels.
//!
//! A container is ours when it carries the uuid of our state directory and is called after the
//! uid that it carries: labels alone could have been copied by a commit of somebody else's. An
//! image made by us carries the state's uuid under a key of its own, and the two keys of the
//! container blank, so that what others make from it is not taken for ours.

use std::collections::HashMap;

use crate::id::Uid;

/// The uid of a container's VM.
pub(super) const UID: &str = "dev.hearth.uid";
/// The state directory that a container belongs to.
pub(super) const STATE: &str = "dev.hearth.state";
/// The state directory that an image belongs to.
pub(super) const SNAPSHOT_STATE: &str = "dev.hearth.snapshot.state";
/// Where the images of snapshots are; their uids are the tags.
pub(super) const REPOSITORY: &str = "hearth/snapshot";

/// What the engine calls a VM's container, for life.
pub(super) fn container(uid: Uid) -> String {
    format!("hearth-{uid}")
}

/// What the engine calls a snapshot's image.
pub(super) fn image(uid: Uid) -> String {
    format!("{REPOSITORY}:{uid}")
}

/// The uid of the snapshot that an image is called after; engines may put a registry before it.
pub(super) fn uid_of_image(reference: &str) -> Option<Uid> {
    let (repository, tag) = reference.rsplit_once(':')?;
    let ours = repository.strip_suffix(REPOSITORY)?;
    (ours.is_empty() || ours.ends_with('/')).then(|| tag.parse().ok()).flatten()
}

/// Those of a VM's container.
pub(super) fn of_container(state: &str, uid: Uid) -> HashMap<String, String> {
    HashMap::from([(UID.to_owned(), uid.to_string()), (STATE.to_owned(), state.to_owned())])
}

/// The uid of the VM whose container of `state` this is; `None` for a stranger's.
pub(super) fn uid_of_container(
    state: &str,
    labels: &HashMap<String, String>,
    names: &[String],
) -> Option<Uid> {
    let carried = labels.get(STATE).is_some_and(|carried| carried == state);
    let uid = labels.get(UID).filter(|_| carried)?.parse().ok()?;
    let name = container(uid);
    names.iter().any(|found| found.trim_start_matches('/') == name).then_some(uid)
}

/// The instructions that a commit is given: one a line, since one line with several labels means
/// different things to different engines.
pub(super) fn changes_for_commit(state: &str) -> String {
    format!("LABEL {UID}=\nLABEL {STATE}=\nLABEL {SNAPSHOT_STATE}={state}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_ours_by_name_and_labels() {
        let uid = Uid::from_random([7; 16]);
        let labels = of_container("state", uid);
        let named = |name: String| uid_of_container("state", &labels, &[name]);
        assert_eq!(named(format!("/hearth-{uid}")), Some(uid));
        assert_eq!(named("copied".to_owned()), None, "labels can be copied");
        let other = uid_of_container("other", &labels, &[container(uid)]);
        assert_eq!(other, None, "another hearth's");
        assert_eq!(uid_of_container("state", &HashMap::new(), &[container(uid)]), None);
    }

    #[test]
    fn an_image_is_called_after_its_snapshot() {
        let uid = Uid::from_random([7; 16]);
        assert_eq!(uid_of_image(&image(uid)), Some(uid));
        assert_eq!(uid_of_image(&format!("docker.io/{}", image(uid))), Some(uid));
        assert_eq!(uid_of_image(&format!("not{}", image(uid))), None);
        assert_eq!(uid_of_image("hearth/snapshot:latest"), None);
    }
}
