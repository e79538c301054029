//! All tables together against a model: saves fail and succeed again, and a copy of the directory, which is what a killed broker leaves,
//! has everything that was told to be saved. What waits there for its time comes, also if nothing says so that it has come before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ferromq_protocol::message::Records;
use ferromq_protocol::topics::{SCHEDULE_TOPIC, TIMER_TOPIC};
use ferromq_protocol::{QueueId, QueueOffset};
use ferromq_store::{AllMessages, Clock, DelayLevels, Disk, Effort, ReadLimits, Store, StoreConfig};
use proptest::prelude::*;

use crate::config::BrokerConfig;
use crate::consumer_offsets::ConsumerOffsets;
use crate::delay::{DelayParts, Delays};
use crate::groups::{self, Groups};
use crate::live_config::LiveConfig;
use crate::persistence::Persistence;
use crate::statistics::Statistics;
use crate::testing::{TroubledDisk, copy_at_an_instant, eager_persistence, message, wait_until};
use crate::timers::Timers;
use crate::topics::{self, Topics, perm};

/// What is kept, and the file that it is kept in.
const TABLES: [(What, &str); 6] = [
    (What::Topic, "topics.json"),
    (What::Group, "subscriptionGroup.json"),
    (What::Forbidden, "subscriptionGroup.json"),
    (What::Offset, "consumerOffset.json"),
    (What::Delay, "delayOffset.json"),
    (What::Timer, "timers/checkpoint"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Topic,
    Group,
    Forbidden,
    Offset,
    /// How far delayed messages are delivered.
    Delay,
    /// How far messages for a given time are entered and delivered.
    Timer,
}

impl What {
    fn file(self) -> &'static str {
        TABLES.iter().find(|(what, _)| *what == self).unwrap().1
    }

    /// Where the messages of this kind come.
    fn topic(self) -> &'static str {
        if self == What::Delay { "Delayed" } else { "Timed" }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Saves of this one's file fail from now on, the timers' after so many changes.
    Break(What, usize),
    Mend(What),
    Put(What, u8, i64),
    Remove(What, u8),
    /// A message is stored that is due in so many seconds.
    Wait(What, i64),
    Pass(i64),
    /// How far messages are delivered is to be saved.
    Save(What),
    Kill,
}

const WAITING: [What; 2] = [What::Delay, What::Timer];

fn step() -> impl Strategy<Value = Step> {
    let any = || prop::sample::select(&TABLES[..]).prop_map(|(what, _)| what);
    let table = || prop::sample::select(&TABLES[..4]).prop_map(|(what, _)| what);
    let waiting = || prop::sample::select(&WAITING[..]);
    let name = 0_u8..3;
    prop_oneof![
        3 => (any(), 0_usize..6).prop_map(|(what, changes)| Step::Break(what, changes)),
        3 => any().prop_map(Step::Mend),
        7 => (table(), name.clone(), 1_i64..9).prop_map(|(what, name, value)| Step::Put(what, name, value)),
        2 => (prop::sample::select(&TABLES[..2]), name).prop_map(|((what, _), name)| Step::Remove(what, name)),
        5 => (waiting(), 1_i64..4).prop_map(|(what, seconds)| Step::Wait(what, seconds)),
        3 => (0_i64..3).prop_map(Step::Pass),
        4 => waiting().prop_map(Step::Save),
        2 => Just(Step::Kill),
    ]
}

struct Tables {
    clock_ms: Arc<AtomicI64>,
    disk: Arc<TroubledDisk>,
    store: Arc<Store>,
    topics: Arc<Topics>,
    groups: Arc<Groups>,
    offsets: ConsumerOffsets,
    delays: Arc<Delays>,
    timers: Arc<Timers>,
    /// Last: its threads write what the tables give them.
    _persistence: Persistence,
}

