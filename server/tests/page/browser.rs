//! A headless Chromium of a test's own, driven by chromedriver: WebDriver is JSON over HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// How often it is looked whether something has come about, with a tenth of a second in between.
const PATIENCE: u32 = 300;
/// What an element is called in WebDriver's answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What Chromium runs with: nothing of it leaves the machine.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
];

/// One browser; dropped, it is gone.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _home: TempDir,
}

impl Browser {
    /// What is missing for one.
    pub(crate) fn missing() -> Option<String> {
        ["chromium", "chromedriver"].into_iter().find_map(|program| {
            let ran = Command::new(program).arg("--version").output();
            let is_there = ran.is_ok_and(|ended| ended.status.success());
            (!is_there).then(|| format!("there is no {program}"))
        })
    }

    /// Starts one, and has it load `http://{address}/`.
    pub(crate) fn open(address: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .envs(
                ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR"].map(|it| (it, home.path())),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
        });
        let port = port.expect("chromedriver does not say its port");
        let mut flags = FLAGS.map(str::to_owned).to_vec();
        flags.push(format!("--user-data-dir={}", home.path().join("profile").display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let mut browser = Self { driver, port, session: String::new(), _home: home };
        let begun = browser.send("POST", "/session", &wanted);
        browser.session = begun["sessionId"].as_str().unwrap().to_owned();
        browser.call("url", &json!({"url": format!("http://{address}/")}));
        browser
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        for line in answer.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty())
        {
            if let Some(bytes) = line.to_lowercase().strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            }
        }
        let mut text = vec![0; length];
        answer.read_exact(&mut text).unwrap();
        let answer: Value = serde_json::from_slice(&text).unwrap();
        let value = answer["value"].clone();
        assert!(value["error"].is_null(), "{method} {path} {body}: {value}");
        value
    }

    fn call(&self, verb: &str, body: &Value) -> Value {
        self.send("POST", &format!("/session/{}/{verb}", self.session), body)
    }

    /// What a script in the page answers.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.call("execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression holds in the page.
    pub(crate) fn until(&self, holds: &str) {
        let script = format!("return Boolean({holds})");
        for _ in 0..PATIENCE {
            if self.run(&script) == true {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("it never came about that {holds}: {}", self.run("return document.body.innerText"));
    }

    /// Presses keys, one after the other, as a person does: whatever has the focus gets them.
    pub(crate) fn press(&self, keys: &str) {
        let actions: Vec<_> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key})))
            .collect();
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.call("actions", &json!({"actions": [keyboard]}));
    }

    /// Clicks what a CSS selector finds first.
    pub(crate) fn click(&self, selector: &str) {
        let found = self.call("element", &json!({"using": "css selector", "value": selector}));
        let element = found[ELEMENT].as_str().unwrap();
        self.call(&format!("element/{element}/click"), &json!({}));
    }

    /// Has the page be seen dark or light, and so many pixels wide.
    pub(crate) fn appear(&self, scheme: &str, width: u32) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let emulate = |cmd: &str, params: Value| {
            self.call("goog/cdp/execute", &json!({"cmd": cmd, "params": params}));
        };
        emulate("Emulation.setEmulatedMedia", json!({"features": features}));
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        emulate("Emulation.setDeviceMetricsOverride", size);
    }

    /// A picture of it, as base64 of a PNG.
    pub(crate) fn picture(&self) -> String {
        let path = format!("/session/{}/screenshot", self.session);
        self.send("GET", &path, &Value::Null).as_str().unwrap().to_owned()
    }

    /// Errors and warnings on its console since it was last asked; advice for developers is none.
    pub(crate) fn log(&self) -> Vec<Value> {
        let log = self.call("se/log", &json!({"type": "browser"}));
        let is_wrong = |line: &&Value| line["level"] == "SEVERE" || line["level"] == "WARNING";
        log.as_array().unwrap().iter().filter(is_wrong).cloned().collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session. After a panic in a call nothing more is asked for.
        if !std::thread::panicking() {
            self.send("DELETE", &format!("/session/{}", self.session), &Value::Null);
        } else if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let head = format!(
                "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
                self.session, self.port
            );
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.read_to_end(&mut Vec::new()));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
