//! What two sides have shown, as a row of the table.

use hearth_benches::Ratio;
use hearth_benches::budget::{self, Bound, Measured, Row};
use hearth_benches::load::latencies::QUANTILES;
use hearth_benches::load::sides::{RatioOf, Side, rate_ratio, ratios};
use hearth_benches::load::versus::Sides;

/// Where fewer calls were given a warm VM, it is something else that was measured.
const LEAST_HIT_RATIO: f64 = 0.999;

/// What ours has shown over theirs, or why it shows nothing.
pub(super) type Figure<'a> = &'a dyn Fn(&Side, &Side) -> Result<Measured, String>;

/// Ours over the floor, and beside it over a plain hearth where there is one.
pub(super) fn row((what, bound): (&str, Bound), sides: &Sides, figure: Figure<'_>) -> Row {
    let over = |theirs| figure(&sides.ours, theirs);
    Row { over_plain: sides.plain.as_ref().map(over), ..Row::of(what, bound, over(&sides.floor)) }
}

/// A quantile of warm claims.
pub(super) fn quantile(ours: &Side, theirs: &Side, of: &str) -> Result<Measured, String> {
    are_warm_claims(ours, theirs)?;
    let found = ratios(ours, theirs).into_iter().find(|it| it.quantile == of);
    let RatioOf { ratio, low, high, .. } =
        found.ok_or_else(|| format!("blocks too short for a {of}"))?;
    let quantile = QUANTILES.iter().find(|it| it.0 == of).map_or(0.5, |it| it.1);
    let say = |side: &Side| {
        side.from_due.at(quantile).map_or_else(|| "-".to_owned(), |it| format!("{it:.1?}"))
    };
    Ok(Measured::new(say(ours), say(theirs), Ratio { median: ratio, low, high }))
}

/// How many warm claims there were a second.
pub(super) fn rates(ours: &Side, theirs: &Side) -> Result<Measured, String> {
    are_warm_claims(ours, theirs)?;
    rate(ours, theirs)
}

/// Cycles are as fast as the refill is: who finds nothing warm waits, and that counts.
pub(super) fn cycles(ours: &Side, theirs: &Side) -> Result<Measured, String> {
    match ours.refused() + theirs.refused() {
        0 => rate(ours, theirs),
        refused => Err(format!("{refused} calls were refused")),
    }
}

fn rate(ours: &Side, theirs: &Side) -> Result<Measured, String> {
    let rates = rate_ratio(ours, theirs).ok_or("a block gave nothing")?;
    let say = |rate: f64| format!("{rate:.0}/s");
    let ratio = Ratio { median: rates.ratio, low: rates.low, high: rates.high };
    Ok(Measured::new(say(rates.ours_per_s), say(rates.theirs_per_s), ratio))
}

/// Else these blocks measure something else.
fn are_warm_claims(ours: &Side, theirs: &Side) -> Result<(), String> {
    let not_sent = ours.not_sent() + theirs.not_sent();
    if not_sent > 0 {
        return Err(format!("{not_sent} calls were not sent"));
    }
    let given = ours.given_ratio().min(theirs.given_ratio());
    match given < LEAST_HIT_RATIO {
        true => Err(format!("only {:.2} % were given", given * 100.0)),
        false => Ok(()),
    }
}

/// The same where the node has room, so that what was claimed is restored anew at once: a figure, since the
/// budget is for claims.
pub(super) fn beside_refill(row: Row) -> budget::Figure {
    let value = match row.outcome {
        Ok(Measured { ours, theirs, ratio, low, high }) => {
            format!("{ratio:.2} [{low:.2}, {high:.2}], {ours} of {theirs}")
        }
        Err(why) => format!("not measured: {why}"),
    };
    budget::Figure::new(format!("{}, with the refill beside it", row.what), value)
}
