//! Where commands go and who calls: by flag, by environment, by a file, in this order; and where each was found.
//!
//! What the file says of certificates and tokens is for the address that it says, and is sent to no other: who
//! gives another address has to give what goes with it.

mod file;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use hearth_proto::Credentials;
use hearth_server::own_file::{SECRET, must_be_own};
use serde::Serialize;
use zeroize::Zeroizing;

use super::error::{Error, Result};
use super::output::{Format, Show, print_list};

use file::File;

/// Where a server listens by default.
const USUAL_ADDRESS: &str = "http://127.0.0.1:7070";
const HEADING: &str = "Connection options";

/// Flags that say where the server is and who calls.
#[derive(Args, Debug, Default)]
pub(crate) struct Flags {
    /// Where the server is: host:port, http://host:port, https://host:port or unix:/path [env: HEARTH_ADDRESS]
    /// [default: http://127.0.0.1:7070].
    #[arg(long, global = true, value_name = "ADDRESS", help_heading = HEADING)]
    address: Option<String>,
    /// Authorities that the server's certificate must come from, in PEM [env: HEARTH_CA].
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    ca: Option<PathBuf>,
    /// A certificate that says who calls, in PEM [env: HEARTH_CERTIFICATE].
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    certificate: Option<PathBuf>,
    /// The certificate's private key, in PEM [env: HEARTH_KEY].
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    key: Option<PathBuf>,
    /// The name that the server's certificate must have [env: HEARTH_SERVER_NAME] [default: the host of the
    /// address].
    #[arg(long, global = true, value_name = "NAME", help_heading = HEADING)]
    server_name: Option<String>,
    /// A file with the token that says who calls [env: HEARTH_TOKEN_FILE; HEARTH_TOKEN may have the token itself].
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    token_file: Option<PathBuf>,
    /// The file that says all this when no flag and no variable does [env: HEARTH_CLIENT_CONFIG] [default:
    /// ~/.config/hearth/client.toml, if it is there].
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    client_config: Option<PathBuf>,
    /// One of the file's servers, by its name there [env: HEARTH_CONTEXT].
    #[arg(long, global = true, value_name = "NAME", help_heading = HEADING)]
    context: Option<String>,
}

/// Where a setting was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting, and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found<T> {
    value: T,
    origin: Origin,
}

/// Where commands go and who calls.
#[derive(Debug)]
pub(crate) struct Settings {
    address: Found<String>,
    context: Option<Found<String>>,
    ca: Option<Found<PathBuf>>,
    certificate: Option<Found<PathBuf>>,
    key: Option<Found<PathBuf>>,
    server_name: Option<Found<String>>,
    token: Option<Found<Token>>,
}

/// A token, or the file that it is in.
enum Token {
    File(PathBuf),
    Itself(Zeroizing<String>),
}

/// The token is in no output.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Itself(_) => f.write_str("Itself(..)"),
        }
    }
}

/// One of the settings, as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    setting: &'static str,
    value: String,
    from: String,
}

impl Show for Shown {
    const HEADINGS: &'static [&'static str] = &["SETTING", "VALUE", "FROM"];

    fn name(&self) -> &str {
        self.setting
    }

    fn row(&self, _: std::time::SystemTime) -> Vec<String> {
        vec![self.setting.to_owned(), self.value.clone(), self.from.clone()]
    }
}

