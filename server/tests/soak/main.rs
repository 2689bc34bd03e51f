//! A leak soak of the binary itself, on the memory provider, over its own gRPC: many cycles of
//! acquire and release by several callers, among them replays, renewals, refused calls, dedicated
//! restores, callers that leave and connections that are made anew. Between its first quarter and
//! its end nothing that it holds may grow.
//!
//! `HEARTH_SOAK_CYCLES` says how many cycles; a plain test makes few.

#[path = "../processes/hearth.rs"]
#[allow(dead_code, reason = "made for more than is needed here")]
mod hearth;

mod caller;
mod sample;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use parking_lot::Mutex;

use self::caller::Caller;
use self::hearth::{Answer, Hearth, Host, Outcome};
use self::sample::Sample;

const CYCLES: usize = 5_000;
const CALLERS: usize = 8;
const DEPTH: usize = 16;

/// So few that they are all in use when the first quarter is over.
const CONFIG: &str = "[limits]\nmax_remembered_requests = 500\n";

fn main() -> ExitCode {
    let run = || -> Answer<String> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build()?.block_on(soak())
    };
    let said = Arc::new(Mutex::new(String::new()));
    let says = Arc::clone(&said);
    let trial = Trial::test("cycles_leave_nothing_behind", move || {
        *says.lock() = run().map_err(|error| Failed::from(error.to_string()))?;
        Ok(())
    });
    let conclusion = libtest_mimic::run(&Arguments::from_args(), vec![trial]);
    println!("{}", said.lock());
    conclusion.exit_code()
}

async fn soak() -> Answer<String> {
    let cycles = std::env::var("HEARTH_SOAK_CYCLES").ok();
    let cycles = cycles.map_or(Ok(CYCLES), |cycles| cycles.parse())?;
    let host = Host::configured("memory", DEPTH, |_| Ok(CONFIG.to_owned()))?;
    let hearth = Arc::new(host.start().await?);
    caller::make_pools(&hearth).await?;
    let mut samples = Vec::new();
    for quarter in 0..4 {
        run(&hearth, quarter, cycles / 4).await?;
        samples.push(Sample::of(&host, &hearth).await?);
        println!("after quarter {}: {}", quarter + 1, samples[quarter]);
    }
    samples[0].demand_flat(&samples[3]).map_err(|why| format!("{why}: {samples:#?}"))?;
    let hearth = Arc::into_inner(hearth).ok_or("somebody still calls")?;
    let status = hearth.terminate()?;
    if !status.success() {
        return Err(format!("hearth ended with {status}").into());
    }
    Ok(format!("soak: {cycles} cycles, {}: flat", samples[0].to(&samples[3])))
}

/// Has `cycles` made by all callers at once, and waits until everything has settled.
async fn run(hearth: &Arc<Hearth>, quarter: usize, cycles: usize) -> Outcome {
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        let mut caller = Caller::new(Arc::clone(hearth), (quarter * CALLERS + number) as u64);
        callers.spawn(async move { caller.run(cycles / CALLERS).await });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    hearth.until("everything has settled", async || settled(hearth).await.unwrap_or(false)).await
}

/// Only warm VMs are left, and as many as there should be.
async fn settled(hearth: &Hearth) -> Answer<bool> {
    let vms = hearth.vms().await?;
    Ok(vms.len() == DEPTH && hearth.warm_vms().await?.len() == DEPTH)
}
