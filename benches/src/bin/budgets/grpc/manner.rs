//! What a hearth that is measured does beyond a plain one, and how it is called.

use std::error::Error;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use hearth_benches::budget::Figure;
use hearth_proto::Credentials;
use rcgen::SanType;
use tempfile::TempDir;

use super::DEPTH;
use super::authority::{Authority, Issued};
use super::collector::Collector;
use super::scraper::Scraper;
use crate::operator::metric;
use crate::rig::{Home, Served, floor, program};

/// What the hearth does more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    /// Callers are told apart by tokens: a tenant's, with quota and rates, and an audit.
    Tokens,
    /// The same by certificates, over TLS.
    Mtls,
    /// All spans go to a collector, metrics are scraped each second, and the log has everything down to debug.
    Traces,
}

/// It, prepared: what has to be there before a hearth is started.
pub(super) struct Manner {
    with: Option<With>,
    /// Has the files that the settings and arguments name.
    dir: TempDir,
    settings: String,
    caller: Credentials,
    floor_arguments: Vec<String>,
    collector: Option<Collector>,
}

/// A hearth, with what goes on beside it.
pub(super) struct Running {
    // Ends before the hearth does, and that before its directories are removed.
    scraper: Option<Scraper>,
    pub(super) served: Served,
    home: Home,
}

const CLIENT: &str = "spiffe://hearth.example/bench";

impl Manner {
    /// # Errors
    /// When files cannot be written, or there is no `hearth` that makes a token.
    pub(super) fn prepare(with: Option<With>) -> Result<Self, Box<dyn Error>> {
        let (dir, caller) = (tempfile::tempdir()?, Credentials::default());
        let (settings, floor_arguments) = (String::new(), Vec::new());
        let plain = Self { with, dir, settings, caller, floor_arguments, collector: None };
        match with {
            None => Ok(plain),
            Some(With::Tokens) => plain.with_tokens(),
            Some(With::Mtls) => plain.with_certificates(),
            Some(With::Traces) => {
                let collector = Collector::start()?;
                let endpoint =
                    format!("[telemetry]\nendpoint = \"http://{}\"\n", collector.address);
                Ok(Self { settings: endpoint, collector: Some(collector), ..plain })
            }
        }
    }

    fn with_tokens(mut self) -> Result<Self, Box<dyn Error>> {
        let made = Command::new(program("hearth")?).args(["token", "--output", "json"]).output()?;
        let made: serde_json::Value = serde_json::from_slice(&made.stdout)?;
        let said = |key: &str| made[key].as_str().map(str::to_owned).ok_or("hearth made no token");
        self.caller.token = Some(said("token")?.into());
        self.settings = self.guarded(&format!("tokens = [\"{}\"]", said("hash")?))?;
        Ok(self)
    }

    fn with_certificates(mut self) -> Result<Self, Box<dyn Error>> {
        let authority = Authority::new()?;
        let server = SanType::IpAddress([127, 0, 0, 1].into());
        let Issued { certificate, key } = authority.issue(server)?;
        let certificate = self.file("server.pem", &certificate)?;
        let (key, ca) = (self.file("server.key", &key)?, self.file("ca.pem", &authority.pem())?);
        self.settings = format!(
            "{}[tls]\ncertificate = {certificate:?}\nkey = {key:?}\nclient_ca = {ca:?}\n\
             require_client_certificate = true\n",
            self.guarded(&format!("certificates = [\"{CLIENT}\"]"))?
        );
        let files = [("certificate", certificate), ("key", key), ("client-ca", ca)];
        self.floor_arguments =
            files.into_iter().map(|(flag, path)| format!("--{flag}={}", path.display())).collect();
        let Issued { certificate, key } = authority.issue(SanType::URI(CLIENT.try_into()?))?;
        self.caller.identity = Some((certificate.into_bytes(), key.into_bytes().into()));
        self.caller.ca = Some(authority.pem().into_bytes());
        Ok(self)
    }

