//! Erlang's loss formula, in steps that grow with the square root of the load.
//!
//! The textbook's recursion, `B(k) = a B(k-1) / (k + a B(k-1))`, takes as many steps as the depth.
//! Its inverse is a sum that can be cut off, `1/B(S) = 1 + S/a + S(S-1)/a^2 + ...`: the terms grow
//! until `S - j` is below `a` and then fall like a normal distribution's tail, so about ten times
//! `sqrt(a)` of them matter. The next depth is then one step of the recursion away.

/// Up to this depth the recursion is the shorter way.
const SHALLOW: usize = 64;
/// A sum beyond this is a ratio of zero for all that anybody measures.
const OVERFLOW: f64 = 1e300;

/// The part of the claims that finds nothing, with `depth` VMs and `offered_load` claims in the time
/// of one restore (Erlang B). Between 0 and 1: 1 where there is nothing to find.
pub fn miss_ratio(depth: usize, offered_load: f64) -> f64 {
    if depth == 0 {
        return 1.0;
    }
    if offered_load.is_nan() || offered_load <= 0.0 {
        return 0.0;
    }
    if offered_load.is_infinite() {
        return 1.0;
    }
    if depth <= SHALLOW {
        return (1..=depth).fold(1.0, |ratio, depth| deeper(depth, ratio, offered_load));
    }
    let (mut sum, mut term) = (1.0, 1.0);
    for left in (1..=depth).rev() {
        term *= left as f64 / offered_load;
        sum += term;
        if sum > OVERFLOW {
            return 0.0;
        }
        if term < sum * f64::EPSILON && (left as f64) < offered_load {
            break;
        }
    }
    1.0 / sum
}

/// The smallest depth with a miss ratio of at most `miss_ratio` at `offered_load`, and at most
/// `most`. Nothing is needed where nobody asks, and all of it where the promise cannot be kept.
/// Takes steps in the order of `sqrt(most)`.
pub fn depth_for(offered_load: f64, miss_ratio: f64, most: usize) -> usize {
    if offered_load.is_nan() || offered_load <= 0.0 || miss_ratio >= 1.0 {
        return 0;
    }
    if miss_ratio.is_nan() || miss_ratio <= 0.0 || !offered_load.is_finite() {
        return most;
    }
    if offered_load < SHALLOW as f64 / 2.0 {
        return go_deeper((0, 1.0), offered_load, miss_ratio, most);
    }
    // With fewer than `a (1 - p)` VMs more than `p` must miss even if none ever waited.
    let least = (offered_load * (1.0 - miss_ratio)) as usize;
    if least >= most {
        return most;
    }
    let first = (least, self::miss_ratio(least, offered_load));
    go_deeper(first, offered_load, miss_ratio, most)
}

/// From a depth and its ratio on by single steps, which lose no precision in this direction.
fn go_deeper(
    (mut depth, mut ratio): (usize, f64),
    offered_load: f64,
    miss_ratio: f64,
    most: usize,
) -> usize {
    while ratio > miss_ratio && depth < most {
        depth += 1;
        ratio = deeper(depth, ratio, offered_load);
    }
    depth
}

/// The ratio at `depth`, from that at `depth - 1`.
fn deeper(depth: usize, ratio: f64, offered_load: f64) -> f64 {
    offered_load * ratio / (depth as f64 + offered_load * ratio)
}
