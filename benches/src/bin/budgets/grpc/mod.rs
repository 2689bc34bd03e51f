//! Over gRPC: a hearth with a pool of the memory provider against the floor, each in a process of its
//! own, journal on the disk, metrics on.
//!
//! A block of acquires takes no more VMs than the pool has, and gives them back after it. The node has room for
//! no more than these, so that nothing is restored beside the claims; with time for it figures show how it is where
//! the refill of what they took begins beside them. Cycles and the open loop have refill, releases and destroys
//! beside them, as a service has.
//!
//! The same budgets hold for a hearth that does more ([`manner`]). It is measured against the floor of its own
//! transport, and in the same turns against a plain hearth, which shows what the more costs.

mod authority;
mod collector;
mod figures;
mod manner;
mod scraper;

use std::error::Error;
use std::time::Duration;

use figures::{beside_refill, cycles, quantile, rates, row};
use hearth_benches::budget::{Bound, Figure};
use hearth_benches::load::arrivals::Arrivals;
use hearth_benches::load::connect;
use hearth_benches::load::hearth::{HearthTarget, Wish};
use hearth_benches::load::holding::{Holding, Streams};
use hearth_benches::load::plan::{Pace, Plan};
use hearth_benches::load::sides::rate_ratio;
use hearth_benches::load::versus::{Sides, Versus};
use manner::{Manner, Running};
use tokio::runtime::Runtime;

use crate::rig::Served;
use crate::{Extent, Shown};

pub(crate) use manner::With;

/// VMs of the pool: more than a block of acquires takes.
const DEPTH: usize = 2_000;
const BLOCKS: usize = 20;
/// Longer than any block.
const LONG: Duration = Duration::from_secs(600);
/// Fewer samples show no p99.9.
const LEAST_SAMPLES: u64 = 100_000;
/// How many are meant: arrivals are random, and never so far off.
const SAMPLES: (f64, f64) = (102_000.0, 400_000.0);

const ONE: (&str, Bound) = ("warm acquire over gRPC, p50, one in flight", Bound::AtMost(1.3));
const MANY: (&str, Bound) = ("warm claims a second, 64 in flight", Bound::AtLeast(0.7));
const CYCLES: (&str, Bound) = ("acquire + release + refill, cycles a second", Bound::AtLeast(0.5));
const TAIL: (&str, Bound) =
    ("warm acquire p99.9, open loop at half the saturating rate", Bound::AtMost(2.0));

/// Measures the four budgets that are about calls, of a hearth that does more `with` that, else of a plain one.
///
/// # Errors
/// When a program cannot be started, or does not answer.
pub(crate) fn measure(extent: Extent, with: Option<With>) -> Result<Shown, Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let manner = Manner::prepare(with)?;
    let floor = manner.floor()?;
    let begin = |settings: &str| Stage::begin(&runtime, &manner, &floor, settings);
    let mut shown = Shown::default();
    let named = |what: &str| format!("{what}{}", manner.suffix());
    let mut add = |(what, bound): (&str, Bound), sides: &Sides, figure: figures::Figure<'_>| {
        shown.rows.push(row((&named(what), bound), sides, figure));
    };

    let no_room = begin(&format!("{}[limits.budget]\nmax_vms = {DEPTH}\n", configuration(DEPTH)))?;
    let one = no_room.versus(1, true)?;
    let sides = no_room.blocks(&one, &closed(1, extent.of(400)), 1)?;
    add(ONE, &sides, &|ours, theirs| quantile(ours, theirs, "p50"));
    let sides = no_room.blocks(&no_room.versus(4, true)?, &closed(64, extent.of(DEPTH)), 2)?;
    add(MANY, &sides, &rates);
    let (sizes, depth) = (one.sizes, one.depth);
    drop(no_room);

    let stage = begin(&configuration(DEPTH))?;
    let several = stage.versus(4, true)?;
    let mut beside = Vec::new();
    if extent.is_full && with.is_none() {
        let sides = stage.blocks(&stage.versus(1, true)?, &closed(1, 400), 5)?;
        let p50: figures::Figure<'_> = &|ours, theirs| quantile(ours, theirs, "p50");
        beside.push(beside_refill(row(ONE, &sides, p50)));
        let sides = stage.blocks(&several, &closed(64, extent.of(DEPTH)), 6)?;
        beside.push(beside_refill(row(MANY, &sides, &rates)));
    }
    // More than the pool has: most of what is claimed was restored meanwhile.
    let plan = Plan { cycle: true, ..closed(64, extent.of(3 * DEPTH)) };
    let sides = stage.blocks(&stage.versus(4, false)?, &plan, 3)?;
    shown.rows.push(row((&named(CYCLES.0), CYCLES.1), &sides, &cycles));
    // What a loop of 64 that does nothing else comes to is what saturates both.
    let saturating = rate_ratio(&sides.ours, &sides.floor).map_or(0.0, |it| it.ours_per_s);
    let rate = (saturating / 2.0).floor();
    let calls = if extent.is_full && with.is_none() { SAMPLES.1 } else { SAMPLES.0 };
    let open = Plan {
        pace: Pace::Open { arrivals: Arrivals::Poisson { rate }, max_in_flight: 10_000 },
        duration: Duration::from_secs_f64(calls * extent.share / BLOCKS as f64 / rate.max(1.0)),
        holding: Holding::default(),
        ..closed(0, 0)
    };
    let sides = stage.blocks(&several, &open, 4)?;
    eprintln!();
    shown.rows.push(row((&named(TAIL.0), TAIL.1), &sides, &|ours, theirs| match ours
        .from_due
        .count()
    {
        too_few @ ..LEAST_SAMPLES => Err(format!("{too_few} samples are too few")),
        _ => quantile(ours, theirs, "p99.9"),
    }));
    let samples = sides.ours.from_due.count();
    shown.figures.extend([
        Figure::new(
            named("messages of an acquire, and of the floor's call"),
            format!("{} bytes, answer {} bytes", sizes.request_bytes, sizes.response_bytes),
        ),
        Figure::new(named("depth of the pool"), format!("{} warm", depth.warm)),
        Figure::new(
            named("open loop"),
            format!("{rate}/s, half of {saturating:.0} cycles/s; {samples} samples"),
        ),
    ]);
    shown.figures.extend(beside);
    shown.figures.extend(manner.end(stage.ours)?);
    Ok(shown)
}