impl Tables {
    fn open(directory: &Path, now_ms: i64) -> Tables {
        let persistence = eager_persistence();
        let config = Arc::new(LiveConfig::new(BrokerConfig::default(), None));
        let topics = Arc::new(Topics::open(directory, &config, &persistence).unwrap());
        let clock_ms = Arc::new(AtomicI64::new(now_ms));
        let time = Arc::clone(&clock_ms);
        let clock = Clock::from_fn(move || time.load(Ordering::SeqCst));
        let disk = Arc::new(TroubledDisk::default());
        let levels = DelayLevels::parse("1s 2s 3s").unwrap();
        let store = StoreConfig {
            segment_len: 1 << 16,
            queue_file_entries: 100,
            index_enabled: false,
            delay_levels: levels.clone(),
            clock: clock.clone(),
            disk: Arc::clone(&disk) as Arc<dyn Disk>,
            ..StoreConfig::at(directory.join("store"))
        };
        let store = Arc::new(Store::open(store).unwrap());
        // Nothing is stored in their topics: these offsets are of topics that this broker does not have.
        let offsets = ConsumerOffsets::open(directory, &config.current(), &topics, &store, &persistence).unwrap();
        let statistics = Arc::new(Statistics::new());
        let parts = DelayParts {
            store: Arc::clone(&store),
            topics: Arc::clone(&topics),
            statistics: Arc::clone(&statistics),
            levels,
            clock: clock.clone(),
            forward: clock.clone(),
        };
        let delays = Arc::new(Delays::open(directory, parts, &persistence).unwrap());
        let (dir, java) = (directory.join("store/timers"), directory.join("timercheck"));
        let timers = Timers::open(dir, &java, clock, Arc::clone(&store), Arc::clone(&topics), statistics).unwrap();
        let timers = Arc::new(timers.saving_every(Duration::from_millis(10)));
        let woken = (Arc::downgrade(&delays), Arc::downgrade(&timers));
        store.on_arrival(move |arrival| {
            if let (Some(delays), Some(timers)) = (woken.0.upgrade(), woken.1.upgrade()) {
                delays.arrived(arrival);
                timers.arrived(arrival);
            }
        });
        delays.start().unwrap();
        timers.start().unwrap();
        Tables {
            clock_ms,
            disk,
            groups: Arc::new(Groups::open(directory, &config, &persistence).unwrap()),
            offsets,
            store,
            topics,
            delays,
            timers,
            _persistence: persistence,
        }
    }

    fn now_ms(&self) -> i64 {
        self.clock_ms.load(Ordering::SeqCst)
    }

    fn pass(&self, ms: i64) {
        self.clock_ms.fetch_add(ms, Ordering::SeqCst);
        // The timers look again by themselves.
        self.delays.clock_moved();
    }

    /// Waits for the save of a table. True if it succeeded.
    fn is_saved(&self, what: What) -> bool {
        let (done, saved) = std::sync::mpsc::channel();
        let done = move |outcome: Result<(), _>| done.send(outcome.is_ok()).unwrap();
        match what {
            What::Topic => return self.topics.wait_saved().is_ok(),
            What::Group | What::Forbidden => self.groups.when_saved(done),
            What::Offset => self.offsets.when_saved(done),
            What::Delay => return self.delays.save_now(),
            What::Timer => unreachable!("they save by themselves"),
        }
        saved.recv().unwrap()
    }

    /// Waits until the timers' checkpoint says that all are entered and what was due by then is delivered. False if it cannot be saved.
    fn are_timers_saved(&self, directory: &Path, entered: i64, due_ms: i64) -> bool {
        let failed = self.disk.refused();
        let is_saved = || {
            // Absent before the first save.
            let file = fs::read(directory.join("store/timers/checkpoint")).unwrap_or_default();
            let number = |bytes: &[u8], at| {
                bytes.get(at..at + 8).map_or(0, |eight| i64::from_be_bytes(eight.try_into().unwrap()))
            };
            // The later one of its two places.
            let bytes = file.chunks(4096).max_by_key(|place| number(place, 52)).unwrap_or_default();
            let number = |at| number(bytes, at);
            number(0) >= entered && number(8) >= due_ms
        };
        wait_until("the timers are not saved", || self.disk.refused() > failed || is_saved());
        is_saved()
    }

    /// Delayed messages that count as delivered.
    fn delayed_delivered(&self) -> u64 {
        self.delays.progress().iter().map(|(_, delivered, _)| delivered.0).sum()
    }

    fn value(&self, key: &Key) -> Option<i64> {
        let topic = topic(key.name);
        match key.what {
            What::Topic => self.topics.find(&topic).map(|topic| topic.read_queue_nums.into()),
            What::Group => self.groups.find(&topic).map(|group| group.retry_max_times.into()),
            What::Forbidden => Some(self.groups.forbidden(&topic, "T").into()).filter(|bits| *bits != 0),
            What::Offset => self.offsets.committed(&elsewhere(key.name), "G", QueueId(0)).map(|offset| offset.as_i64()),
            What::Delay | What::Timer => None,
        }
    }

