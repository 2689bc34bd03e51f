//! A case: one sentence of the contract, and how it is run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use super::fixture::Fixture;
use super::outcome::{Broken, Outcome};
use super::scene::Scene;

/// One sentence of the contract.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name: says what holds.
    pub name: &'static str,
    /// The sentence.
    pub doc: &'static str,
    pub(super) applies: fn(&Fixture) -> bool,
    pub(super) run: fn(&Scene) -> Outcome,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The provider keeps it.
    Passed,
    /// The provider breaks it; how.
    Failed(String),
    /// The provider's capabilities exclude it.
    Unsupported,
}

impl Case {
    /// The capabilities of the fixture's provider include it.
    pub fn is_supported(&self, fixture: &Fixture) -> bool {
        (self.applies)(fixture)
    }

    /// Runs it in a thread of its own. Blocks for up to the fixture's patience: a case that
    /// takes longer fails, and its thread is left behind.
    pub fn run(&self, fixture: &Arc<Fixture>) -> Verdict {
        if !self.is_supported(fixture) {
            return Verdict::Unsupported;
        }
        let (done, outcome) = mpsc::channel();
        let (fixture_of_case, run) = (Arc::clone(fixture), self.run);
        std::thread::spawn(move || {
            let scene = Scene::new(fixture_of_case);
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&scene)))
                .unwrap_or_else(|panic| Err(Broken::panicked(&*panic)));
            let cleared = scene.clear();
            drop(scene);
            // Nobody listens when it is too late.
            let _ = done.send(outcome.and(cleared));
        });
        match outcome.recv_timeout(fixture.patience) {
            Ok(Ok(())) => Verdict::Passed,
            Ok(Err(broken)) => Verdict::Failed(broken.to_string()),
            Err(_) => Verdict::Failed(format!("it did not end within {:?}", fixture.patience)),
        }
    }
}

/// Declares the cases of a theme: a sentence, a name, what the provider must be able to do, and
/// a body that returns early with `?` or `ensure!` when the provider breaks it.
macro_rules! cases {
    ($($(#[doc = $doc:literal])+ fn $name:ident($p:ident) $(if ($guard:expr))? $body:block)+) => {
        /// The cases of this theme.
        pub(super) const CASES: &[$crate::conformance::Case] = &[$($crate::conformance::Case {
            name: stringify!($name),
            doc: concat!($($doc),+),
            applies: |$p| { let _ = $p; true $(&& $guard)? },
            run: $name,
        }),+];

        $(
            $(#[doc = $doc])+
            fn $name($p: &$crate::conformance::Scene) -> $crate::conformance::Outcome {
                $body
                Ok(())
            }
        )+
    };
}
pub(super) use cases;
