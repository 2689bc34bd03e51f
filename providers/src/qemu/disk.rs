//! Disks: a writable layer of the machine's own over layers that nobody writes to.
//!
//! The lowest layer is the raw image that the spec names; above it are the writable layers of
//! former lives, each frozen by a snapshot. A snapshot holds all layers itself: the raw image and
//! the machine's own layer as copies, those of earlier snapshots as hard links, for they never
//! change. So it stands alone, and its parents may go.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::qcow2;
use crate::error::{Result, VmRuntimeError};
use crate::files;
use crate::local::copy;
use crate::local::image::{self, Stamp};

/// QEMU reads through every layer: past this many, the uppermost is copied, not covered.
const MAX_LAYERS: usize = 8;
/// A layer of up to this many bytes is copied sooner than covered: as quick, and one less.
const COPY_MAX_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Disk {
    /// What the guest sees as its serial number; empty for none.
    serial: String,
    size_bytes: u64,
    read_only: bool,
    /// The lowest first.
    layers: Vec<Layer>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Layer {
    /// In a snapshot that stands on disk: the name in its directory.
    path: PathBuf,
    format: Format,
    /// Of a file that is not ours: as it was when it was first used.
    foreign: Option<Stamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    Raw,
    Qcow2,
}

impl Disk {
    /// A disk that starts as the raw image at `path`.
    pub(super) fn of(path: &Path, read_only: bool, serial: &str) -> Result<Self> {
        let printable = serial.bytes().all(|byte| byte.is_ascii_graphic());
        if serial.len() > 20 || !printable {
            let reason = format!("{serial:?} is longer than 20 characters, or not plain");
            return Err(VmRuntimeError::InvalidSpec { field: "extra_drives", reason });
        }
        let path = image::absolute("rootfs", path)?;
        let stamp = Stamp::of(&path)
            .map_err(|error| files::io_error(format!("look at {}", path.display()), error))?;
        Ok(Self {
            serial: serial.to_owned(),
            size_bytes: stamp.length.next_multiple_of(512),
            read_only,
            layers: vec![Layer { path, format: Format::Raw, foreign: Some(stamp) }],
        })
    }

    /// Makes the machine's own layer, for its first boot.
    pub(super) fn make_own_layer(&self, index: usize, dir: &Path) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        let path = dir.join(own_layer(index));
        qcow2::create(&path, self.size_bytes)
            .map_err(|error| files::io_error(format!("make {}", path.display()), error))
    }

    /// Copies the machine's own layer into a snapshot; the machine must stand still.
    pub(super) fn capture_own_layer(
        &self,
        index: usize,
        from: &Path,
        into: &Path,
        go_on: &dyn Fn() -> bool,
    ) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        copy_file(
            &from.join(own_layer(index)),
            &into.join(layer_name(index, self.layers.len())),
            go_on,
        )
    }

    /// Puts the layers below into the snapshot, and answers the disk as a snapshot has it.
    pub(super) fn capture_layers(
        &self,
        index: usize,
        into: &Path,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Self> {
        if self.read_only {
            return Ok(self.clone());
        }
        let mut layers = Vec::new();
        for (level, layer) in self.layers.iter().enumerate() {
            let path = PathBuf::from(layer_name(index, level));
            let target = into.join(&path);
            if layer.foreign.is_some() || fs::hard_link(&layer.path, &target).is_err() {
                copy_file(&layer.path, &target, go_on)?;
            }
            layers.push(Layer { path, format: layer.format, foreign: None });
        }
        let path = PathBuf::from(layer_name(index, layers.len()));
        layers.push(Layer { path, format: Format::Qcow2, foreign: None });
        Ok(Self { layers, ..self.clone() })
    }

    /// The files that a restore of this disk, of the snapshot in `dir`, reads.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be used, and whether it is missing.
    pub(super) fn check(&self, dir: &Path) -> Result<(), Unusable> {
        for layer in &self.layers {
            let path = dir.join(&layer.path);
            let stamp = Stamp::of(&path)
                .map_err(|error| Unusable::Missing(format!("{}: {error}", path.display())))?;
            if layer.foreign.is_some_and(|foreign| foreign != stamp) {
                let changed = format!("{} has changed since", path.display());
                return Err(Unusable::Changed(changed));
            }
        }
        Ok(())
    }

    /// The disk of a new machine in `dir` that goes on from the snapshot in `from`: makes its
    /// own layer there. The layers below stay where they are.
    pub(super) fn restore(&self, index: usize, from: &Path, dir: &Path) -> Result<Self> {
        let mut disk = self.clone();
        for layer in &mut disk.layers {
            layer.path = from.join(&layer.path);
        }
        if disk.read_only {
            return Ok(disk);
        }
        let upper = disk.layers.last().filter(|layer| layer.format == Format::Qcow2);
        let copied = upper.filter(|layer| {
            disk.layers.len() > MAX_LAYERS || allocated(&layer.path) <= COPY_MAX_BYTES
        });
        match copied {
            Some(layer) => {
                copy_file(&layer.path, &dir.join(own_layer(index)), &|| true)?;
                disk.layers.pop();
            }
            None => disk.make_own_layer(index, dir)?,
        }
        Ok(disk)
    }

    /// The block device tree, and the device that the guest sees.
    pub(super) fn arguments(&self, index: usize, throttled: bool) -> (Value, Value) {
        let name = format!("disk-{index}");
        let layers = self.layers.iter().fold(Value::Null, |below, layer| layer.node(&below));
        let mut node = if self.read_only {
            layers
        } else {
            // No VM outlives the host, so what the guest flushes need not reach the medium.
            json!({
                "driver": "qcow2",
                "file": { "driver": "file", "filename": own_layer(index), "discard": "unmap",
                          "cache": { "no-flush": true } },
                "backing": layers,
                "discard": "unmap",
                "cache": { "no-flush": true },
            })
        };
        if throttled {
            node = json!({ "driver": "throttle", "throttle-group": "limits", "file": node,
                           "read-only": self.read_only });
        }
        node["node-name"] = name.as_str().into();
        // An error is the guest's to handle: by default a full disk would stop it without a word.
        let mut device = json!({ "driver": "virtio-blk-pci", "drive": name,
                                 "werror": "report", "rerror": "report" });
        if !self.serial.is_empty() {
            device["serial"] = self.serial.as_str().into();
        }
        (node, device)
    }
}

