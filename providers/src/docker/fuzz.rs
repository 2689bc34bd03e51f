//! Ways in for a search for input that is not borne: see [`crate::fuzzing`].

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, ContainerSummary, EventMessage, ImageSummary};

use super::image::Content;
use super::labels;
use super::machine::Record;

/// What the engine says of its containers and images, of which only what is ours may be taken for it.
pub(crate) fn labels(bytes: &[u8]) {
    const STATE: &str = "7e6f0e4a-3c55-4c43-9a0a-3c0f4f7b2d11";
    let _ = serde_json::from_slice::<EventMessage>(bytes);
    let _ = serde_json::from_slice::<ContainerInspectResponse>(bytes);
    let containers = serde_json::from_slice::<Vec<ContainerSummary>>(bytes).unwrap_or_default();
    for container in containers {
        let carried: HashMap<_, _> = container.labels.unwrap_or_default().into_iter().collect();
        let names = container.names.unwrap_or_default();
        if let Some(uid) = labels::uid_of_container(STATE, &carried, &names) {
            assert_eq!(carried.get(labels::STATE).map(String::as_str), Some(STATE));
            let ours = labels::container(uid);
            assert!(names.iter().any(|name| name.trim_start_matches('/') == ours));
        }
    }
    let images = serde_json::from_slice::<Vec<ImageSummary>>(bytes).unwrap_or_default();
    for tag in images.into_iter().flat_map(|image| image.repo_tags) {
        if let Some(uid) = labels::uid_of_image(&tag) {
            assert!(tag.ends_with(&labels::image(uid)), "{tag} is not {uid}'s");
        }
    }
}

/// What is written down of a container and an image.
pub(crate) fn record(text: &[u8]) {
    drop(crate::files::fuzz::<Record>(text));
    drop(crate::files::fuzz::<Content>(text));
}
