//! Appends that belong together: one flush and one dispatch for all of them.

use std::cell::Cell;

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::NewMessage;

use super::Store;
use crate::append::{AppendedBatch, AppendedMessage};
use crate::error::AppendError;
use crate::store::writing::{WaitsFor, Want};
use crate::waiters::NotSafe;

/// What is appended for the requests that are served in one go. Nothing is flushed or dispatched for a single one of them;
/// [`Round::flush`] and the end of the round do it for all. Whoever has but one message takes [`Store::append`].
#[derive(Debug)]
pub struct Round<'s> {
    store: &'s Store,
    /// Something is to be shown to consumers.
    appended: Cell<bool>,
    /// Something is to be flushed.
    unflushed: Cell<bool>,
}

impl Store {
    /// Begins a round. It ends when it is dropped.
    pub fn round(&self) -> Round<'_> {
        Round { store: self, appended: Cell::new(false), unflushed: Cell::new(false) }
    }
}

impl Round<'_> {
    /// As [`Store::append`].
    pub fn append(&self, message: &NewMessage<'_>) -> Result<AppendedMessage, AppendError> {
        self.note(self.store.put(message))
    }

    /// As [`Store::append_again`].
    pub fn append_again(&self, message: &NewMessage<'_>) -> Result<AppendedMessage, AppendError> {
        self.note(self.store.put_again(message))
    }

    /// As [`Store::append_batch`].
    pub fn append_batch(&self, messages: &[NewMessage<'_>]) -> Result<AppendedBatch, AppendError> {
        self.note(self.store.put_batch(messages))
    }

    /// As [`Store::is_pool_empty`].
    pub fn is_pool_empty(&self) -> bool {
        self.store.is_pool_empty()
    }

    /// As [`Store::is_safe`].
    pub fn is_safe(&self, end: PhysicalOffset, want: Want) -> bool {
        self.store.is_safe(end, want)
    }

    /// As [`Store::when_safe`], and the flush comes with the round's.
    pub fn when_safe(&self, end: PhysicalOffset, want: Want, done: impl FnOnce(Result<(), NotSafe>) + Send + 'static) {
        if self.store.await_safe(end, want, done) == WaitsFor::Flush {
            self.unflushed.set(true);
        }
    }

    /// Tells other copies of what was appended, and flushes what somebody waits for, on the calling thread if the disk is fast: the time for it is when all requests have been handled,
    /// and before their replies are written.
    pub fn flush(&self) {
        if self.unflushed.take() {
            self.store.tell_growth();
            self.store.flusher.flush_here();
        }
    }

    fn note<T>(&self, result: Result<T, AppendError>) -> Result<T, AppendError> {
        if result.is_ok() {
            self.appended.set(true);
            // What nobody waits for has to get to the disk too, before consumers may see it.
            self.unflushed.set(true);
        }
        result
    }
}

impl Drop for Round<'_> {
    /// Makes what was appended visible to consumers, on the calling thread as far as it is not much: no other thread has to wake up, and
    /// the records are still in this core's cache. What has to be flushed first becomes visible after that.
    fn drop(&mut self) {
        self.flush();
        // What is to be committed first is shown after that.
        if self.appended.get() && !self.store.commits_later() {
            self.store.dispatcher.catch_up();
        }
    }
}
