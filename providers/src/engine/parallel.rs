//! Looks that wait for others, several at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The most looks at a time: they wait for machines that answer, not for processors.
const MAX_LOOKS: usize = 16;

/// What `look` says of each item, in their order. Blocks until it has looked at all.
pub(super) fn look_at<T: Sync, R: Send>(items: &[T], look: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut seen = Vec::new();
        while let number = next.fetch_add(1, Ordering::Relaxed)
            && let Some(item) = items.get(number)
        {
            seen.push((number, look(item)));
        }
        seen
    };
    let mut seen: Vec<_> = std::thread::scope(|scope| {
        let others = 1..MAX_LOOKS.min(items.len());
        // Without a thread more this one does it all.
        let others: Vec<_> = others
            .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut seen = work();
        for other in others {
            match other.join() {
                Ok(more) => seen.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        seen
    });
    seen.sort_unstable_by_key(|(number, _)| *number);
    seen.into_iter().map(|(_, said)| said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_looked_at_once_and_in_order() {
        for count in [0, 1, 2, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let looks = AtomicUsize::new(0);
            let doubled = look_at(&items, |item| {
                looks.fetch_add(1, Ordering::Relaxed);
                item * 2
            });
            assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
            assert_eq!(looks.into_inner(), count);
        }
    }
}
