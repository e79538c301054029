//! A thread that has something to do now and then: it sleeps until a time comes or somebody wakes it, and can be stopped and started
//! again. Delays, timers, transactions and the scrub have one each.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::error;

/// The thread, while there is one. Dropped, it stops it.
pub(crate) struct Worker {
    name: &'static str,
    bell: Arc<Bell>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// One that does not run yet.
    pub(crate) fn new(name: &'static str) -> Worker {
        Worker { name, bell: Arc::default(), thread: Mutex::new(None) }
    }

    /// Has `run` called on a thread of its own, unless one is at work. It must return soon after [`Bell::begins`] says no; it may
    /// return by itself, and can be started again then.
    pub(crate) fn start(&self, run: impl FnOnce(&Arc<Bell>) + Send + 'static) -> io::Result<()> {
        let mut thread = self.thread.lock();
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        join(thread.take());
        *self.bell.state.lock() = State::default();
        let (name, bell) = (self.name, Arc::clone(&self.bell));
        let run = move || {
            // Told right away: nobody looks at a thread that is gone before the broker stops.
            if catch_unwind(AssertUnwindSafe(|| run(&bell))).is_err() {
                error!(
                    thread = name,
                    "a thread panicked and does its work no more; started again, it goes on from what was saved"
                );
            }
        };
        *thread = Some(std::thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// By which it is woken, whether it runs or not.
    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Ends the thread, and waits until it has ended. Not to be called by itself.
    pub(crate) fn stop(&self) {
        let mut thread = self.thread.lock();
        self.bell.state.lock().stopping = true;
        self.bell.rung.notify_all();
        join(thread.take());
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    // It has told of a panic itself.
    let _ = thread.map(JoinHandle::join);
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Wakes a worker.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// For what it sleeps, as a time in ms by whichever clock it goes; `None` while it works.
    sleeps_until: Option<i64>,
    woken: bool,
    stopping: bool,
}

impl Bell {
    /// It begins to look for what there is to do: whoever wakes it from now on makes it look again. False when it is to end.
    pub(crate) fn begins(&self) -> bool {
        let mut state = self.state.lock();
        (state.woken, state.sleeps_until) = (false, None);
        !state.stopping
    }

    /// For who works for long.
    pub(crate) fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }

    /// There is something to be looked at.
    pub(crate) fn wake(&self) {
        self.wake_before(i64::MIN);
    }

    /// Wakes it if it would sleep beyond `due_ms`. That it works does not matter: then it looks again.
    pub(crate) fn wake_before(&self, due_ms: i64) {
        let mut state = self.state.lock();
        if state.sleeps_until.is_none_or(|until| due_ms < until) {
            state.woken = true;
            self.rung.notify_one();
        }
    }

    /// Sleeps until somebody wakes it who comes before `until_ms`, or it is stopped, for `time` at most. Not at all if that has
    /// happened since it began.
    pub(crate) fn sleep(&self, until_ms: i64, time: Option<Duration>) {
        let mut state = self.state.lock();
        if state.woken || state.stopping {
            return;
        }
        state.sleeps_until = Some(until_ms);
        let sleeps_on = |state: &mut State| !state.woken && !state.stopping;
        match time {
            Some(time) => _ = self.rung.wait_while_for(&mut state, sleeps_on, time),
            None => self.rung.wait_while(&mut state, sleeps_on),
        }
    }

    /// Sleeps after a failure: only a stop cuts it short, so that what fails is not tried as often as somebody rings.
    pub(crate) fn pause(&self, time: Duration) {
        let mut state = self.state.lock();
        // It looks at everything afterwards, so nobody need wake it.
        state.sleeps_until = Some(i64::MIN);
        self.rung.wait_while_for(&mut state, |state| !state.stopping, time);
    }

    /// For tests: it has looked at everything, and waits.
    #[cfg(test)]
    pub(crate) fn sleeps(&self) -> bool {
        let state = self.state.lock();
        state.sleeps_until.is_some() && !state.woken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use proptest::prelude::*;

    use super::*;
    use crate::testing::wait_until;

    #[derive(Clone, Copy, Debug)]
    enum Call {
        Start,
        /// Of one that ends by itself.
        StartShort,
        /// Of one that panics.
        StartBad,
        Wake,
        /// By somebody who comes too late to matter.
        WakeLate,
        Stop,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever was before: a worker that was started looks for work once and after each wake-up, as long as it is not stopped.
        #[test]
        fn a_worker_does_as_it_is_told_again_and_again(
            calls in proptest::collection::vec(
                prop_oneof![
                    3 => Just(Call::Start), 1 => Just(Call::StartShort), 1 => Just(Call::StartBad),
                    4 => Just(Call::Wake), 2 => Just(Call::WakeLate), 2 => Just(Call::Stop),
                ],
                1..30,
            ),
        ) {
            let worker = Worker::new("test");
            let looks = Arc::new(AtomicUsize::new(0));
            let at_work = Arc::new(AtomicUsize::new(0));
            let mut runs = false;
            for call in calls {
                let before = looks.load(SeqCst);
                let looked = Arc::clone(&looks);
                let working = Arc::clone(&at_work);
                match call {
                    Call::Start => {
                        worker.start(move |bell| {
                            assert_eq!(working.fetch_add(1, SeqCst), 0, "two at a time");
                            while bell.begins() {
                                looked.fetch_add(1, SeqCst);
                                bell.sleep(10, None);
                            }
                            working.fetch_sub(1, SeqCst);
                        }).unwrap();
                        if !runs {
                            wait_until("it does not begin", || looks.load(SeqCst) > before);
                        }
                        runs = true;
                    }
                    Call::StartShort => worker.start(|_| ()).unwrap(),
                    Call::StartBad => worker.start(|_| panic!("as the test wants")).unwrap(),
                    Call::Wake => worker.bell().wake(),
                    Call::WakeLate => worker.bell().wake_before(10),
                    Call::Stop => {
                        worker.stop();
                        prop_assert_eq!(at_work.load(SeqCst), 0);
                        runs = false;
                    }
                }
                if runs {
                    if matches!(call, Call::Wake) {
                        wait_until("it is not woken", || looks.load(SeqCst) > before);
                    }
                    wait_until("it does not sleep", || worker.bell().sleeps());
                } else {
                    wait_until("it does not end", || worker.thread.lock().as_ref().is_none_or(JoinHandle::is_finished));
                    prop_assert_eq!(looks.load(SeqCst), before);
                }
            }
        }
    }

    /// Counts what the worker `panics-at-once` tells.
    struct Listening(Arc<AtomicUsize>);

    impl tracing::field::Visit for Listening {
        fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}

        fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
            if field.name() == "thread" && value == "panics-at-once" {
                self.0.fetch_add(1, SeqCst);
            }
        }
    }

    impl tracing::Subscriber for Listening {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::ERROR && metadata.target().ends_with("::worker")
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            event.record(&mut Listening(Arc::clone(&self.0)));
        }
    }

