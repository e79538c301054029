//! The same work for many things, on several threads where there are many: most of it is waiting for the disk, which does much at a time.

use parking_lot::Mutex;

const THREADS: usize = 16;
/// Things that are worth a thread.
const WORTH_A_THREAD: usize = 64;
/// So many parts for each thread, as some take longer than others.
const PARTS: usize = 4;

/// Does `work` for all items. The results are in the order of the items.
pub fn for_all<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if items.len() <= WORTH_A_THREAD {
        return items.into_iter().map(work).collect();
    }
    let part_len = items.len().div_ceil(THREADS * PARTS).max(WORTH_A_THREAD);
    let threads = items.len().div_ceil(part_len).min(THREADS);
    let left = Mutex::new((0, items.into_iter()));
    let next = || {
        let (number, items) = &mut *left.lock();
        *number += 1;
        (*number, items.take(part_len).collect::<Vec<T>>())
    };
    let done = Mutex::new(Vec::new());
    let work_on = || {
        loop {
            let (number, part) = next();
            if part.is_empty() {
                return;
            }
            let results: Vec<R> = part.into_iter().map(&work).collect();
            done.lock().push((number, results));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let thread = std::thread::Builder::new().name("store-several".to_owned());
            if let Err(error) = thread.spawn_scoped(scope, work_on) {
                tracing::warn!(%error, "no thread more to work on queues; those there are do it all");
                break;
            }
        }
        work_on();
    });
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

/// [`for_all`] of who is in no hurry, on the calling thread, which leaves the disk to others; until `hurried` says otherwise.
pub fn one_by_one<T: Send, R: Send>(items: Vec<T>, hurried: &dyn Fn() -> bool, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut results = Vec::with_capacity(items.len());
    let mut items = items.into_iter();
    while !items.as_slice().is_empty() {
        if hurried() {
            results.extend(for_all(items.collect(), work));
            break;
        }
        results.extend(items.by_ref().take(WORTH_A_THREAD).map(&work));
    }
    results
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for count in [0, 1, WORTH_A_THREAD, WORTH_A_THREAD + 1, 10 * THREADS * WORTH_A_THREAD + 7] {
            let doubled = for_all((0..count).collect(), |item| item * 2);
            assert!(doubled.into_iter().eq((0..count).map(|item| item * 2)), "{count}");
        }
    }

    #[test]
    fn many_are_worked_on_at_a_time() {
        // Whoever is first waits for the second.
        let (met, two) = (AtomicUsize::new(0), Barrier::new(2));
        for_all((0..2 * WORTH_A_THREAD).collect(), |item: usize| {
            if item.is_multiple_of(WORTH_A_THREAD) {
                two.wait();
                met.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert_eq!(met.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn what_was_begun_one_by_one_goes_on_on_several_threads() {
        let (begun, count) = (AtomicUsize::new(0), 20 * WORTH_A_THREAD);
        let hurried = || begun.load(Ordering::SeqCst) >= 2 * WORTH_A_THREAD;
        let two = Barrier::new(2);
        let on = one_by_one((0..count).collect(), &hurried, |item: usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            // Of the first two parts after that.
            if item == 2 * WORTH_A_THREAD || item == 3 * WORTH_A_THREAD {
                two.wait();
            }
            (item, thread::current().id())
        });
        assert!(on.iter().map(|(item, _)| *item).eq(0..count));
        let before: HashSet<_> = on[..2 * WORTH_A_THREAD].iter().map(|(_, thread)| *thread).collect();
        assert_eq!(before, HashSet::from([thread::current().id()]));
        assert!(on.iter().any(|(_, thread)| *thread != thread::current().id()));
    }
}