/// The hearths that take turns with the floor.
struct Stage<'a> {
    runtime: &'a Runtime,
    manner: &'a Manner,
    floor: &'a Served,
    ours: Running,
    /// Beside one that does more.
    plain: Option<Running>,
}

impl<'a> Stage<'a> {
    fn begin(
        runtime: &'a Runtime,
        manner: &'a Manner,
        floor: &'a Served,
        settings: &str,
    ) -> Result<Self, Box<dyn Error>> {
        let ours = manner.serve(settings)?;
        let plain = manner.is_more().then(|| Running::plain(settings)).transpose()?;
        Ok(Self { runtime, manner, floor, ours, plain })
    }

    fn versus(&self, connections: usize, warm_only: bool) -> Result<Versus, Box<dyn Error>> {
        let (pool, deadline) = ("default".to_owned(), Duration::from_secs(10));
        let wish = Wish { pool, ttl: LONG, warm_only, deadline, question: None };
        self.runtime.block_on(async {
            let target = async |running: &Running, caller| {
                let transports = connect(&running.served.address, connections, caller).await?;
                Ok::<_, Box<dyn Error>>(HearthTarget::new(transports, &wish))
            };
            let ours = target(&self.ours, self.manner.caller()).await?;
            let caller = self.manner.caller_of_floor();
            let floor = connect(&self.floor.address, connections, &caller).await?;
            let versus = Versus::new(ours, floor, deadline).await?;
            match &self.plain {
                Some(plain) => versus.beside(target(plain, &Default::default()).await?).await,
                None => Ok(versus),
            }
        })
    }

    fn blocks(&self, versus: &Versus, plan: &Plan, seed: u64) -> Result<Sides, Box<dyn Error>> {
        versus.measure(self.runtime, plan, BLOCKS, seed, || eprint!("."))
    }
}

/// A pool that is full of VMs of the memory provider and does not change.
fn configuration(depth: usize) -> String {
    format!(
        "[providers.memory]\nkind = \"memory\"\n\n[default_pool]\ndepth = {depth}\n\
         max_ttl = \"1day\"\ndefault_overflow = \"wait\"\n"
    )
}

/// A closed loop of so many calls, whose VMs are given back when all of them were made.
fn closed(in_flight: usize, calls: u64) -> Plan {
    Plan {
        pace: Pace::Closed { in_flight, calls: Some(calls) },
        duration: LONG,
        holding: Holding { hold: LONG, ..Holding::default() },
        streams: Streams::default(),
        cycle: false,
    }
}
