//! `hearth artifacts export`.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use hearth_proto::v1;
use tonic::Code;

use super::super::context::Context;
use super::super::error::{Error, Result};
use super::super::output::{Format, print_json};

/// How often a stream that broke off is taken up again without having brought anything.
const MAX_TRIES: u32 = 3;

/// Writes the data of the artifact `name` to `file`.
pub(super) async fn run(context: &mut Context, name: &str, file: Option<PathBuf>) -> Result<()> {
    let id = name.rsplit('/').next().unwrap_or(name);
    let output = file.unwrap_or_else(|| format!("{id}.tar").into());
    let failed = |error: io::Error| Error::Failed(format!("{}: {error}", output.display()));
    if output == Path::new("-") {
        let mut stdout = io::stdout();
        if stdout.is_terminal() {
            let why = "--file -: that is a terminal, and the data is not text";
            return Err(Error::Usage(why.to_owned()));
        }
        receive(context, name, &mut stdout, &failed).await?;
        return stdout.flush().map_err(failed);
    }
    if output.exists() {
        return Err(Error::Usage(format!("{}: it is there already", output.display())));
    }
    // Under its own name it is whole.
    let mut partial_name = output.clone().into_os_string();
    partial_name.push(".partial");
    let partial = PathBuf::from(partial_name);
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).open(&partial).map_err(failed)?;
    let received = receive(context, name, &mut file, &failed).await;
    let kept =
        received.and_then(|bytes| keep(&file, &partial, &output).map(|()| bytes).map_err(failed));
    let bytes = kept.inspect_err(|_| drop(std::fs::remove_file(&partial)))?;
    match context.format {
        Format::Json => print_json(&serde_json::json!({
            "name": name, "file": output.display().to_string(), "size_bytes": bytes,
        })),
        Format::Name => super::write_out(format!("{}\n", output.display()).as_bytes()),
        Format::Table | Format::Wide => {
            let text = format!("exported {name} to {}, {bytes} bytes\n", output.display());
            super::write_out(text.as_bytes())
        }
    }
}

fn keep(file: &File, partial: &Path, output: &Path) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(partial, output)
}

/// Receives everything, taking a stream up again where it broke off, and answers how much it was.
async fn receive(
    context: &mut Context,
    name: &str,
    into: &mut impl Write,
    failed: &impl Fn(io::Error) -> Error,
) -> Result<i64> {
    let (mut offset, mut tries) = (0, 0);
    loop {
        let before = offset;
        match receive_from(context, name, &mut offset, into, failed).await {
            Err(Received::Broke(status))
                if status.code() == Code::Unavailable && tries < MAX_TRIES =>
            {
                tries = if offset > before { 0 } else { tries + 1 };
            }
            Err(Received::Broke(status)) => return Err(status.into()),
            Err(Received::Failed(error)) => return Err(error),
            Ok(()) => return Ok(offset),
        }
    }
}

/// How a stream ended early.
enum Received {
    Broke(tonic::Status),
    Failed(Error),
}

async fn receive_from(
    context: &mut Context,
    name: &str,
    offset: &mut i64,
    into: &mut impl Write,
    failed: &impl Fn(io::Error) -> Error,
) -> std::result::Result<(), Received> {
    let request = v1::ExportArtifactRequest { name: name.to_owned(), offset: *offset };
    let begun = context.client.artifacts.export_artifact(request).await;
    let mut stream = begun.map_err(Received::Broke)?.into_inner();
    while let Some(piece) = stream.message().await.map_err(Received::Broke)? {
        if piece.offset != *offset {
            let why = format!("the server sent byte {} in place of {offset}", piece.offset);
            return Err(Received::Failed(Error::Failed(why)));
        }
        into.write_all(&piece.data).map_err(|error| Received::Failed(failed(error)))?;
        *offset += i64::try_from(piece.data.len()).unwrap_or(i64::MAX);
    }
    Ok(())
}
