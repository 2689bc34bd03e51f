//! Programs of others: Prometheus and promtool.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// What is missing to run them.
pub(crate) fn missing() -> Option<String> {
    let found = ["prometheus", "promtool"].map(|program| {
        let ran = Command::new(program).arg("--version").output();
        ran.map(|_| ()).map_err(|error| format!("{program}: {error}"))
    });
    found.into_iter().find_map(Result::err)
}

/// Runs promtool on a file or on `input`; it has to find nothing wrong.
pub(crate) fn promtool(arguments: &[&str], directory: &Path, input: &str) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = [ended.stdout, ended.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    assert!(ended.status.success(), "promtool {arguments:?}: {}{}", said[0], said[1]);
}

/// A port that nobody has at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Asks for a page by HTTP; `None` while nobody answers, or something else than 200.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}

/// Waits for something that has to come within two minutes.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not within two minutes");
}

/// A Prometheus that runs; dropped, it is killed.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts one that reads the admin ports of `targets`, by what they are to be called, with these rules.
    /// What it is to look back is in scale with its rules, in milliseconds.
    pub(crate) fn start(
        targets: &[(&str, SocketAddr)],
        rules: &[(&str, String)],
        look_back_ms: u64,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = String::from(
            "global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }\nrule_files: [",
        );
        for (name, text) in rules {
            std::fs::write(directory.path().join(name), text).unwrap();
            config += &format!("{name},");
        }
        config += "]\nscrape_configs:\n  - job_name: hearth\n    static_configs:\n";
        for (name, address) in targets {
            config += &format!(
                "      - {{ targets: [\"{address}\"], labels: {{ instance: {name} }} }}\n"
            );
        }
        std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--query.lookback-delta={look_back_ms}ms"))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Self { child, address, _directory: directory };
        wait_for("Prometheus is ready", || get(address, "/-/ready"));
        started
    }

    /// What a query answers now: its series.
    pub(crate) fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = get(self.address, &format!("/api/v1/query?query={encoded}"));
        let answer = answer.unwrap_or_else(|| panic!("Prometheus refuses {query}"));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