impl Settings {
    /// Finds each: the flag, the variable, the file, the default.
    ///
    /// # Errors
    /// [`Error::Usage`] for a file that cannot be read, that others may change, or that says what it cannot.
    pub(crate) fn find(flags: Flags) -> Result<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let given = flags.client_config.clone();
        let named = given.or_else(|| variable("HEARTH_CLIENT_CONFIG").map(PathBuf::from));
        let file = match named {
            Some(path) => Some((File::read(&path)?, path)),
            None => match file::usual_path().filter(|path| path.exists()) {
                Some(path) => Some((File::read(&path)?, path)),
                None => None,
            },
        };
        Self::choose(flags, variable, file)
    }

    fn choose(
        flags: Flags,
        variable: impl Fn(&'static str) -> Option<String>,
        file: Option<(File, PathBuf)>,
    ) -> Result<Self> {
        let text = |flag: Option<String>, name: &'static str, variable_name: &'static str| {
            let flag = flag.map(|value| Found { value, origin: Origin::Flag(name) });
            let set = || variable(variable_name);
            flag.or_else(|| {
                set().map(|value| Found { value, origin: Origin::Variable(variable_name) })
            })
        };
        let path = |flag: Option<PathBuf>, name: &'static str, variable_name: &'static str| {
            let flag = flag.map(|value| Found { value, origin: Origin::Flag(name) });
            flag.or_else(|| {
                let value = variable(variable_name).map(PathBuf::from)?;
                Some(Found { value, origin: Origin::Variable(variable_name) })
            })
        };
        let context = text(flags.context, "--context", "HEARTH_CONTEXT");
        let (server, from, context) = match file {
            None => match context {
                None => (File::default(), PathBuf::new(), None),
                Some(Found { value, origin }) => {
                    let why = "there is no client.toml that could have it";
                    return Err(Error::Usage(format!("{origin}: {value}: {why}")));
                }
            },
            Some((mut file, from)) => {
                let own = file.context.take();
                let own = own.map(|value| Found { value, origin: Origin::File(from.clone()) });
                let context = context.or(own);
                let server = match &context {
                    None => file,
                    Some(Found { value, origin }) => {
                        let known = file.contexts.keys().cloned().collect::<Vec<_>>().join(", ");
                        file.contexts.remove(value).ok_or_else(|| {
                            let shown = from.display();
                            Error::Usage(format!("{origin}: {value}: {shown} has only [{known}]"))
                        })?
                    }
                };
                (server, from, context)
            }
        };
        let filed = |value: String| Found { value, origin: Origin::File(from.clone()) };
        let default = || Found { value: USUAL_ADDRESS.to_owned(), origin: Origin::Default };
        let address = text(flags.address, "--address", "HEARTH_ADDRESS");
        let is_filed = match (&address, &server.address) {
            (None, _) => true,
            (Some(given), Some(filed)) => given.value == *filed,
            (Some(given), None) => given.value == USUAL_ADDRESS,
        };
        let address = address.or_else(|| server.address.clone().map(filed)).unwrap_or_else(default);
        // See the module.
        let server = if is_filed { server } else { File::default() };
        let beside = |path: PathBuf| Found {
            value: from.parent().unwrap_or(Path::new("")).join(path),
            origin: Origin::File(from.clone()),
        };
        let certificate = path(flags.certificate, "--certificate", "HEARTH_CERTIFICATE");
        let key = path(flags.key, "--key", "HEARTH_KEY");
        // They go together.
        let (certificate, key) = match (certificate, key) {
            (None, None) => (server.certificate.map(beside), server.key.map(beside)),
            given => given,
        };
        if certificate.is_some() != key.is_some() {
            return Err(Error::Usage("--certificate and --key go together".to_owned()));
        }
        let token_file = path(flags.token_file, "--token-file", "HEARTH_TOKEN_FILE");
        let token = token_file.map(|it| Found { value: Token::File(it.value), origin: it.origin });
        let token = token
            .or_else(|| {
                let value = Token::Itself(Zeroizing::new(variable("HEARTH_TOKEN")?));
                Some(Found { value, origin: Origin::Variable("HEARTH_TOKEN") })
            })
            .or_else(|| {
                let Found { value, origin } = beside(server.token_file?);
                Some(Found { value: Token::File(value), origin })
            });
        Ok(Self {
            address,
            context,
            ca: path(flags.ca, "--ca", "HEARTH_CA").or_else(|| server.ca.map(beside)),
            certificate,
            key,
            server_name: text(flags.server_name, "--server-name", "HEARTH_SERVER_NAME")
                .or_else(|| server.server_name.map(filed)),
            token,
        })
    }

    /// Where the server is, as it was given.
    pub(crate) fn address(&self) -> &str {
        &self.address.value
    }

    /// Where the server is and what says so.
    pub(crate) fn where_to(&self) -> String {
        format!("{} ({})", self.address.value, self.address.origin)
    }

    /// What says who calls; `None` when nothing does.
    pub(crate) fn who(&self) -> Option<String> {
        let token = self.token.as_ref().map(|it| match &it.value {
            Token::File(path) => format!("the token in {} ({})", path.display(), it.origin),
            Token::Itself(_) => format!("the token in {}", it.origin),
        });
        let certificate = self.certificate.as_ref();
        token.or_else(|| {
            certificate.map(|it| format!("the certificate {} ({})", it.value.display(), it.origin))
        })
    }

    /// Reads what says who calls.
    ///
    /// # Errors
    /// [`Error::Usage`] for a file that cannot be read, and for one with a secret that is named by the client's
    /// file and that others may read.
    pub(crate) fn credentials(&self) -> Result<Credentials> {
        let read = |what: &str, file: &Found<PathBuf>| {
            let Found { value: path, origin } = file;
            let text = std::fs::read(path).map(Zeroizing::new);
            text.map_err(|error| {
                Error::Usage(format!("{what} {} ({origin}): {error}", path.display()))
            })
        };
        let secret = |what: &str, file: &Found<PathBuf>| {
            if matches!(file.origin, Origin::File(_)) {
                must_be_own(&file.value, SECRET).map_err(Error::Usage)?;
            }
            read(what, file)
        };
        let ca = self.ca.as_ref().map(|ca| read("ca", ca)).transpose()?;
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                Some((read("certificate", certificate)?.to_vec(), secret("key", key)?))
            }
            _ => None,
        };
        let token = match self.token.as_ref().map(|it| (&it.value, &it.origin)) {
            Some((Token::File(path), origin)) => {
                let file = Found { value: path.clone(), origin: origin.clone() };
                let text = secret("token_file", &file)?;
                let wrong = |_| Error::Usage(format!("{}: it is no text", path.display()));
                Some(Zeroizing::new(std::str::from_utf8(&text).map_err(wrong)?.trim().to_owned()))
            }
            Some((Token::Itself(token), _)) => Some(Zeroizing::new(token.trim().to_owned())),
            None => None,
        };
        Ok(Credentials {
            token: token.filter(|token| !token.is_empty()),
            ca: ca.map(|text| text.to_vec()),
            identity,
            server_name: self.server_name.as_ref().map(|it| it.value.clone()),
        })
    }

    /// Prints where commands go and who calls, and where that was found: `hearth config`.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub(crate) fn print(&self, format: Format) -> Result<()> {
        let path = |setting, file: &Option<Found<PathBuf>>| {
            let file = file.as_ref()?;
            Some(Shown {
                setting,
                value: file.value.display().to_string(),
                from: file.origin.to_string(),
            })
        };
        let text = |setting, text: Option<&Found<String>>| {
            let text = text?;
            Some(Shown { setting, value: text.value.clone(), from: text.origin.to_string() })
        };
        let token = self.token.as_ref().map(|it| {
            let (setting, value) = match &it.value {
                Token::File(path) => ("token_file", path.display().to_string()),
                Token::Itself(_) => ("token", "(not shown)".to_owned()),
            };
            Shown { setting, value, from: it.origin.to_string() }
        });
        let all = [
            text("context", self.context.as_ref()),
            text("address", Some(&self.address)),
            path("ca", &self.ca),
            path("certificate", &self.certificate),
            path("key", &self.key),
            text("server_name", self.server_name.as_ref()),
            token,
        ];
        let all: Vec<_> = all.into_iter().flatten().collect();
        print_list(format, "settings", &all)
    }
}

#[cfg(test)]
mod tests;
