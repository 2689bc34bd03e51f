//! Attacks on the wire, on a real server in a process of its own. One passes only if the server's memory
//! stays below what it had when idle and 256 MiB, and an honest client gets its VMs throughout; and if what
//! had to be refused was.
//!
//! A table at the end has what was tried, what happened, the peak of memory, and the honest client's p99
//! before and during. `HEARTH_LONG=1` attacks for longer, and holds the p99 to five times what it was.

#[cfg(target_os = "linux")]
mod attacks;
#[cfg(target_os = "linux")]
mod forged;
#[cfg(target_os = "linux")]
mod frames;
#[cfg(target_os = "linux")]
mod handshakes;
#[cfg(target_os = "linux")]
mod honest;
#[cfg(target_os = "linux")]
mod pki;
#[cfg(target_os = "linux")]
mod target;

#[cfg(target_os = "linux")]
type Answer<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::sync::Arc;

    use libtest_mimic::{Arguments, Failed, Trial};
    use parking_lot::Mutex;

    let mut arguments = Arguments::from_args();
    // They share two servers, whose memory is looked at.
    arguments.test_threads = Some(1);
    if arguments.list {
        let none = attacks::all().into_iter().map(|it| Trial::test(it.name, || Ok(())));
        return libtest_mimic::run(&arguments, none.collect()).exit_code();
    }
    let is_long = std::env::var_os("HEARTH_LONG").is_some_and(|it| it == "1");
    let site = match target::Site::open() {
        Ok(site) => Arc::new(site),
        Err(error) => {
            println!("attacks: there is nothing to attack: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let rows = Arc::new(Mutex::new(Vec::new()));
    let trials = attacks::all().into_iter().map(|attack| {
        let (site, rows) = (Arc::clone(&site), Arc::clone(&rows));
        Trial::test(attack.name, move || {
            let (row, outcome) = target::withstand(&site, &attack, is_long);
            rows.lock().push(row);
            outcome.map_err(|error| Failed::from(error.to_string()))
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    println!("| attack | what happened | peak above idle | honest p99, before and during |");
    println!("|---|---|---|---|");
    rows.lock().iter().for_each(|row| println!("{row}"));
    conclusion.exit_code()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
