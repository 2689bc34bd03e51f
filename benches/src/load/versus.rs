//! A hearth and the floor, measured in turns, perhaps with another hearth beside them.
//!
//! All get the same load at the same times, block by block, and who begins changes with each
//! block. Before and after a block of the hearth its pool is at rest, so that no restore, no
//! destroy and nothing that these leave to be done runs beside the next block.

use std::error::Error;
use std::time::Duration;

use hearth_proto::Transport;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::drive::Target;
use super::floor::{Blob, FloorTarget};
use super::hearth::{Depth, HearthTarget, Sizes};
use super::plan::Plan;
use super::sides::Side;
use super::tally::{Source, Tally};
use crate::take_turns;

/// How long a pool may take to come to rest between two blocks.
const RESTING: Duration = Duration::from_secs(60);
/// How long it stays at rest before the next block: what was given back is still written into tables and handed
/// back to the system for a while.
const SETTLING: Duration = Duration::from_millis(250);

/// What is compared, and what it was before the first block.
#[derive(Clone, Debug)]
pub struct Versus {
    hearth: HearthTarget,
    floor: FloorTarget,
    plain: Option<(HearthTarget, Depth)>,
    /// Encoded messages of one acquire, and of the floor's calls.
    pub sizes: Sizes,
    /// The pool, filled.
    pub depth: Depth,
}

/// What the blocks of each have shown.
#[derive(Clone, Debug)]
pub struct Sides {
    /// Of the hearth.
    pub ours: Side,
    /// Of the floor.
    pub floor: Side,
    /// Of the plain hearth beside it, if there is one.
    pub plain: Option<Side>,
}

impl Versus {
    /// Fills the pool of `hearth`, and has the floor on `transports` answer with messages of the size
    /// of its acquires, each within `deadline`.
    ///
    /// # Errors
    /// When the hearth answers nothing, or there are no messages of these sizes.
    pub async fn new(
        hearth: HearthTarget,
        transports: Vec<Transport>,
        deadline: Duration,
    ) -> Result<Self, Box<dyn Error>> {
        let depth = hearth.fill(RESTING).await?;
        let sizes = hearth.sizes().await?;
        let floor = floor_of(sizes, transports, deadline)?;
        Ok(Self { hearth, floor, plain: None, sizes, depth })
    }

    /// The same with another hearth that takes its turns, too: what the hearth has beyond this one is what is
    /// to be seen. Fills its pool.
    ///
    /// # Errors
    /// When it answers nothing.
    pub async fn beside(self, plain: HearthTarget) -> Result<Self, Box<dyn Error>> {
        let depth = plain.fill(RESTING).await?;
        Ok(Self { plain: Some((plain, depth)), ..self })
    }

    /// Carries out `plan` on all in turns, `blocks` times after a first one that warms up, with
    /// arrival times of `seed` and those after it. Blocks.
    ///
    /// # Errors
    /// When a block was given nothing, or a pool does not come to rest.
    pub fn measure(
        &self,
        runtime: &Runtime,
        plan: &Plan,
        blocks: usize,
        seed: u64,
        mut progress: impl FnMut(),
    ) -> Result<Sides, Box<dyn Error>> {
        let (mut ours, mut floor, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        let sides = if self.plain.is_some() { 3 } else { 2 };
        take_turns(blocks, sides, |block, side| {
            let seed = seed.wrapping_add(block as u64);
            let at_rest = async |target, depth| rested(plan, target, depth, seed).await;
            match (side, &self.plain) {
                (0, _) => {
                    progress();
                    let tally = runtime.block_on(at_rest(&self.hearth, self.depth))?;
                    keep(tally, Source::Warm, &mut ours)
                }
                (2, Some((target, depth))) => {
                    let tally = runtime.block_on(at_rest(target, *depth))?;
                    keep(tally, Source::Warm, &mut plain)
                }
                _ => {
                    let tally = runtime.block_on(run(plan, &self.floor, seed))?;
                    keep(tally, Source::Floor, &mut floor)
                }
            }
        })?;
        Ok(Sides {
            ours: Side::of(Source::Warm, ours),
            floor: Side::of(Source::Floor, floor),
            plain: self.plain.as_ref().map(|_| Side::of(Source::Warm, plain)),
        })
    }
}

/// A block of a hearth whose pool is at rest before and after.
async fn rested(
    plan: &Plan,
    target: &HearthTarget,
    depth: Depth,
    seed: u64,
) -> Result<Tally, Box<dyn Error>> {
    target.rest(RESTING, depth).await?;
    let tally = run(plan, target, seed).await?;
    target.rest(RESTING, depth).await?;
    tokio::time::sleep(SETTLING).await;
    Ok(tally)
}

/// The floor on `transports`, called with messages of these sizes.
///
/// # Errors
/// When there are no messages of these sizes.
pub fn floor_of(
    sizes: Sizes,
    transports: Vec<Transport>,
    deadline: Duration,
) -> Result<FloorTarget, Box<dyn Error>> {
    let Sizes { request_bytes, response_bytes } = sizes;
    let answer = u32::try_from(response_bytes)?;
    let is_possible = Blob::of_size(response_bytes, 0).is_some();
    let request = Blob::of_size(request_bytes, answer).filter(|_| is_possible);
    let request = request
        .ok_or_else(|| format!("no messages of {request_bytes} and {response_bytes} bytes"))?;
    Ok(FloorTarget::new(transports, request, deadline))
}

async fn run<T: Target>(plan: &Plan, target: &T, seed: u64) -> Result<Tally, Box<dyn Error>> {
    Ok(plan.run(target.clone(), seed, CancellationToken::new(), |_| ()).await?)
}

/// Keeps what a block has shown.
fn keep(tally: Tally, source: Source, blocks: &mut Vec<Tally>) -> Result<(), Box<dyn Error>> {
    let shows_a_median = tally.given.get(&source).is_some_and(|it| it.from_due.at(0.5).is_some());
    let reasons: Vec<_> = tally.refused.keys().cloned().collect();
    blocks.push(tally);
    shows_a_median.then_some(()).ok_or_else(|| {
        let (name, reasons) = (source.name(), reasons.join(", "));
        format!("a block with fewer than 4 {name} answers; refused: {reasons}").into()
    })
}

#[cfg(test)]
mod tests {
    use super::super::tally::{Times, Verdict};
    use super::*;

    #[test]
    fn a_block_that_shows_no_median_ends_the_comparison_and_says_why() {
        let mut blocks = Vec::new();
        let mut tally = Tally::default();
        let times = Times { due: Duration::ZERO, sent: Duration::ZERO, answered: Duration::ZERO };
        tally.answered(Verdict::Refused("POOL_EMPTY".to_owned()), times);
        let error = keep(tally, Source::Warm, &mut blocks).unwrap_err().to_string();
        assert!(error.contains("WARM") && error.contains("POOL_EMPTY"), "{error}");
        assert_eq!(blocks.len(), 1);
    }

    #[tokio::test]
    async fn a_floor_of_impossible_sizes_is_refused() {
        let sizes = Sizes { request_bytes: 97, response_bytes: 1 };
        let error = floor_of(sizes, Vec::new(), Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("97 and 1 bytes"), "{error}");
        let sizes = Sizes { response_bytes: 300, ..sizes };
        assert!(floor_of(sizes, Vec::new(), Duration::ZERO).is_ok());
    }
}
