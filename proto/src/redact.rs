//! `Debug` of the messages that hold secrets: shape, never content.
//!
//! Requests end up in logs and in panic messages. So these three have no derived `Debug`; what contains
//! them prints them through this.

use std::fmt;

use crate::v1::{ExecVmRequest, Identity, IdentityFile};

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("env", &format_args!("{} redacted", self.env.len()))
            .field("files", &self.files)
            .field("secrets", &format_args!("{} redacted", self.secrets.len()))
            .field("hostname", &self.hostname)
            .finish()
    }
}

impl fmt::Debug for IdentityFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityFile")
            .field("path", &self.path)
            .field("content", &format_args!("{} bytes redacted", self.content.len()))
            .field("mode", &format_args!("{:#o}", self.mode))
            .finish()
    }
}

impl fmt::Debug for ExecVmRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecVmRequest")
            .field("name", &self.name)
            .field("uid", &self.uid)
            .field("args", &format_args!("{} redacted", self.args.len()))
            .field("env", &format_args!("{} redacted", self.env.len()))
            .field("working_directory", &self.working_directory)
            .field("stdin", &format_args!("{} bytes redacted", self.stdin.len()))
            .field("timeout", &self.timeout)
            .field("request_id", &self.request_id)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::v1::{AcquireVmRequest, ExecVmRequest, Identity, IdentityFile};

    #[test]
    fn secrets_are_not_printed() {
        let identity = Identity {
            env: [("TOKEN".into(), "hunter2".into())].into(),
            files: vec![IdentityFile {
                path: "/etc/key".into(),
                content: Bytes::from_static(b"hunter2"),
                mode: 0o600,
            }],
            secrets: [("key".into(), Bytes::from_static(b"hunter2"))].into(),
            hostname: "guest".into(),
        };
        let acquire = AcquireVmRequest { identity: Some(identity), ..Default::default() };
        let exec = ExecVmRequest {
            args: vec!["login".into(), "hunter2".into()],
            env: [("TOKEN".into(), "hunter2".into())].into(),
            stdin: Bytes::from_static(b"hunter2"),
            ..Default::default()
        };
        let printed = format!("{acquire:?} {acquire:#?} {exec:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains("/etc/key") && printed.contains("0o600"), "{printed}");
    }
}
