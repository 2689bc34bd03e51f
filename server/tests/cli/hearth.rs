//! A server of a test's own, and commands sent to it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A running server; dropped, it is killed. Its VMs are of the memory provider and die with it.
pub(crate) struct Server {
    child: Child,
    address: String,
    admin: String,
    pub(crate) directory: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Server {
    /// Starts a server and waits until its default pool has `warm` VMs.
    pub(crate) fn start(warm: usize) -> Self {
        let server = Self::begin(tempfile::tempdir().unwrap(), &[]);
        server.ok(&["pools", "wait", "default", "--warm", &warm.to_string(), "--timeout", "60s"]);
        server
    }

    /// Starts a server that has these files beside it, `hearth.toml` among them.
    pub(crate) fn start_with(files: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self::begin(directory, &["--config", "hearth.toml"])
    }

    fn begin(directory: TempDir, more: &[&str]) -> Self {
        let mut child = hearth()
            .args(["serve", "--provider", "memory"])
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--state")
            .arg(directory.path().join("state"))
            .arg("--runtime")
            .arg(directory.path().join("run"))
            .args(more)
            .current_dir(directory.path())
            // What is for clients does not disturb the server.
            .envs([("HEARTH_ADDRESS", "nowhere"), ("HEARTH_OUTPUT", "json")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = |what: &str| {
            let mut lines = lines.by_ref().map_while(Result::ok);
            let found = lines.find_map(|line| line.strip_prefix(what).map(str::to_owned));
            let log = || std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            found.unwrap_or_else(|| panic!("the server does not say {what:?}: {}", log()))
        };
        let address = said("listening on ");
        let admin = said("admin on http://");
        let server = Self { child, address, admin, directory };
        wait_until_ready(&server.admin);
        server
    }

    /// Where it is, as host and port.
    #[allow(dead_code, reason = "clients that are no command want it so")]
    pub(crate) fn target(&self) -> &str {
        self.address.rsplit("//").next().unwrap()
    }

    /// Where its admin port is, as host and port.
    #[allow(dead_code, reason = "clients that are no command want it so")]
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// A command for this server, not run yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = hearth();
        command.args(arguments).env("HEARTH_ADDRESS", &self.address).stdin(Stdio::null());
        command.current_dir(self.directory.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a command that has to succeed, and answers what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "hearth {arguments:?}: {ended:?}");
        ended.out
    }

    /// The same, printed as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Runs a command that has to fail with exit code `code`, and answers the error it printed as
    /// JSON.
    pub(crate) fn error(&self, code: i32, arguments: &[&str]) -> Value {
        let ended = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(ended.code, code, "hearth {arguments:?}: {ended:?}");
        let report: Value = serde_json::from_str(&ended.err)
            .unwrap_or_else(|error| panic!("{error}: {}", ended.err));
        assert_eq!(report["error"]["exit_code"], code);
        report["error"].clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Until then a server knows neither what it had before nor what it is to have.
fn wait_until_ready(admin: &str) {
    let is_ready = || {
        let mut socket = TcpStream::connect(admin).ok()?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).ok()?;
        line.contains(" 200 ").then_some(())
    };
    for _ in 0..600 {
        match is_ready() {
            Some(()) => return,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    panic!("the server at {admin} does not become ready");
}

/// The program, without what the environment of the test run says to it.
pub(crate) fn hearth() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("HEARTH_") || name.starts_with("CLICOLOR") {
            command.env_remove(&*name);
        }
    }
    for name in ["RUST_LOG", "NO_COLOR", "CI"] {
        command.env_remove(name);
    }
    // Nor does what its user says to it.
    command.env("XDG_CONFIG_HOME", "/nonexistent").env("TERM", "xterm");
    command
}
