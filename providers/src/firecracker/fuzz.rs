//! Ways in for a search for input that is not borne: see [`crate::fuzzing`].

use std::path::Path;

use super::image::Image;

/// What its API says.
pub(crate) fn api(bytes: &[u8]) {
    super::api::fuzz(bytes);
}

/// What its vsock says.
pub(crate) fn vsock(bytes: &[u8]) {
    super::vsock::fuzz(bytes);
}

/// What is kept of a snapshot.
pub(crate) fn image(text: &[u8]) {
    let Some(image) = crate::files::fuzz::<Image>(text) else { return };
    let _ = image.blueprint.mem_size_bytes();
    for drive in &image.blueprint.drives {
        let _ = drive.check(Path::new("/nonexistent"));
    }
}
