//! What Prometheus does to a hearth: it reads all metrics, each second.

use std::error::Error;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::operator::{admin, page};
use crate::rig::Served;

const PERIOD: Duration = Duration::from_secs(1);

/// One that runs; dropped, it has ended.
pub(super) struct Scraper {
    stop: Option<Sender<()>>,
    running: Option<JoinHandle<u64>>,
}

impl Scraper {
    /// # Errors
    /// When `served` has no metrics.
    pub(super) fn start(served: &Served) -> Result<Self, Box<dyn Error>> {
        let address = admin(served)?.to_owned();
        let (stop, stopped) = channel();
        let scrape = move || {
            let mut scrapes = 0;
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let is_read = page(&address, "/metrics").is_ok_and(|it| it.contains("hearth_"));
                scrapes += u64::from(is_read);
            }
            scrapes
        };
        Ok(Self { stop: Some(stop), running: Some(std::thread::spawn(scrape)) })
    }

    /// Ends it; answers how many scrapes there were.
    pub(super) fn end(&mut self) -> u64 {
        drop(self.stop.take());
        self.running.take().and_then(|it| it.join().ok()).unwrap_or_default()
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.end();
    }
}
