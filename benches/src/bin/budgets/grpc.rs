//! Over gRPC: a hearth with a pool of the memory provider against the floor, each in a process of its
//! own, journal on the disk, metrics on.
//!
//! A block of acquires takes no more VMs than the pool has, and gives them back after it. The node has room for
//! no more than these, so that nothing is restored beside the claims; with time for it figures show how it is where
//! the refill of what they took begins beside them. Cycles and the open loop have refill, releases and destroys
//! beside them, as a service has.

use std::error::Error;
use std::time::Duration;

use hearth_benches::Ratio;
use hearth_benches::budget::{Bound, Figure, Measured, Row};
use hearth_benches::load::arrivals::Arrivals;
use hearth_benches::load::connect;
use hearth_benches::load::hearth::{HearthTarget, Wish};
use hearth_benches::load::holding::{Holding, Streams};
use hearth_benches::load::latencies::QUANTILES;
use hearth_benches::load::plan::{Pace, Plan};
use hearth_benches::load::sides::{RatioOf, Side, rate_ratio, ratios};
use hearth_benches::load::versus::Versus;
use tokio::runtime::Runtime;

use crate::rig::{Home, Served, floor};
use crate::{Extent, Shown};

/// VMs of the pool: more than a block of acquires takes.
const DEPTH: usize = 2_000;
const BLOCKS: usize = 20;
/// Longer than any block.
const LONG: Duration = Duration::from_secs(600);
/// Where fewer calls were given a warm VM, it is something else that was measured.
const LEAST_HIT_RATIO: f64 = 0.999;
/// Fewer samples show no p99.9.
const LEAST_SAMPLES: u64 = 100_000;
/// How many are meant: arrivals are random, and never so far off.
const SAMPLES: (f64, f64) = (102_000.0, 400_000.0);

const ONE: (&str, Bound) = ("warm acquire over gRPC, p50, one in flight", Bound::AtMost(1.3));
const MANY: (&str, Bound) = ("warm claims a second, 64 in flight", Bound::AtLeast(0.7));
const CYCLES: (&str, Bound) = ("acquire + release + refill, cycles a second", Bound::AtLeast(0.5));
const TAIL: (&str, Bound) =
    ("warm acquire p99.9, open loop at half the saturating rate", Bound::AtMost(2.0));

/// Measures the four budgets that are about calls.
///
/// # Errors
/// When a program cannot be started, or does not answer.
pub(crate) fn measure(extent: Extent) -> Result<Shown, Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let home = Home::new()?;
    let hearth = home.serve(&configuration(DEPTH))?;
    let no_room = Home::new()?;
    let full =
        no_room.serve(&format!("{}[limits.budget]\nmax_vms = {DEPTH}\n", configuration(DEPTH)))?;
    let floor = floor()?;
    let against = |hearth: &Served, connections, warm_only| {
        runtime.block_on(async {
            let (pool, deadline) = ("default".to_owned(), Duration::from_secs(10));
            let wish = Wish { pool, ttl: LONG, warm_only, deadline, question: None };
            let target = HearthTarget::new(connect(&hearth.address, connections).await?, &wish);
            Versus::new(target, connect(&floor.address, connections).await?, wish.deadline).await
        })
    };
    let (one, several) = (against(&full, 1, true)?, against(&full, 4, true)?);
    let mut shown = Shown::default();
    let sizes = one.sizes;
    shown.figures.push(Figure::new(
        "messages of an acquire, and of the floor's call",
        format!("{} bytes, answer {} bytes", sizes.request_bytes, sizes.response_bytes),
    ));
    shown.figures.push(Figure::new("depth of the pool", format!("{} warm", one.depth.warm)));
    let blocks = |versus: &Versus, plan: &Plan, seed| {
        versus.measure(&runtime, plan, BLOCKS, seed, || eprint!("."))
    };

    let (ours, theirs) = blocks(&one, &closed(1, 400), 1)?;
    shown.rows.push(quantile(ONE, &ours, &theirs, "p50"));
    let (ours, theirs) = blocks(&several, &closed(64, DEPTH as u64), 2)?;
    shown.rows.push(rates(MANY, &ours, &theirs));
    drop(full);
    let several = against(&hearth, 4, true)?;
    if extent.is_full {
        let (ours, theirs) = blocks(&against(&hearth, 1, true)?, &closed(1, 400), 5)?;
        shown.figures.push(beside_refill(quantile(ONE, &ours, &theirs, "p50")));
        let (ours, theirs) = blocks(&several, &closed(64, DEPTH as u64), 6)?;
        shown.figures.push(beside_refill(rates(MANY, &ours, &theirs)));
    }
    let patient = against(&hearth, 4, false)?;
    // More than the pool has: most of what is claimed was restored meanwhile.
    let cycles = Plan { cycle: true, ..closed(64, 3 * DEPTH as u64) };
    let (ours, theirs) = blocks(&patient, &cycles, 3)?;
    shown.rows.push(cycle_rates(&ours, &theirs));
    // What a loop of 64 that does nothing else comes to is what saturates both.
    let saturating = rate_ratio(&ours, &theirs).map_or(0.0, |it| it.ours_per_s);
    let rate = (saturating / 2.0).floor();
    let calls = if extent.is_full { SAMPLES.1 } else { SAMPLES.0 };
    let open = Plan {
        pace: Pace::Open { arrivals: Arrivals::Poisson { rate }, max_in_flight: 10_000 },
        duration: Duration::from_secs_f64(calls / BLOCKS as f64 / rate.max(1.0)),
        ..closed(0, 0)
    };
    let open = Plan { holding: Holding::default(), ..open };
    let (ours, theirs) = blocks(&several, &open, 4)?;
    eprintln!();
    shown.figures.push(Figure::new(
        "open loop",
        format!("{rate}/s, half of {saturating:.0} cycles/s; {} samples", ours.from_due.count()),
    ));
    shown.rows.push(match ours.from_due.count() {
        too_few @ ..LEAST_SAMPLES => {
            Row::not_measured(TAIL.0, TAIL.1, format!("{too_few} samples are too few"))
        }
        _ => quantile(TAIL, &ours, &theirs, "p99.9"),
    });
    Ok(shown)
}

