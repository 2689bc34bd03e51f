//! Lists that are watched (`--watch`, `hearth vms watch`, `hearth pools watch`): what is there, and then what
//! becomes of it, until interrupted.
//!
//! On a terminal a list is a table that is written over; elsewhere each event is a line. VMs and pools are told
//! of by the server as things happen; other lists are asked for again and compared. What breaks is gone on with
//! where it stood; where the server cannot, it begins afresh, and says so.

mod board;
mod polled;
mod stream;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Serialize;
use tonic::Status;

use super::error::{Error, Result, is_away};
use super::output::{Format, Show, can_redraw, note, write_out};
use super::text::printable;

pub(crate) use polled::list;
pub(crate) use stream::{events, follow};

/// How long to wait before a server that is away is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a watch tells of.
enum Step<T> {
    /// One came, changed or went: `ADDED`, `CHANGED`, `DELETED`.
    Event(String, T),
    /// Everything that there was has been told.
    Synced,
    /// What was told may no longer be so: everything is told again.
    Afresh,
    /// The server does not answer, and is asked again.
    Away(String),
}

/// One event, as programs have it.
#[derive(Serialize)]
struct Event<'a, T> {
    r#type: &'a str,
    #[serde(flatten)]
    of: BTreeMap<&'a str, &'a T>,
}

/// Prints an event of a `kind` of resources as one line.
fn print_event<T: Show>(format: Format, what: &str, kind: &str, item: &T) -> Result<()> {
    let text = match format {
        Format::Json => {
            serde_json::to_string(&Event { r#type: what, of: BTreeMap::from([(kind, item)]) })
                .map_err(|error| Error::Failed(format!("an event cannot be shown: {error}")))?
        }
        Format::Table | Format::Wide => format!("{what:<8} {}", printable(&item.line())),
        Format::Name => item.name().to_owned(),
    };
    write_out(format!("{text}\n").as_bytes())
}

/// Whether a watch is a table that is written over.
fn is_board(format: Format) -> bool {
    matches!(format, Format::Table | Format::Wide) && can_redraw(&io::stdout())
}

/// Prints what a watch tells of, a line for each event.
fn print_step<T: Show>(format: Format, kind: &str, step: Step<T>) -> Result<()> {
    match step {
        Step::Event(what, item) => print_event(format, &what, kind, &item)?,
        Step::Synced => {}
        Step::Afresh => note("what happened meanwhile is not known: it begins afresh"),
        Step::Away(why) => note(&why),
    }
    Ok(())
}

/// What is said while the server of a watch that ended so is away; its error where asking again is no use.
fn away(ended: Status) -> Result<String> {
    match is_away(&ended) {
        true => Ok(format!("the server does not answer, and is asked again: {}", ended.message())),
        false => Err(ended.into()),
    }
}
