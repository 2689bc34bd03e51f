//! What is attacked: a server in plaintext and one over TLS, each a process of its own; and what has to
//! hold of them meanwhile.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hearth_server::auth::token::TokenHash;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use tempfile::TempDir;

use crate::Answer;
use crate::attacks::Attack;
use crate::honest::Honest;
use crate::pki::{Authority, Signer};

/// By how much an attack may move the server's memory.
const MAX_GROWTH_BYTES: u64 = 256 << 20;
/// How many times its p99 an honest client may wait, in a long run.
const MAX_SLOWDOWN: u32 = 5;
/// Acquires before an attack, for comparison.
const BEFORE: usize = 200;
/// Acquires that there must be during one.
const DURING: usize = 50;
/// How long a long run goes on with one attack.
const LONG: Duration = Duration::from_secs(30);

/// The token of the honest client, and that of a tenant which attacks.
pub(crate) const ALICE: &str = "hearth_alice";
pub(crate) const MALLORY: &str = "hearth_mallory";

/// A server.
pub(crate) struct Target {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// Both servers, and what is known of them.
pub(crate) struct Site {
    pub(crate) plain: Target,
    pub(crate) encrypted: Target,
    pub(crate) authority: Authority,
    pub(crate) signer: Signer,
    _dir: TempDir,
}

impl Site {
    pub(crate) fn open() -> Answer<Self> {
        // As many connections as the machine lets us have; servers inherit that.
        let most = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
        let (dir, authority, signer) = (tempfile::tempdir()?, Authority::new()?, Signer::new()?);
        let write = |name: &str, bytes: &[u8]| -> Answer<PathBuf> {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes)?;
            Ok(path)
        };
        write("keys.pem", signer.public.as_bytes())?;
        let mut auth = "[jwt]\nkeys = \"keys.pem\"\naudience = [\"hearth\"]\n\
                        algorithms = [\"ES256\"]\nleeway = \"0s\"\n"
            .to_owned();
        for (name, token) in [("alice", ALICE), ("mallory", MALLORY)] {
            let hash = TokenHash::of(token.as_bytes());
            auth += &format!(
                "[tenants.{name}]\npools = [\"default\"]\n[identities.{name}]\ntenant = \"{name}\"\n\
                 roles = [\"tenant\"]\ntokens = [\"{hash}\"]\nsubjects = [\"{name}\"]\n\
                 certificates = [\"spiffe://test/{name}\"]\n"
            );
        }
        // Who attacks with a token of its own is held to what its tenant may.
        let rate =
            "[limits.tenants.named.mallory]\nrequest_rate = { per_second = 200, burst = 500 }\n";
        write("auth.toml", auth.as_bytes())?;
        write("clients.pem", &authority.pem())?;
        let (certificate, key) = authority.of_server()?;
        write("server.pem", &certificate)?;
        write("server.key", &key)?;
        let common = "[auth]\nfile = \"auth.toml\"\n[grpc]\nhandshake_timeout = \"2s\"\n\
                      request_timeout = \"3s\"\nmax_idle = \"20s\"\n";
        let common = format!("{common}{rate}");
        let plain = write("plain.toml", common.as_bytes())?;
        let tls = "[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n\
                   client_ca = \"clients.pem\"\n";
        let tls = write("tls.toml", format!("{common}{tls}").as_bytes())?;
        let plain = Target::start(&dir, "plain", &plain)?;
        let encrypted = Target::start(&dir, "tls", &tls)?;
        Ok(Self { plain, encrypted, authority, signer, _dir: dir })
    }
}

impl Target {
    fn start(dir: &TempDir, name: &str, config: &std::path::Path) -> Answer<Self> {
        let log = std::fs::File::create(dir.path().join(format!("{name}.log")))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HEARTH_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(["serve", "--provider", "memory", "--listen", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0", "--config"])
            .arg(config)
            .arg("--state")
            .arg(dir.path().join(name))
            .arg("--runtime")
            .arg(dir.path().join(format!("{name}.run")))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let said = BufReader::new(out).lines().map_while(Result::ok);
        let address = said.into_iter().find_map(|line| {
            line.strip_prefix("listening on grpc://").and_then(|it| it.parse().ok())
        });
        let Some(address) = address else {
            let _ = child.kill();
            let log = std::fs::read_to_string(dir.path().join(format!("{name}.log")));
            return Err(format!("the server does not listen: {}", log.unwrap_or_default()).into());
        };
        Ok(Self { child, address })
    }

    fn status(&self, field: &str) -> Answer<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| format!("no {field}").into())
    }

    /// Resident memory now; the peak begins anew from here.
    fn mark(&self) -> Answer<u64> {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?;
        self.status("VmRSS")
    }

    /// The most resident memory since [`Self::mark`].
    fn peak(&self) -> Answer<u64> {
        self.status("VmHWM")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came of an attack.
pub(crate) struct Row {
    name: &'static str,
    happened: String,
    growth: u64,
    p99: (Duration, Duration),
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, happened, growth, p99: (before, during) } = self;
        let mib = growth >> 20;
        write!(f, "| {name} | {happened} | {mib} MiB | {before:.1?}, {during:.1?} |")
    }
}

/// Attacks while an honest client works, and says whether all that has to hold held.
pub(crate) fn withstand(site: &Site, attack: &Attack, is_long: bool) -> (Row, Answer<()>) {
    let (name, happened) = (attack.name, String::new());
    let mut row = Row { name, happened, growth: 0, p99: (Duration::ZERO, Duration::ZERO) };
    let outcome = fight(site, attack, is_long, &mut row);
    if let Err(error) = &outcome {
        row.happened = format!("**{error}** {}", row.happened);
    }
    (row, outcome)
}

/// Runs it on threads that get a processor when nobody else wants it: an attacker has machines of its own, and
/// what is asked is what it costs the server.
fn from_afar(site: &Site, attack: &Attack) -> Answer<String> {
    let run = || {
        // Of this thread, and of those that it begins.
        let lowered = setpriority_process(None, 19).map_err(|error| error.to_string());
        lowered.and_then(|_| (attack.run)(site).map_err(|error| error.to_string()))
    };
    let ran = std::thread::scope(|scope| scope.spawn(run).join());
    Ok(ran.map_err(|_| "the attack has panicked")??)
}

fn fight(site: &Site, attack: &Attack, is_long: bool, row: &mut Row) -> Answer<()> {
    let target = if attack.over_tls { &site.encrypted } else { &site.plain };
    let honest = Honest::connect(target, attack.over_tls.then(|| site.authority.pem()))?;
    row.p99.0 = honest.work(BEFORE)?;
    let idle = target.mark()?;
    let working = honest.begin();
    let begun = tokio::time::Instant::now();
    let attacked = loop {
        match from_afar(site, attack) {
            Ok(_) if is_long && begun.elapsed() < LONG => {}
            ended => break ended,
        }
    };
    let (count, during) = working.end(DURING)?;
    row.p99.1 = during;
    // Who comes now is let in, too.
    Honest::connect(target, attack.over_tls.then(|| site.authority.pem()))?.work(1)?;
    row.growth = target.peak()?.saturating_sub(idle);
    row.happened = format!("{}; {count} honest acquires", attacked?);
    if row.growth >= MAX_GROWTH_BYTES {
        return Err(format!("{} MiB more than when idle", row.growth >> 20).into());
    }
    if is_long && during > row.p99.0 * MAX_SLOWDOWN {
        return Err(format!("p99 went from {:?} to {during:?}", row.p99.0).into());
    }
    Ok(())
}
