//! The headers that a collector wants with each message: as a token, mostly, and so from a file.

use std::path::Path;

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use zeroize::Zeroizing;

use crate::own_file::{SECRET, must_be_own};

/// Reads `name: value` lines, of a file that nobody else may read. What is not known to be harmless is not said again in an error.
///
/// # Errors
/// Which line is none, or why the file cannot be read.
pub(super) fn read(path: &Path) -> Result<MetadataMap, String> {
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    must_be_own(path, SECRET)?;
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| named(&error))?);
    parse(&text).map_err(|line| named(&format!("line {line} is no `name: value`")))
}

fn parse(text: &str) -> Result<MetadataMap, usize> {
    let mut headers = MetadataMap::new();
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once(':').ok_or(number)?;
        let name: AsciiMetadataKey = name.trim().to_lowercase().parse().map_err(|_| number)?;
        let mut value: AsciiMetadataValue = value.trim().parse().map_err(|_| number)?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_lines_and_what_is_none_is_told_by_its_number() {
        let headers = parse("# for us\n\nAuthorization: Bearer a:b\nx-team:  hearth \n").unwrap();
        assert_eq!(headers.get("authorization").unwrap(), "Bearer a:b");
        assert_eq!(headers.get("x-team").unwrap(), "hearth");
        assert!(!format!("{headers:?}").contains("Bearer"), "{headers:?}");
        assert_eq!(parse("a: 1\nsecret\n").unwrap_err(), 2);
        assert_eq!(parse("a b: 1\n").unwrap_err(), 1);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_unread() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("headers");
        std::fs::write(&path, "authorization: Bearer a\n").unwrap();
        let read_with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        assert_eq!(read_with(0o600).unwrap().len(), 1);
        let why = read_with(0o644).unwrap_err();
        assert!(why.contains("others may read it (mode 644): chmod 600"), "{why}");
    }
}
