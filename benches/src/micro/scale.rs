//! Whether an acquire costs the same however much there is: 10 VMs or 100,000, one pool or 1,000.
//!
//! All nodes are in this process, and take turns: see [`crate::alternate`].

use std::time::Duration;

use tokio::time::Instant;

use super::node::{Names, Node, Size};
use super::{Meter, Result};
use crate::{Ratio, alternate, median};

/// How often the nodes take turns.
const BLOCKS: usize = 100;
/// How many VMs a block acquires: as many as the smallest node has.
const PER_BLOCK: usize = 10;

/// What an acquire takes where there is much, and where there is little.
#[derive(Clone, Debug)]
pub struct Compared {
    /// How much, over how little.
    pub what: String,
    /// The median of its blocks where there is much.
    pub much: Duration,
    /// The same where there is little.
    pub little: Duration,
    /// How many times as long it takes where there is much.
    pub ratio: Ratio,
}

/// Times each call.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Meter for Times {
    fn measure(&mut self, operations: &mut dyn FnMut()) {
        let begun = Instant::now();
        operations();
        self.0.push(begun.elapsed());
    }
}

/// What a block of acquires takes.
fn block(node: &mut Node) -> Result<Duration> {
    let mut times = Times::default();
    super::run(node, PER_BLOCK, &mut times)?;
    Ok(median(times.0))
}

/// Compares 100,000 VMs with 10, and 1,000 pools with one. Blocks, for about a minute: most of it is the
/// set-up.
///
/// # Errors
/// A node cannot be started, or an acquire has failed.
pub fn measure() -> Result<Vec<Compared>> {
    let mut small = Node::start(Size { pools: 1, depth: PER_BLOCK }, Names::OnDisk)?;
    let sizes = [
        ("100,000 VMs over 10", Size { pools: 1, depth: 100_000 }),
        ("1,000 pools over 1", Size { pools: 1_000, depth: PER_BLOCK }),
    ];
    let mut ratios = Vec::new();
    for (name, size) in sizes {
        let mut large = Node::start(size, Names::OnDisk)?;
        let measured = alternate(BLOCKS, |_| block(&mut large), |_| block(&mut small))?;
        let (much, little) = measured.pairs.iter().copied().unzip();
        ratios.push(Compared {
            what: name.to_owned(),
            much: median(much),
            little: median(little),
            ratio: Ratio::of(&measured.pairs),
        });
    }
    Ok(ratios)
}
