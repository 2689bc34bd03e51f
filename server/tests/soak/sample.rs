//! What a hearth holds at one moment at which nothing is under way.

use std::fmt;
use std::path::Path;

use crate::hearth::{Answer, Hearth, Host};

/// By how much the resident memory may grow: the allocator's arenas, and a segment of the journal's log
/// (8 MiB) while it is left behind.
const MAX_RSS_GROWTH_BYTES: u64 = 24 << 20;
/// Connections and files that come and go.
const MAX_FDS_GROWTH: u64 = 8;
/// Threads for blocking calls are made as they are needed at once, and end when they idle.
const MAX_THREADS_GROWTH: u64 = 16;
/// The journal's log drops segments beyond 32 MiB, or beyond twice what the requests that are remembered
/// need, 70 MiB after a long run; what is kept back is 8 MiB more.
const MAX_JOURNAL_BYTES: u64 = 192 << 20;
/// Of what lies in the state directory beside the journal: instances come and go.
const MAX_FILES_GROWTH: u64 = 16;

#[derive(Clone, Debug)]
pub(crate) struct Sample {
    rss_bytes: u64,
    fds: u64,
    threads: u64,
    journal_bytes: u64,
    /// In the state and runtime directories, without the journal's own.
    files: u64,
    series: u64,
}

impl Sample {
    pub(crate) async fn of(host: &Host, hearth: &Hearth) -> Answer<Self> {
        let metrics = hearth.metrics().await?;
        let process = Path::new("/proc").join(hearth.pid().to_string());
        let status = std::fs::read_to_string(process.join("status"))?;
        let number = |name: &str| -> Answer<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            Ok(number.ok_or_else(|| format!("no {name}"))?)
        };
        let journal = host.state().join("journal");
        Ok(Self {
            rss_bytes: number("VmRSS:")? * 1024,
            fds: std::fs::read_dir(process.join("fd"))?.count() as u64,
            threads: number("Threads:")?,
            journal_bytes: count(&journal, None)?.1,
            files: count(&host.state(), Some(&journal))?.0 + count(&host.runtime(), None)?.0,
            series: metrics.lines().filter(|line| !line.starts_with('#')).count() as u64,
        })
    }

    /// What became of it, in a line.
    pub(crate) fn to(&self, later: &Self) -> String {
        format!(
            "RSS {} -> {} MiB, fds {} -> {}, threads {} -> {}, journal {} -> {} KiB, \
             files {} -> {}, series {} -> {}",
            self.rss_bytes >> 20,
            later.rss_bytes >> 20,
            self.fds,
            later.fds,
            self.threads,
            later.threads,
            self.journal_bytes >> 10,
            later.journal_bytes >> 10,
            self.files,
            later.files,
            self.series,
            later.series,
        )
    }

    /// # Errors
    /// What has grown.
    pub(crate) fn demand_flat(&self, later: &Self) -> Result<(), String> {
        let grown = |what: &str, from: u64, to: u64, most: u64| match to <= from + most {
            true => Ok(()),
            false => Err(format!("{what}: from {from} to {to}, more than {most}")),
        };
        grown("RSS", self.rss_bytes, later.rss_bytes, MAX_RSS_GROWTH_BYTES)?;
        grown("fds", self.fds, later.fds, MAX_FDS_GROWTH)?;
        grown("threads", self.threads, later.threads, MAX_THREADS_GROWTH)?;
        grown("the journal", 0, later.journal_bytes, MAX_JOURNAL_BYTES)?;
        grown("files", self.files, later.files, MAX_FILES_GROWTH)?;
        grown("series", self.series, later.series, 0)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss_bytes, fds, threads, journal_bytes, files, series } = self;
        let (rss, journal) = (rss_bytes >> 20, journal_bytes >> 10);
        write!(
            f,
            "RSS {rss} MiB, {fds} fds, {threads} threads, journal {journal} KiB, {files} files, \
             {series} series"
        )
    }
}

/// The files and directories below `dir`, and their bytes; those of `except` do not count. What is
/// gone when it is looked at counts for nothing.
fn count(dir: &Path, except: Option<&Path>) -> Answer<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let entry = entry?;
        if except == Some(&*entry.path()) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        files += 1;
        match metadata.is_dir() {
            true => {
                let below = count(&entry.path(), except)?;
                (files, bytes) = (files + below.0, bytes + below.1);
            }
            false => bytes += metadata.len(),
        }
    }
    Ok((files, bytes))
}
