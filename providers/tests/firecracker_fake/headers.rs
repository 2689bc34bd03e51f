//! What the fake heeds of a request's head, and how a bad head is named.

/// What the headers of a request say.
#[derive(Debug, Default)]
pub(super) struct Headers {
    pub(super) content_length: u32,
    pub(super) expects_continue: bool,
}

impl Headers {
    /// Takes one header line. The error is what the server says of it.
    ///
    /// Chunked bodies are not refused by name: the header is known and has no effect, so the
    /// chunks are read as a next request.
    pub(super) fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let line = std::str::from_utf8(line).map_err(|error| {
            invalid(format!("Header contains invalid characters. Key: {error}"))
        })?;
        let Some((key, value)) = line.split_once(':') else {
            return Err(invalid(format!("Header is incorrectly formatted. Key: {line}")));
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "content-length" => {
                self.content_length = value.trim().parse().map_err(|_| bad_value(key, value))?;
            }
            "expect" if value.trim() == "100-continue" => self.expects_continue = true,
            "accept-encoding" => check_encodings(value.trim())?,
            _ => {}
        }
        Ok(())
    }
}

/// Identity, the only coding that the server has, must not be forbidden.
fn check_encodings(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("Invalid request.".to_owned());
    }
    let forbids = |coding: &str| {
        coding == "identity;q=0" || (coding == "*;q=0" && !value.contains("identity"))
    };
    match value.split(',').map(str::trim).find(|coding| forbids(coding)) {
        Some(coding) => Err(bad_value("Accept-Encoding", coding)),
        None => Ok(()),
    }
}

fn bad_value(key: &str, value: &str) -> String {
    invalid(format!("Invalid value. Key:{key}; Value:{value}"))
}

pub(super) fn invalid(reason: String) -> String {
    format!("Invalid header. Reason: {reason}")
}
