//! What a provider tells the doctor.

/// What a backend says of itself.
#[cfg(all(any(feature = "docker", feature = "firecracker"), target_os = "linux"))]
pub(super) struct Facts(pub(super) Vec<(&'static str, String)>);

#[cfg(all(any(feature = "docker", feature = "firecracker"), target_os = "linux"))]
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