    #[test]
    fn a_panic_is_told_of_when_it_happens() {
        let told = Arc::new(AtomicUsize::new(0));
        // The worker's thread is another one, so for all of them.
        tracing::subscriber::set_global_default(Listening(Arc::clone(&told))).unwrap();
        let worker = Worker::new("panics-at-once");
        worker.start(|_| panic!("as the test wants")).unwrap();
        wait_until("the log does not say it", || told.load(SeqCst) == 1);
        worker.stop();
        assert_eq!(told.load(SeqCst), 1);
    }

    #[test]
    fn a_pause_ends_with_its_time_or_a_stop_and_nobody_else_ends_it() {
        let worker = Worker::new("test");
        let paused = Arc::new(AtomicUsize::new(0));
        let pauses = |time: Duration| {
            let paused = Arc::clone(&paused);
            move |bell: &Arc<Bell>| {
                while bell.begins() {
                    bell.pause(time);
                    paused.fetch_add(1, SeqCst);
                }
            }
        };
        worker.start(pauses(Duration::from_secs(3600))).unwrap();
        wait_until("it does not pause", || worker.bell().sleeps());
        for _ in 0..1000 {
            worker.bell().wake();
        }
        assert_eq!(paused.load(SeqCst), 0);
        worker.stop();
        assert_eq!(paused.load(SeqCst), 1);
        worker.start(pauses(Duration::from_millis(1))).unwrap();
        wait_until("its pauses do not end", || paused.load(SeqCst) > 3);
    }
}
