//! A hearth and the floor, measured in turns.
//!
//! Both get the same load at the same times, block by block, and who begins changes with each
//! block. Before and after a block of the hearth its pool is at rest, so that no restore, no
//! destroy and nothing that these leave to be done runs beside the next block.

use std::cell::RefCell;
use std::error::Error;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::drive::Target;
use super::floor::{Blob, FloorTarget};
use super::hearth::{Depth, HearthTarget, Sizes};
use super::plan::Plan;
use super::sides::Side;
use super::tally::{Source, Tally};
use crate::alternate;

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
    /// Encoded messages of one acquire, and of the floor's calls.
    pub sizes: Sizes,
    /// The pool, filled.
    pub depth: Depth,
}

impl Versus {
    /// Fills the pool of `hearth`, and has the floor on `channels` answer with messages of the size
    /// of its acquires, each within `deadline`.
    ///
    /// # Errors
    /// When the hearth answers nothing, or there are no messages of these sizes.
    pub async fn new(
        hearth: HearthTarget,
        channels: Vec<tonic::transport::Channel>,
        deadline: Duration,
    ) -> Result<Self, Box<dyn Error>> {
        let depth = hearth.fill(RESTING).await?;
        let sizes = hearth.sizes().await?;
        let floor = floor_of(sizes, channels, deadline)?;
        Ok(Self { hearth, floor, sizes, depth })
    }

    /// Carries out `plan` on both in turns, `blocks` times after a first one that warms up, with
    /// arrival times of `seed` and those after it. Answers the hearth's side and the floor's. Blocks.
    ///
    /// # Errors
    /// When a block was given nothing, or the pool does not come to rest.
    pub fn measure(
        &self,
        runtime: &Runtime,
        plan: &Plan,
        blocks: usize,
        seed: u64,
        mut progress: impl FnMut(),
    ) -> Result<(Side, Side), Box<dyn Error>> {
        let Self { hearth, floor, depth, .. } = self;
        let (ours, theirs) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let seed = |block: usize| seed.wrapping_add(block as u64);
        alternate(
            blocks,
            |block| {
                runtime.block_on(async {
                    hearth.rest(RESTING, *depth).await?;
                    let tally = run(plan, hearth, seed(block)).await?;
                    hearth.rest(RESTING, *depth).await?;
                    tokio::time::sleep(SETTLING).await;
                    keep(tally, Source::Warm, &ours)
                })
            },
            |block| {
                progress();
                let tally = runtime.block_on(run(plan, floor, seed(block)))?;
                keep(tally, Source::Floor, &theirs)
            },
        )?;
        let ours = Side::of(Source::Warm, ours.into_inner());
        Ok((ours, Side::of(Source::Floor, theirs.into_inner())))
    }
}

/// The floor on `channels`, called with messages of these sizes.
///
/// # Errors
/// When there are no messages of these sizes.
pub fn floor_of(
    sizes: Sizes,
    channels: Vec<tonic::transport::Channel>,
    deadline: Duration,
) -> Result<FloorTarget, Box<dyn Error>> {
    let Sizes { request_bytes, response_bytes } = sizes;
    let answer = u32::try_from(response_bytes)?;
    let is_possible = Blob::of_size(response_bytes, 0).is_some();
    let request = Blob::of_size(request_bytes, answer).filter(|_| is_possible);
    let request = request
        .ok_or_else(|| format!("no messages of {request_bytes} and {response_bytes} bytes"))?;
    Ok(FloorTarget::new(channels, request, deadline))
}

async fn run<T: Target>(plan: &Plan, target: &T, seed: u64) -> Result<Tally, Box<dyn Error>> {
    Ok(plan.run(target.clone(), seed, CancellationToken::new(), |_| ()).await?)
}

/// Keeps what a block has shown; answers its median.
fn keep(
    tally: Tally,
    source: Source,
    blocks: &RefCell<Vec<Tally>>,
) -> Result<Duration, Box<dyn Error>> {
    let median = tally.given.get(&source).and_then(|it| it.from_due.at(0.5));
    let reasons: Vec<_> = tally.refused.keys().cloned().collect();
    blocks.borrow_mut().push(tally);
    median.ok_or_else(|| {
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
        let blocks = RefCell::default();
        let mut tally = Tally::default();
        let times = Times { due: Duration::ZERO, sent: Duration::ZERO, answered: Duration::ZERO };
        tally.answered(Verdict::Refused("POOL_EMPTY".to_owned()), times);
        let error = keep(tally, Source::Warm, &blocks).unwrap_err().to_string();
        assert!(error.contains("WARM") && error.contains("POOL_EMPTY"), "{error}");
        assert_eq!(blocks.borrow().len(), 1);
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
