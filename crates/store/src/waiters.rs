//! Callbacks that wait until a mark of the commit log, such as how far it is flushed, has passed a place.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// Why a message did not become safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSafe {
    /// It may still get to the disk later. Java: FLUSH_DISK_TIMEOUT.
    #[error("it was not on the disk in time")]
    DiskTimedOut,
    /// The sync failed, or the store closed before it, or the log was truncated and has it no more.
    #[error("it could not be brought to the disk")]
    Failed,
}

pub type Completion = Box<dyn FnOnce(Result<(), NotSafe>) + Send>;

struct Waiter {
    end: u64,
    deadline: Instant,
    done: Completion,
}

/// Waiters that nobody else tells any more.
#[must_use = "they wait to be told"]
pub struct Taken(VecDeque<Waiter>);

impl Taken {
    pub fn fail(self) {
        for waiter in self.0 {
            (waiter.done)(Err(NotSafe::Failed));
        }
    }
}

/// Callbacks in the order of the places that they wait for, so that a mark that moves completes a prefix. None runs under the lock.
#[derive(Default)]
pub struct Waiters {
    /// Ordered by end.
    list: Mutex<VecDeque<Waiter>>,
    /// How many. Read without the lock to see whether there are any.
    count: AtomicUsize,
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiters").field(&self.count).finish()
    }
}

impl Waiters {
    fn change<T>(&self, change: impl FnOnce(&mut VecDeque<Waiter>) -> T) -> T {
        let mut list = self.list.lock();
        let result = change(&mut list);
        self.count.store(list.len(), Ordering::Release);
        result
    }

    /// True if it is the only one now. After `is_closed` nobody would tell it: whoever closes calls [`Waiters::fail_all`] after it.
    pub fn add(&self, end: u64, deadline: Instant, done: Completion, is_closed: impl FnOnce() -> bool) -> bool {
        let added = self.change(|list| {
            if is_closed() {
                return Err(done);
            }
            let is_first = list.is_empty();
            let at = list.partition_point(|waiter| waiter.end <= end);
            list.insert(at, Waiter { end, deadline, done });
            Ok(is_first)
        });
        added.unwrap_or_else(|done| {
            done(Err(NotSafe::Failed));
            false
        })
    }

    /// Whoever has added one sees it here, and so does whoever was woken after that.
    pub fn are_there(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// The place that is waited for first.
    pub fn first_end(&self) -> Option<u64> {
        self.list.lock().front().map(|waiter| waiter.end)
    }

    /// Tells those who wait for places up to `mark`.
    pub fn complete(&self, mark: u64) {
        let done: Vec<Waiter> = self.change(|list| {
            let count = list.partition_point(|waiter| waiter.end <= mark);
            list.drain(..count).collect()
        });
        for waiter in done {
            (waiter.done)(Ok(()));
        }
    }

    /// Tells those whose time is up; when the next one's will be.
    pub fn expire(&self, now: Instant, why: NotSafe) -> Option<Instant> {
        let mut late = VecDeque::new();
        let next = self.change(|list| {
            if list.iter().any(|waiter| waiter.deadline <= now) {
                let (timed_out, left) = list.drain(..).partition(|waiter| waiter.deadline <= now);
                (late, *list) = (timed_out, left);
            }
            list.iter().map(|waiter| waiter.deadline).min()
        });
        for waiter in late {
            (waiter.done)(Err(why));
        }
        next
    }

    pub fn fail_all(&self) {
        Taken(self.change(std::mem::take)).fail();
    }

    /// Takes those off the list that wait for places behind `mark`, which the log has no more. They are told once no lock is held.
    pub fn take_behind(&self, mark: u64) -> Taken {
        Taken(self.change(|list| list.split_off(list.partition_point(|waiter| waiter.end <= mark))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_is_told_once_in_the_order_of_the_places() {
        let (waiters, (sender, told)) = (Waiters::default(), mpsc::channel());
        let now = Instant::now();
        let add = |end: u64, ms: u64| {
            let sender = sender.clone();
            let done = Box::new(move |outcome| sender.send((end, outcome)).unwrap());
            waiters.add(end, now + Duration::from_millis(ms), done, || false)
        };
        let told = || told.try_iter().collect::<Vec<_>>();
        assert!(add(30, 5));
        assert!(!add(10, 50));
        assert!(!add(20, 500));
        assert!(!add(20, 40));
        assert_eq!((waiters.first_end(), told()), (Some(10), vec![]));
        assert_eq!(
            waiters.expire(now + Duration::from_millis(5), NotSafe::DiskTimedOut),
            Some(now + Duration::from_millis(40))
        );
        assert_eq!(told(), [(30, Err(NotSafe::DiskTimedOut))]);
        assert!(!add(40, 500));
        let gone = waiters.take_behind(20);
        assert_eq!(told(), []);
        gone.fail();
        assert_eq!(told(), [(40, Err(NotSafe::Failed))]);
        waiters.complete(9);
        waiters.complete(20);
        assert_eq!(told(), [(10, Ok(())), (20, Ok(())), (20, Ok(()))]);
        assert!(!waiters.are_there());
        assert!(add(40, 5));
        waiters.fail_all();
        assert!(!waiters.add(
            50,
            now,
            Box::new({
                let sender = sender.clone();
                move |outcome| sender.send((50, outcome)).unwrap()
            }),
            || true
        ));
        assert_eq!(told(), [(40, Err(NotSafe::Failed)), (50, Err(NotSafe::Failed))]);
    }
}
