//! Files that are somebody's own: with a secret, or with what others could lead astray by changing it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Bits of the mode of a file with a secret that others would read or change it by.
pub const SECRET: u32 = 0o077;

/// Refuses a file that others may use as `refused` says, in bits of its mode.
///
/// # Errors
/// What is wrong, and what mends it.
pub fn must_be_own(path: &Path, refused: u32) -> Result<(), String> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    let mode = about.permissions().mode() & 0o7777;
    match mode & refused {
        0 => Ok(()),
        _ => {
            let what = if refused & 0o044 == 0 { "change" } else { "read" };
            let mended = mode & !refused;
            Err(format!(
                "{shown}: others may {what} it (mode {mode:03o}): chmod {mended:03o} {shown}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_may_use_is_refused_with_what_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "t").unwrap();
        for (mode, refused, wanted) in [
            (0o640, SECRET, Some("others may read it (mode 640): chmod 600")),
            (0o600, SECRET, None),
            (0o646, 0o002, Some("others may change it (mode 646): chmod 644")),
            (0o664, 0o002, None),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match (must_be_own(&path, refused), wanted) {
                (Ok(()), None) => {}
                (Err(why), Some(wanted)) => assert!(why.contains(wanted), "{why}"),
                (result, _) => panic!("{mode:o}: {result:?}"),
            }
        }
    }
}
