//! Ways in for a search for input that is not borne: see [`crate::fuzzing`].

use std::path::Path;

use super::image::Image;

/// What a monitor says.
pub(crate) fn qmp(bytes: &[u8]) {
    super::qmp::fuzz(bytes);
}

/// What is kept of a snapshot.
pub(crate) fn image(text: &[u8]) {
    let Some(image) = crate::files::fuzz::<Image>(text) else { return };
    let _ = (image.has_memory_file(), image.blueprint.mem_size_bytes());
    for disk in &image.blueprint.disks {
        let _ = disk.check(Path::new("/nonexistent"));
    }
}