impl Layer {
    fn node(&self, below: &Value) -> Value {
        let path = self.path.to_string_lossy();
        let file = json!({ "driver": "file", "filename": path, "read-only": true });
        match self.format {
            Format::Raw => json!({ "driver": "raw", "read-only": true, "file": file }),
            Format::Qcow2 => {
                json!({ "driver": "qcow2", "read-only": true, "file": file, "backing": below })
            }
        }
    }
}

/// Why a disk of a snapshot cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    Missing(String),
    Changed(String),
}

fn own_layer(index: usize) -> String {
    format!("disk-{index}.qcow2")
}

fn layer_name(index: usize, level: usize) -> String {
    format!("disk-{index}.{level}")
}

fn allocated(path: &Path) -> u64 {
    path.metadata().map_or(u64::MAX, |metadata| metadata.blocks() * 512)
}

fn copy_file(from: &Path, to: &Path, go_on: &dyn Fn() -> bool) -> Result<()> {
    copy::copy(from, to, go_on)
        .map_err(|error| files::io_error(format!("copy {}", from.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn always() -> bool {
        true
    }

    #[test]
    fn a_snapshot_of_a_clone_stands_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["first", "template", "clone", "second"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("rootfs"), [1; 100]).unwrap();
        let disk = Disk::of(&at("rootfs"), false, "").unwrap();
        assert_eq!(disk.size_bytes, 512);
        disk.make_own_layer(0, &at("first")).unwrap();
        disk.capture_own_layer(0, &at("first"), &at("template"), &always).unwrap();
        let frozen = disk.capture_layers(0, &at("template"), &always).unwrap();
        fs::remove_file(at("rootfs")).unwrap();
        frozen.check(&at("template")).unwrap();
        let clone = frozen.restore(0, &at("template"), &at("clone")).unwrap();
        assert_eq!(clone.layers.len(), 1, "a small layer is copied, not covered");
        clone.capture_own_layer(0, &at("clone"), &at("second"), &always).unwrap();
        let frozen = clone.capture_layers(0, &at("second"), &always).unwrap();
        fs::remove_dir_all(at("template")).unwrap();
        frozen.check(&at("second")).unwrap();
        assert_eq!(fs::read(at("second").join("disk-0.0")).unwrap(), [1; 100]);
        fs::remove_file(at("second").join("disk-0.0")).unwrap();
        assert!(matches!(frozen.check(&at("second")), Err(Unusable::Missing(_))));
    }

    #[test]
    fn layers_lie_over_each_other_and_only_ours_is_written() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("rootfs"), [1; 1024]).unwrap();
        let disk = Disk::of(&dir.path().join("rootfs"), false, "data").unwrap();
        let (node, device) = disk.arguments(3, false);
        assert_eq!(node["node-name"], "disk-3");
        assert_eq!(node["file"]["filename"], "disk-3.qcow2");
        assert_eq!(node["backing"]["driver"], "raw");
        assert_eq!(node["backing"]["read-only"], true);
        assert_eq!(device["serial"], "data");
        let (node, _) = disk.arguments(3, true);
        assert_eq!((&node["driver"], &node["node-name"]), (&json!("throttle"), &json!("disk-3")));
    }

    #[test]
    fn a_foreign_image_that_changed_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rootfs");
        fs::write(&path, [1; 512]).unwrap();
        let disk = Disk::of(&path, true, "").unwrap();
        disk.check(dir.path()).unwrap();
        fs::write(&path, [1; 1024]).unwrap();
        assert!(matches!(disk.check(dir.path()), Err(Unusable::Changed(_))));
    }
}
