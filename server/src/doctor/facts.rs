//! What a provider tells the doctor.

/// How long a tool or an engine may take for each answer, so that a look ends whatever hangs.
#[cfg(any(
    feature = "apple-container",
    feature = "smolvm",
    all(feature = "docker", target_os = "linux")
))]
pub(super) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// What a backend says of itself.
#[cfg(all(
    any(feature = "docker", feature = "firecracker", feature = "qemu"),
    target_os = "linux"
))]
pub(super) struct Facts(pub(super) Vec<(&'static str, String)>);

#[cfg(all(
    any(feature = "docker", feature = "firecracker", feature = "qemu"),
    target_os = "linux"
))]
impl Facts {
    /// One of these; empty when it does not say.
    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// An error with its causes.
pub(super) fn said(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
