//! An honest client: it acquires and releases VMs, one after the other, and each has to be had.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hearth_proto::{ClientOptions, Credentials, HearthClient, v1};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::Answer;
use crate::target::{ALICE, Target};

/// How long an acquire may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connected client with threads of its own.
pub(crate) struct Honest {
    runtime: Arc<Runtime>,
    client: HearthClient,
}

/// A client at work.
pub(crate) struct Working {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>, String>>,
    done: Arc<AtomicUsize>,
}

impl Honest {
    /// Connects, and waits until the server gives VMs.
    pub(crate) fn connect(target: &Target, ca: Option<Vec<u8>>) -> Answer<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let scheme = if ca.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", target.address);
        let credentials =
            Credentials { token: Some(ALICE.to_owned().into()), ca, ..Credentials::default() };
        let options = ClientOptions { connect_timeout: PATIENCE, ..ClientOptions::default() };
        let connect = HearthClient::connect_as(&address, options, &credentials);
        let client = runtime.block_on(connect)?;
        let honest = Self { runtime: Arc::new(runtime), client };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match honest.runtime.block_on(cycle(&honest.client)) {
                Ok(_) => return Ok(honest),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                // It may be starting.
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Acquires `count` times, and answers the p99.
    pub(crate) fn work(&self, count: usize) -> Answer<Duration> {
        let mut took = Vec::new();
        for _ in 0..count {
            took.push(self.runtime.block_on(cycle(&self.client))?);
        }
        Ok(p99(&mut took))
    }

    /// Acquires until it is told to end.
    pub(crate) fn begin(&self) -> Working {
        let (is_over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (runtime, client) = (Arc::clone(&self.runtime), self.client.clone());
        let (over, counted) = (Arc::clone(&is_over), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            while !over.load(Ordering::Relaxed) {
                took.push(runtime.block_on(cycle(&client))?);
                counted.store(took.len(), Ordering::Relaxed);
            }
            Ok(took)
        });
        Working { is_over, thread, done }
    }
}

impl Working {
    /// Ends it when it has had `least` VMs; answers how many it had, and the p99.
    pub(crate) fn end(self, least: usize) -> Answer<(usize, Duration)> {
        while self.done.load(Ordering::Relaxed) < least && !self.thread.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.is_over.store(true, Ordering::Relaxed);
        let took = self.thread.join().map_err(|_| "the honest client has panicked")?;
        let mut took = took.map_err(|error| format!("the honest client: {error}"))?;
        Ok((took.len(), p99(&mut took)))
    }
}

/// One VM had and given back; answers how long it took to have it.
async fn cycle(client: &HearthClient) -> Result<Duration, String> {
    let request = v1::AcquireVmRequest { pool: "pools/default".to_owned(), ..Default::default() };
    let begun = Instant::now();
    let acquired = client.acquire(request, PATIENCE).await.map_err(|error| error.to_string())?;
    let took = begun.elapsed();
    let vm = acquired.vm.ok_or("no VM")?;
    client.release(&vm).await.map_err(|error| error.to_string())?;
    Ok(took)
}

fn p99(took: &mut [Duration]) -> Duration {
    took.sort();
    let place = (took.len() * 99).div_ceil(100).max(1) - 1;
    took.get(place).copied().unwrap_or_default()
}
