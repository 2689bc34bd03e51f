//! `hearth token`: a new token for a caller, and what the server is told of it. Needs no server.

use std::collections::BTreeMap;

use clap::Args;
use hearth_providers::env::SystemEnv;
use hearth_server::auth::token;

use super::error::Result;
use super::output::{Format, facts, note, print_json, write_out};

/// Arguments of `hearth token`.
#[derive(Args, Debug)]
pub(crate) struct Token {}

impl Token {
    /// Makes one, and shows it this once.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub(crate) fn run(&self, format: Format) -> Result<()> {
        let (token, hash) = token::generate(&SystemEnv);
        let hash = hash.to_string();
        match format {
            Format::Json => print_json(&BTreeMap::from([("token", token), ("hash", hash)])),
            Format::Name => write_out(format!("{token}\n").as_bytes()),
            Format::Table | Format::Wide => {
                write_out(facts(&[("token", token), ("hash", hash)]).as_bytes())?;
                note(
                    "The token is the caller's, as HEARTH_TOKEN or in a file for --token-file; it is \
                     not shown again.\nThe hash is the server's, in `tokens` of an identity of its \
                     auth.file.",
                );
                Ok(())
            }
        }
    }
}