/// A pool that is full of VMs of the memory provider and does not change.
pub(crate) fn configuration(depth: usize) -> String {
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

fn quantile((what, bound): (&str, Bound), ours: &Side, theirs: &Side, of: &str) -> Row {
    if let Some(why) = is_no_measure(ours, theirs) {
        return Row::not_measured(what, bound, why);
    }
    let found = ratios(ours, theirs).into_iter().find(|it| it.quantile == of);
    let Some(RatioOf { ratio, low, high, .. }) = found else {
        return Row::not_measured(what, bound, format!("blocks too short for a {of}"));
    };
    let say = |side: &Side| match side
        .from_due
        .at(QUANTILES.iter().find(|it| it.0 == of).map_or(0.5, |it| it.1))
    {
        Some(latency) => format!("{latency:.1?}"),
        None => "-".to_owned(),
    };
    let ratio = Ratio { median: ratio, low, high };
    Row::measured(what, bound, Measured::new(say(ours), say(theirs), ratio))
}

fn rates((what, bound): (&str, Bound), ours: &Side, theirs: &Side) -> Row {
    match is_no_measure(ours, theirs) {
        Some(why) => Row::not_measured(what, bound, why),
        None => rate_row((what, bound), ours, theirs),
    }
}

/// The same where the node has room, so that what was claimed is restored anew at once: a figure, since the
/// budget is for claims.
fn beside_refill(row: Row) -> Figure {
    let value = match row.outcome {
        Ok(Measured { ours, theirs, ratio, low, high }) => {
            format!("{ratio:.2} [{low:.2}, {high:.2}], {ours} of {theirs}")
        }
        Err(why) => format!("not measured: {why}"),
    };
    Figure::new(format!("{}, with the refill beside it", row.what), value)
}

/// Cycles are as fast as the refill is: who finds nothing warm waits, and that counts.
fn cycle_rates(ours: &Side, theirs: &Side) -> Row {
    let (what, bound) = CYCLES;
    match ours.refused() + theirs.refused() {
        0 => rate_row(CYCLES, ours, theirs),
        refused => Row::not_measured(what, bound, format!("{refused} calls were refused")),
    }
}

fn rate_row((what, bound): (&str, Bound), ours: &Side, theirs: &Side) -> Row {
    let Some(rates) = rate_ratio(ours, theirs) else {
        return Row::not_measured(what, bound, "a block gave nothing");
    };
    let say = |rate: f64| format!("{rate:.0}/s");
    let ratio = Ratio { median: rates.ratio, low: rates.low, high: rates.high };
    let measured = Measured::new(say(rates.ours_per_s), say(rates.theirs_per_s), ratio);
    Row::measured(what, bound, measured)
}

/// Why these blocks do not measure warm claims, if they do not.
fn is_no_measure(ours: &Side, theirs: &Side) -> Option<String> {
    let not_sent = ours.not_sent() + theirs.not_sent();
    if not_sent > 0 {
        return Some(format!("{not_sent} calls were not sent"));
    }
    let given = ours.given_ratio().min(theirs.given_ratio());
    (given < LEAST_HIT_RATIO).then(|| format!("only {:.2} % were given", given * 100.0))
}