    fn put(&self, what: What, name: u8, value: i64) {
        let small = i32::try_from(value).unwrap();
        match what {
            What::Topic => {
                self.topics.update(topics::new_config(&topic(name), small, perm::READ_WRITE)).unwrap();
            }
            What::Group => {
                let mut group = groups::new_group(&topic(name));
                group.retry_max_times = small;
                self.groups.update(group);
            }
            What::Forbidden => self.groups.forbid(&topic(name), "T", small).unwrap(),
            _ => _ = self.offsets.commit(&elsewhere(name), "G", QueueId(0), value),
        }
    }

    /// Stores a message that is due in so many seconds; gives when that is.
    fn wait(&self, what: What, seconds: i64, body: &str) -> i64 {
        let due_ms = self.now_ms() + seconds * 1000;
        let place = format!("REAL_TOPIC\u{1}{}\u{2}REAL_QID\u{1}0\u{2}", what.topic());
        let (topic, queue_id, properties) = match what {
            What::Delay => {
                let queue = QueueId(u32::try_from(seconds).unwrap() - 1);
                (SCHEDULE_TOPIC, queue, format!("DELAY\u{1}{seconds}\u{2}{place}"))
            }
            _ => (TIMER_TOPIC, QueueId(0), format!("TIMER_OUT_MS\u{1}{due_ms}\u{2}{place}")),
        };
        self.store.append(&message(topic, queue_id, body.as_bytes(), &properties)).unwrap();
        due_ms
    }

    /// What has come, in its order.
    fn came(&self, what: What) -> Vec<String> {
        let (mut came, mut next) = (Vec::new(), QueueOffset(0));
        while let Ok(read) =
            self.store.read(what.topic(), QueueId(0), next, ReadLimits::count(100), &AllMessages, Effort::Full)
        {
            let records = read.chunks.iter().flat_map(|chunk| Records::new(chunk));
            let before = came.len();
            came.extend(records.map(|record| String::from_utf8(record.unwrap().body().to_vec()).unwrap()));
            if came.len() == before {
                break;
            }
            next = read.next_offset;
        }
        came
    }
}

fn topic(name: u8) -> String {
    format!("Name{name}")
}

