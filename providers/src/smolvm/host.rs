//! What the tool needs of the machine that it runs on.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// Whether this machine can run guests for the tool, and by what; for people. Opens `/dev/kvm` and
/// closes it.
///
/// # Errors
/// Why not.
pub fn virtualisation() -> Result<String, String> {
    let shown = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    by_device(Path::new("/dev/kvm"), cfg!(target_arch = "x86_64").then_some(&shown))
}

/// By this device, on a machine whose processor shows its `flags`, where processors have any.
fn by_device(device: &Path, flags: Option<&String>) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", device.display());
    let found = device.metadata().map_err(|error| failed(&error))?;
    if !found.file_type().is_char_device() {
        return Err(failed(&"this is not a device"));
    }
    let opened = fs::OpenOptions::new().read(true).write(true).open(device);
    opened.map_err(|error| failed(&error))?;
    let has_flag = |text: &String| {
        let lines = text.lines().filter(|line| line.starts_with("flags"));
        lines.flat_map(str::split_ascii_whitespace).any(|flag| flag == "vmx" || flag == "svm")
    };
    // A device that is there says little: software can back it.
    Ok(match flags.is_none_or(has_flag) {
        true => "hardware".to_owned(),
        false => "software: the processor shows neither vmx nor svm".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_needs_a_processor_behind_it() {
        // Everybody may open this one.
        let device = Path::new("/dev/null");
        let flags =
            |flags: &str| by_device(device, Some(&format!("model : x\nflags\t: {flags}\n")));
        assert_eq!(flags("fpu vmx sse").as_deref(), Ok("hardware"));
        assert!(flags("fpu sse").unwrap().starts_with("software"));
        assert_eq!(by_device(device, None).as_deref(), Ok("hardware"));
    }

    #[test]
    fn what_is_no_device_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let why = by_device(file.path(), None).unwrap_err();
        assert!(why.contains("not a device"), "{why}");
        let why = by_device(Path::new("/no/such/kvm"), None).unwrap_err();
        assert!(why.starts_with("/no/such/kvm: "), "{why}");
    }
}
