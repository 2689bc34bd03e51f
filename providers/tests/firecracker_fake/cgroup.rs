//! The jailer's cgroups: `MOUNT/PARENT/ID`, in each hierarchy that has a value to be set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::jailer::stays_below;

/// The cgroups that a jail gets.
#[derive(Debug)]
pub(super) struct Cgroups {
    version: u8,
    parent: PathBuf,
    id: String,
    /// What is written, by the hierarchy's mount.
    values: BTreeMap<PathBuf, Vec<(String, String)>>,
}

impl Cgroups {
    /// Checks values of the form `file=value` against what is mounted.
    pub(super) fn check(
        version: &str,
        parent: &Path,
        id: &str,
        wanted: &[String],
    ) -> Result<Self, String> {
        let number = version.parse::<u8>();
        let version =
            number.map_err(|_| format!("{version} is an invalid cgroup version specifier"))?;
        let (parent, id) = (parent.to_owned(), id.to_owned());
        let mut cgroups = Self { version, parent, id, values: BTreeMap::new() };
        if wanted.is_empty() && version != 2 {
            return Ok(cgroups);
        }
        let mounts = mounts(version)?;
        if wanted.is_empty() {
            // Without values a parent that is there is joined itself.
            join_parent(&mounts[0].dir.join(&cgroups.parent))?;
        }
        for wanted in wanted {
            let mut parts = wanted.split('=');
            let (Some(file), Some(value), None) = (parts.next(), parts.next(), parts.next()) else {
                return Err(format!("Invalid format for cgroups: {wanted}"));
            };
            if value.is_empty() {
                return Err(format!("Invalid format for cgroups: {wanted}"));
            }
            if !stays_below(Path::new(file)) {
                return Err(format!("Cgroup invalid file: {wanted}"));
            }
            let Some((controller, _)) = file.split_once('.') else {
                return Err(format!("Cgroup invalid file: {file}"));
            };
            let mut found = mounts.iter().filter(|mount| mount.has(controller));
            let mount =
                found.next().ok_or_else(|| format!("Controller {controller} is unavailable"))?;
            let values = cgroups.values.entry(mount.dir.clone()).or_default();
            values.push((file.to_owned(), value.to_owned()));
        }
        Ok(cgroups)
    }

    /// Makes the cgroups, writes their values, and moves this process in.
    pub(super) fn set_up(&self) -> Result<(), String> {
        let own = |mount: &PathBuf| mount.join(&self.parent).join(&self.id);
        for (mount, values) in &self.values {
            let dir = own(mount);
            std::fs::create_dir_all(&dir).map_err(|error| {
                format!("Failed to create directory {}: {error}", dir.display())
            })?;
            for (file, value) in values {
                match self.version {
                    1 => inherit(&dir, file, self.parent.components().count())?,
                    _ => enable(mount, &self.parent, file)?,
                }
                write(&dir.join(file), value)?;
            }
        }
        let list = if self.version == 1 { "tasks" } else { "cgroup.procs" };
        let pid = std::process::id().to_string();
        self.values.keys().try_for_each(|mount| write(&own(mount).join(list), &pid))
    }
}

/// A mounted hierarchy.
struct Mount {
    dir: PathBuf,
    controllers: Vec<String>,
}

impl Mount {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|it| it == controller)
    }
}

fn mounts(version: u8) -> Result<Vec<Mount>, String> {
    let text = std::fs::read_to_string("/proc/mounts")
        .map_err(|error| format!("Failed to open file /proc/mounts: {error}"))?;
    let wanted = if version == 1 { "cgroup" } else { "cgroup2" };
    let mounts = text.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let (dir, kind, options) = (fields.get(1)?, fields.get(2)?, fields.get(3)?);
        let dir = PathBuf::from(dir);
        let controllers: Vec<String> = match version {
            1 => options.split(',').map(str::to_owned).collect(),
            _ => {
                let list = std::fs::read_to_string(dir.join("cgroup.controllers"));
                list.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
            }
        };
        (*kind == wanted).then_some(Mount { dir, controllers })
    });
    let mounts: Vec<_> = mounts.collect();
    match mounts.is_empty() || ![1, 2].contains(&version) {
        true => Err("Hierarchy not found: No hierarchy found for this cgroup version.".to_owned()),
        false => Ok(mounts),
    }
}

fn join_parent(parent: &Path) -> Result<(), String> {
    if !parent.exists() {
        return Ok(());
    }
    let joined = std::fs::write(parent.join("cgroup.procs"), std::process::id().to_string());
    joined.map_err(|error| {
        let parent = parent.display();
        format!(
            "Failed to move process to cgroup ({parent}): {error}.\nHint: If you intended to create \
             a child cgroup under {parent}, pass any --cgroup parameters."
        )
    })
}

/// Some files of version 1 are empty in a new cgroup, and refuse a value until the parent's is
/// there.
fn inherit(dir: &Path, file: &str, levels: usize) -> Result<(), String> {
    let parent = dir.parent().unwrap_or(dir);
    let mut value = first_line(&parent.join(file))?;
    if value.is_empty() && levels > 0 {
        // Another jailer may be at it, too; what counts is what is there then.
        let _ = inherit(parent, file, levels - 1);
        value = first_line(&parent.join(file))?;
    }
    if value.is_empty() {
        let dir = dir.display();
        return Err(format!(
            "Failed to inherit cgroups configurations from file {file} in path {dir}"
        ));
    }
    write(&dir.join(file), &value)
}

/// A controller of version 2 works in a cgroup when every one above hands it on.
fn enable(mount: &Path, parent: &Path, file: &str) -> Result<(), String> {
    let controller = file.split('.').next().unwrap_or(file);
    let mut dir = mount.to_owned();
    let mut parts = parent.components();
    loop {
        write(&dir.join("cgroup.subtree_control"), &format!("+{controller}"))?;
        match parts.next() {
            Some(part) => dir.push(part),
            None => return Ok(()),
        }
    }
}

fn first_line(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!("Failed to read file {} into a string: {error}", path.display())
    })?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

fn write(path: &Path, value: &str) -> Result<(), String> {
    std::fs::write(path, format!("{value}\n"))
        .map_err(|error| format!("Failed to write to {}: {error}", path.display()))
}
