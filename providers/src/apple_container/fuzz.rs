//! Ways in for a search for input that is not borne: see [`crate::fuzzing`].

/// What the tool says of its containers; what one runs becomes instructions of a build, of which a value
/// must not make more.
pub(crate) fn listing(bytes: &[u8]) {
    let _ = super::listing::parse(bytes);
    let Ok(process) = super::listing::process_of(bytes) else { return };
    for line in super::rebuild::dockerfile(&process).lines() {
        let word = line.split(' ').next().unwrap_or_default();
        let known = ["FROM", "ADD", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD", "LABEL"];
        assert!(known.contains(&word), "{line:?} is none of ours");
    }
}

/// What a container's export has in it: a guest chose every byte.
pub(crate) fn export(bytes: &[u8]) {
    let mut kept = Vec::new();
    if super::rebuild::cut_down(bytes, &mut kept).is_ok() {
        let again = super::rebuild::cut_down(kept.as_slice(), std::io::sink());
        assert!(again.is_ok(), "what was kept is an archive: {again:?}");
    }
}