    /// Settings of a server whose only caller is a tenant that is known by this, with bounds on everything that a
    /// tenant may have. They are looked at with each call, and never in the way.
    fn guarded(&self, known_by: &str) -> Result<String, Box<dyn Error>> {
        let identities = format!(
            "[identities.bench]\ntenant = \"bench\"\nroles = [\"tenant\"]\n{known_by}\n\
             [tenants.bench]\npools = [\"default\"]\n"
        );
        let file = self.file("identities.toml", &identities)?;
        let most = 10 * DEPTH;
        Ok(format!(
            "[auth]\nfile = {file:?}\n[limits.tenants.named.bench]\nmax_vms = {most}\n\
             acquire_rate = {{ per_second = 1e6, burst = 1000000 }}\n\
             request_rate = {{ per_second = 1e6, burst = 1000000 }}\n"
        ))
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf, Box<dyn Error>> {
        let path = self.dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Whether it is more than a plain hearth.
    pub(super) fn is_more(&self) -> bool {
        self.with.is_some()
    }

    /// What follows the names of budgets.
    pub(super) fn suffix(&self) -> &'static str {
        match self.with {
            None => "",
            Some(With::Tokens) => ", with tokens",
            Some(With::Mtls) => ", with mTLS",
            Some(With::Traces) => ", with traces",
        }
    }

    /// Who calls the hearth.
    pub(super) fn caller(&self) -> &Credentials {
        &self.caller
    }

    /// Who calls the floor: over the same transport, and with no token, which a floor looks at for nobody.
    pub(super) fn caller_of_floor(&self) -> Credentials {
        Credentials { token: None, ..self.caller.clone() }
    }

    /// Starts the floor of the same transport.
    ///
    /// # Errors
    /// As [`floor`].
    pub(super) fn floor(&self) -> Result<Served, Box<dyn Error>> {
        floor(&self.floor_arguments)
    }

    /// Starts a hearth with these settings and its own.
    ///
    /// # Errors
    /// As [`Home::serve`].
    pub(super) fn serve(&self, settings: &str) -> Result<Running, Box<dyn Error>> {
        let home = Home::new()?;
        let mut command = home.command(&format!("{settings}{}", self.settings))?;
        let is_watched = self.with == Some(With::Traces);
        if is_watched {
            command.env("RUST_LOG", "debug").stderr(File::create(home.beside("log"))?);
        }
        let served = Served::start(command, 1)?;
        let scraper = is_watched.then(|| Scraper::start(&served)).transpose()?;
        Ok(Running { scraper, served, home })
    }

    /// What went on beside the calls of `running`, which ends here; nothing beside a hearth that is not watched.
    ///
    /// # Errors
    /// When it should have been watched and was not.
    pub(super) fn end(&self, mut running: Running) -> Result<Option<Figure>, Box<dyn Error>> {
        let (Some(collector), Some(scraper)) = (&self.collector, &mut running.scraper) else {
            return Ok(None);
        };
        let dropped = |reason| {
            metric(&running.served, &format!("hearth_spans_dropped_total{{reason=\"{reason}\"}}"))
        };
        let (spans, scrapes) = (collector.spans(), scraper.end());
        let dropped = dropped("queue_full")? + dropped("export_failed")?;
        let log = fs::metadata(running.home.beside("log"))?.len();
        if spans == 0 || scrapes == 0 || log == 0 {
            return Err(format!("{spans} spans, {scrapes} scrapes, {log} bytes of log").into());
        }
        let value = format!(
            "{spans} spans taken, and {dropped} dropped since the cycles; {scrapes} scrapes and {} MiB of log since then",
            log >> 20
        );
        Ok(Some(Figure::new(format!("what was watched{}", self.suffix()), value)))
    }
}

impl Running {
    /// A plain hearth with these settings.
    ///
    /// # Errors
    /// As [`Home::serve`].
    pub(super) fn plain(settings: &str) -> Result<Self, Box<dyn Error>> {
        let home = Home::new()?;
        Ok(Self { scraper: None, served: home.serve(settings)?, home })
    }
}
