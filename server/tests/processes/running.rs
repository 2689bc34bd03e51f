//! What a case on a hearth process is, and how all of a test binary's are run.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::hearth::Outcome;

pub(crate) type Run = fn() -> Pin<Box<dyn Future<Output = Outcome>>>;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Without the host of its test binary it is ignored.
    pub(crate) needs_host: bool,
    pub(crate) run: Run,
}

/// All cases of a module, by whether they need the host and by the names of what runs them.
macro_rules! cases {
    ($($host:literal $name:ident),* $(,)?) => {
        pub(crate) fn all() -> Vec<$crate::running::Case> {
            vec![$($crate::running::Case {
                name: stringify!($name),
                needs_host: $host,
                run: || Box::pin($name()),
            }),*]
        }
    };
}
pub(crate) use cases;

/// What there is to run of `cases`. Where `host` is missing, for this reason, those that need it are ignored, or fail
/// when `HEARTH_REQUIRE` names it.
pub(crate) fn trials(
    cases: impl IntoIterator<Item = Case>,
    host: &str,
    missing: Option<String>,
) -> Vec<Trial> {
    let required = std::env::var("HEARTH_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|it| it.trim() == host);
    let trial = |case: Case| {
        let run = move || run(case.run).map_err(|error| Failed::from(format!("{error:?}")));
        match &missing {
            Some(why) if case.needs_host && required => {
                let why = format!("HEARTH_REQUIRE={host}, but {why}");
                Trial::test(case.name, move || Err(Failed::from(why)))
            }
            Some(why) if case.needs_host => {
                println!("ignored {}: {why}", case.name);
                Trial::test(case.name, run).with_ignored_flag(true)
            }
            _ => Trial::test(case.name, run),
        }
    };
    cases.into_iter().map(trial).collect()
}

/// Runs them.
pub(crate) fn run_all(trials: Vec<Trial>) -> ExitCode {
    // Two cores run two nodes at most.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(2);
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(case: Run) -> Outcome {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(case())
}
