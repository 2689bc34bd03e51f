//! A cycle: two calls by the same worker, the second after the first.
//!
//! Of a hearth, an acquire and the release of what it gave; of what gives nothing, as the floor, two
//! calls. As a target it is one call, so that every loop can make it.

use super::drive::{Answer, Target};
use super::tally::Verdict;

/// A target whose call is a cycle of another one's.
#[derive(Clone, Debug)]
pub struct Cycle<T>(pub T);

impl<T: Target> Target for Cycle<T> {
    type Held = ();

    async fn call(&self, number: u64) -> Answer<()> {
        let Answer { verdict, held, replayed } = self.0.call(number).await;
        let is_given = matches!(verdict, Verdict::Given(_));
        let second = match held {
            Some(held) => self.0.give_back(held).await,
            None if is_given => match self.0.call(number).await.verdict {
                Verdict::Given(_) => Ok(()),
                Verdict::Refused(reason) => Err(reason),
            },
            None => Ok(()),
        };
        let verdict = match second {
            Err(reason) if is_given => Verdict::Refused(reason),
            _ => verdict,
        };
        Answer { verdict, held: None, replayed }
    }

    async fn give_back(&self, (): ()) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::super::tally::Source;
    use super::*;

    /// Notes what it is asked.
    #[derive(Clone, Default)]
    struct Noted {
        notes: Arc<Mutex<Vec<&'static str>>>,
        gives: bool,
        refuses: bool,
        keeps: bool,
    }

    impl Target for Noted {
        type Held = ();

        async fn call(&self, _: u64) -> Answer<()> {
            self.notes.lock().push("call");
            let verdict = match self.refuses {
                true => Verdict::Refused("POOL_EMPTY".to_owned()),
                false => Verdict::Given(Source::Warm),
            };
            Answer { verdict, held: self.gives.then_some(()), replayed: false }
        }

        async fn give_back(&self, (): ()) -> Result<(), String> {
            self.notes.lock().push("give back");
            if self.keeps { Err("kept".to_owned()) } else { Ok(()) }
        }
    }

    async fn cycle(target: Noted) -> (Verdict, Vec<&'static str>) {
        let answer = Cycle(target.clone()).call(0).await;
        assert!(answer.held.is_none());
        let notes = target.notes.lock().clone();
        (answer.verdict, notes)
    }

    #[tokio::test]
    async fn a_cycle_is_a_call_and_the_end_of_what_it_gave_or_two_calls() {
        let given = Verdict::Given(Source::Warm);
        let noted = Noted { gives: true, ..Noted::default() };
        assert_eq!(cycle(noted).await, (given.clone(), vec!["call", "give back"]));
        assert_eq!(cycle(Noted::default()).await, (given, vec!["call", "call"]));
    }

    #[tokio::test]
    async fn half_a_cycle_is_none() {
        let refused = |it: &str| Verdict::Refused(it.to_owned());
        let empty = Noted { refuses: true, ..Noted::default() };
        assert_eq!(cycle(empty).await, (refused("POOL_EMPTY"), vec!["call"]));
        let kept = Noted { gives: true, keeps: true, ..Noted::default() };
        assert_eq!(cycle(kept).await.0, refused("kept"));
        // What should not have been given is given back all the same.
        let both = Noted { gives: true, refuses: true, ..Noted::default() };
        assert_eq!(cycle(both).await, (refused("POOL_EMPTY"), vec!["call", "give back"]));
    }
}