/// A topic that is never made here.
fn elsewhere(name: u8) -> String {
    format!("Elsewhere{name}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    what: What,
    name: u8,
}

/// A message that waits for its time, or has come.
#[derive(Debug)]
struct Message {
    what: What,
    body: String,
    due_ms: i64,
    /// Was told to be saved as delivered.
    is_saved: bool,
}

#[derive(Default)]
struct Model {
    /// What may be found of each key: what was last told to be saved, or what was made since.
    values: BTreeMap<Key, BTreeSet<Option<i64>>>,
    messages: Vec<Message>,
}

impl Model {
    fn of(&self, what: What) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(move |message| message.what == what)
    }

    fn changed(&mut self, tables: &Tables, what: What, name: u8, value: Option<i64>) {
        self.values.entry(Key { what, name }).or_insert_with(|| [None].into()).insert(value);
        if what == What::Group && value.is_none() {
            let forbidden = Key { what: What::Forbidden, name };
            self.values.entry(forbidden).or_insert_with(|| [None].into()).insert(tables.value(&forbidden));
        }
        if tables.is_saved(what) {
            // With it everything before that is in the same file.
            for (key, possible) in self.values.iter_mut().filter(|(key, _)| key.what.file() == what.file()) {
                *possible = [tables.value(key)].into();
            }
        }
    }

    /// Waits until what is due has come, each once.
    fn settle(&self, tables: &Tables) -> Result<(), TestCaseError> {
        let now_ms = tables.now_ms();
        for what in WAITING {
            let due: BTreeSet<&str> =
                self.of(what).filter(|message| message.due_ms <= now_ms).map(|message| &*message.body).collect();
            wait_until("what is due does not come", || tables.came(what).len() >= due.len());
            let came = tables.came(what);
            prop_assert_eq!(came.len(), due.len(), "{:?}", came);
            prop_assert_eq!(came.iter().map(|body| &**body).collect::<BTreeSet<_>>(), due);
        }
        Ok(())
    }

    fn save(&mut self, tables: &Tables, directory: &Path, what: What) {
        let now_ms = tables.now_ms();
        let saved = if what == What::Timer {
            let entered = i64::try_from(self.of(what).count()).unwrap();
            let due = self.of(what).map(|message| message.due_ms).filter(|due_ms| *due_ms <= now_ms);
            let due_ms = due.max().unwrap_or(i64::MIN);
            tables.are_timers_saved(directory, entered, due_ms)
        } else {
            // What has come counts as delivered a moment later.
            let due = self.of(what).filter(|message| message.due_ms <= now_ms).count() as u64;
            wait_until("what has come does not count as delivered", || tables.delayed_delivered() >= due);
            tables.is_saved(what)
        };
        if saved {
            let delivered = |message: &&mut Message| message.what == what && message.due_ms <= now_ms;
            self.messages.iter_mut().filter(delivered).for_each(|message| message.is_saved = true);
        }
    }

    /// A broker that is killed leaves the files as they are; nothing is flushed or saved for it.
    fn check(&self, directory: &Path, now_ms: i64) -> Result<(), TestCaseError> {
        let killed = copy_at_an_instant(directory);
        let found = Tables::open(killed.path(), now_ms);
        for (key, possible) in &self.values {
            prop_assert!(possible.contains(&found.value(key)), "{key:?}: {:?}, not {possible:?}", found.value(key));
        }
        // New ones, behind all others in time and place. What the tables are ahead by would have them taken as delivered.
        for what in WAITING {
            for seconds in 1..=3 {
                found.wait(what, seconds, &format!("new {seconds}"));
            }
        }
        found.pass(3_000);
        for what in WAITING {
            wait_until("what is new does not come", || {
                let came = found.came(what);
                (1..=3).all(|seconds| came.contains(&format!("new {seconds}")))
            });
            let came = found.came(what);
            for message in self.of(what) {
                // At most once before the kill and once after it.
                let count = came.iter().filter(|body| **body == message.body).count();
                let most = if message.is_saved || message.due_ms > now_ms { 1 } else { 2 };
                prop_assert!((1..=most).contains(&count), "{count} times {message:?}");
            }
        }
        found.delays.stop();
        found.timers.stop();
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_told_to_be_saved_is_there_after_a_kill(steps in prop::collection::vec(step(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let tables = Tables::open(directory.path(), 1_800_000_000_000);
        for what in [What::Topic, What::Group] {
            // The first save of all.
            prop_assert!(tables.is_saved(what));
        }
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Break(What::Timer, changes) => tables.disk.fill("/timers/checkpoint", changes),
                Step::Mend(What::Timer) => tables.disk.recover(),
                Step::Break(what, _) => {
                    let fresh = directory.path().join(format!("{}.tmp", what.file()));
                    // It may just be written.
                    while !fresh.is_dir() && fs::create_dir(&fresh).is_err() {
                        std::thread::yield_now();
                    }
                }
                Step::Mend(what) => {
                    let fresh = directory.path().join(format!("{}.tmp", what.file()));
                    if fresh.is_dir() {
                        fs::remove_dir(fresh).unwrap();
                    }
                }
                Step::Kill => model.check(directory.path(), tables.now_ms())?,
                Step::Put(what, name, value) => {
                    tables.put(what, name, value);
                    model.changed(&tables, what, name, Some(value));
                }
                Step::Remove(what, name) => {
                    if what == What::Topic {
                        tables.topics.remove(&topic(name));
                    } else {
                        tables.groups.remove(&topic(name));
                    }
                    model.changed(&tables, what, name, None);
                }
                Step::Wait(what, seconds) => {
                    let body = model.messages.len().to_string();
                    let due_ms = tables.wait(what, seconds, &body);
                    model.messages.push(Message { what, body, due_ms, is_saved: false });
                    model.settle(&tables)?;
                }
                Step::Pass(seconds) => {
                    tables.pass(seconds * 1000);
                    model.settle(&tables)?;
                }
                Step::Save(what) => model.save(&tables, directory.path(), what),
            }
        }
        model.check(directory.path(), tables.now_ms())?;
    }
}
