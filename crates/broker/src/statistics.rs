//! What the broker counts: messages in and out per topic and group, rates, and the totals at the turn of the day.
//!
//! Counting is a look-up in a table of the calling thread's own and three atomic additions: no lock, no allocation. Once a second
//! [`Statistics::tick`] turns the counters into rates; it takes `now`. Nothing here survives a restart, as in Java.
//! Java: `BrokerStatsManager`, `StatsItem`, `StoreStatsService`, `BrokerStats`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ferromq_protocol::body::{BrokerStatsData, BrokerStatsItem};
use ferromq_protocol::topics as topic_names;
use ferromq_store::{AppendedMessage, StoreStats};
use foldhash::HashMap;
use parking_lot::{Mutex, RwLock};

/// Milliseconds between two samples of the minute, the hour and the day, and how many samples each keeps.
const MINUTE: (i64, usize) = (10_000, 7);
const HOUR: (i64, usize) = (600_000, 7);
const DAY: (i64, usize) = (3_600_000, 25);
/// Samples kept for the rates of the store, one per second.
const RATE_SAMPLES: usize = 602;
/// Milliseconds over which put latencies are gathered. Java: `printTPSInterval`.
const LATENCY_WINDOW: i64 = 60_000;
/// Topics, and groups of each, that a thread remembers the counters of; with more it starts over.
const CACHED_TOPICS_MAX: usize = 4096;
const CACHED_GROUPS_MAX: usize = 4096;

/// How many counters of their own there may be: whoever may use a topic can invent groups, and a message given back names any topic. What is
/// beyond is part of the sums but has no figures of its own.
#[derive(Clone, Copy, Debug)]
struct NameLimits {
    topics: usize,
    /// Of all topics together.
    groups: usize,
}

const LIMITS: NameLimits = NameLimits { topics: 200_000, groups: 200_000 };

/// Counters of one broker.
pub struct Statistics {
    /// Changes when counters are thrown away; unique over all instances, so that no thread counts for a former one.
    generation: AtomicU64,
    tables: RwLock<Tables>,
    limits: NameLimits,
    /// Counters of groups, in all topics.
    group_count: AtomicUsize,
    timers_entered: AtomicU64,
    timers_delivered: AtomicU64,
    rates: Mutex<Rates>,
    days: Mutex<Days>,
}

#[derive(Default)]
struct Tables {
    topics: HashMap<Box<str>, Arc<TopicMeters>>,
    /// What removed topics had counted, so that totals never go back.
    removed: Totals,
    /// For topics that have none of their own.
    others: Arc<TopicMeters>,
    broker: BrokerMeters,
}

/// Counters of one topic.
#[derive(Default)]
struct TopicMeters {
    sent: Meter,
    groups: RwLock<HashMap<Box<str>, Arc<GroupMeters>>>,
    /// For groups that have none of their own.
    other_groups: Arc<GroupMeters>,
    /// These are of many topics, which come and go: no group has any of its own.
    of_others: bool,
}

/// Counters of one group in one topic.
#[derive(Default)]
struct GroupMeters {
    delivered: Meter,
    sent_back: Meter,
}

/// The broker's own sums, as samples only: the values are added up from the topics.
#[derive(Default)]
struct BrokerMeters {
    sent: Mutex<History>,
    delivered: Mutex<History>,
}

/// Messages in and out of user topics and of all topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub sent: u64,
    pub delivered: u64,
    /// Without system topics.
    pub user_sent: u64,
    pub user_delivered: u64,
}

/// Totals of user topics at the last two turns of the day, and now. Zero until the broker has seen a midnight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DailyTotals {
    pub sent_yesterday_morning: u64,
    pub sent_today_morning: u64,
    pub sent_now: u64,
    pub delivered_yesterday_morning: u64,
    pub delivered_today_morning: u64,
    pub delivered_now: u64,
}

/// Rates of the store and of messages for a given time over 10 s, 60 s and 600 s, per second. `None` until the broker has run that long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoreRates {
    pub put: [Option<f64>; 3],
    pub found: [Option<f64>; 3],
    pub missed: [Option<f64>; 3],
    pub transferred: [Option<f64>; 3],
    pub timers_entered: [Option<f64>; 3],
    pub timers_delivered: [Option<f64>; 3],
}

impl Statistics {
    pub fn new() -> Statistics {
        Statistics::with_limits(LIMITS)
    }

    fn with_limits(limits: NameLimits) -> Statistics {
        Statistics {
            generation: AtomicU64::new(next_generation()),
            tables: RwLock::new(Tables {
                others: Arc::new(TopicMeters { of_others: true, ..TopicMeters::default() }),
                ..Tables::default()
            }),
            limits,
            group_count: AtomicUsize::new(0),
            timers_entered: AtomicU64::new(0),
            timers_delivered: AtomicU64::new(0),
            rates: Mutex::new(Rates::default()),
            days: Mutex::new(Days::default()),
        }
    }

    /// One accepted send: `messages` records of together `bytes` bytes.
    pub fn sent(&self, topic: &str, messages: u64, bytes: u64) {
        self.with_topic(topic, |cached| cached.meters.sent.add(messages, bytes));
    }

    /// One message that was stored for `topic`.
    pub fn stored(&self, topic: &str, appended: &AppendedMessage) {
        self.sent(topic, 1, appended.record_len as u64);
    }

    /// One answered pull.
    pub fn delivered(&self, topic: &str, group: &str, messages: u64, bytes: u64) {
        self.with_topic(topic, |cached| self.with_group(cached, group, |meters| meters.delivered.add(messages, bytes)));
    }

    /// One message that a consumer gave back.
    pub fn sent_back(&self, topic: &str, group: &str) {
        self.with_topic(topic, |cached| self.with_group(cached, group, |meters| meters.sent_back.add(1, 0)));
    }

    /// Forgets a topic. Java: `onTopicDeleted`.
    pub fn remove_topic(&self, topic: &str) {
        let mut tables = self.tables.write();
        if let Some(meters) = tables.topics.remove(topic) {
            tables.removed = add(tables.removed, meters.totals(topic));
            self.group_count.fetch_sub(meters.groups.read().len(), Ordering::Relaxed);
            self.generation.store(next_generation(), Ordering::Release);
        }
    }

    /// Whether anything is counted for a topic.
    pub fn knows_topic(&self, topic: &str) -> bool {
        self.tables.read().topics.contains_key(topic)
    }

    /// Forgets a group in every topic. Java: `onGroupDeleted`.
    pub fn remove_group(&self, group: &str) {
        let mut tables = self.tables.write();
        let mut removed = Totals::default();
        for (topic, meters) in &tables.topics {
            if let Some(gone) = meters.groups.write().remove(group) {
                removed = add(removed, gone.totals(topic));
                self.group_count.fetch_sub(1, Ordering::Relaxed);
            }
        }
        tables.removed = add(tables.removed, removed);
        self.generation.store(next_generation(), Ordering::Release);
    }

    /// Messages per second sent to a topic, over the last minute.
    pub fn sent_per_second(&self, topic: &str) -> f64 {
        self.tables.read().topics.get(topic).map_or(0.0, |meters| meters.sent.data(Unit::Messages).stats_minute.tps)
    }

    /// Messages per second a group got from a topic, over the last minute.
    pub fn delivered_per_second(&self, topic: &str, group: &str) -> f64 {
        self.group_meters(topic, group).map_or(0.0, |meters| meters.delivered.data(Unit::Messages).stats_minute.tps)
    }

    /// The figures that VIEW_BROKER_STATS_DATA names; `None` when nothing of that name was counted yet, as in Java, where the first
    /// count makes them (`StatsItemSet.getAndCreateStatsItem`). `cluster` is the key of the broker's own sums.
    pub fn view(&self, name: &str, key: &str, cluster: &str) -> Option<BrokerStatsData> {
        let of_topic = |unit| self.tables.read().topics.get(key).and_then(|meters| meters.sent.counted(unit));
        let group_meters = || key.split_once('@').and_then(|(topic, group)| self.group_meters(topic, group));
        let of_group = |unit| group_meters().and_then(|meters| meters.delivered.counted(unit));
        match name {
            "TOPIC_PUT_NUMS" => of_topic(Unit::Messages),
            "TOPIC_PUT_SIZE" => of_topic(Unit::Bytes),
            "GROUP_GET_NUMS" => of_group(Unit::Messages),
            "GROUP_GET_SIZE" => of_group(Unit::Bytes),
            "SNDBCK_PUT_NUMS" => group_meters().and_then(|meters| meters.sent_back.counted(Unit::Messages)),
            "BROKER_PUT_NUMS" if key == cluster && self.totals().sent > 0 => {
                Some(self.tables.read().broker.sent.lock().data(|sample| sample.messages))
            }
            "BROKER_GET_NUMS" if key == cluster && self.totals().delivered > 0 => {
                Some(self.tables.read().broker.delivered.lock().data(|sample| sample.messages))
            }
            _ => None,
        }
    }

    /// A message for a given time has come to wait for it.
    pub fn timer_entered(&self) {
        self.timers_entered.fetch_add(1, Ordering::Relaxed);
    }

    /// It has come into its topic.
    pub fn timer_delivered(&self) {
        self.timers_delivered.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages in and out since the start.
    pub fn totals(&self) -> Totals {
        self.tables.read().totals()
    }

    pub fn daily(&self) -> DailyTotals {
        let now = self.totals();
        let days = self.days.lock();
        DailyTotals {
            sent_yesterday_morning: days.yesterday.user_sent,
            sent_today_morning: days.today.user_sent,
            sent_now: now.user_sent,
            delivered_yesterday_morning: days.yesterday.user_delivered,
            delivered_today_morning: days.today.user_delivered,
            delivered_now: now.user_delivered,
        }
    }

    pub fn store_rates(&self) -> StoreRates {
        self.rates.lock().rates()
    }

    /// Appends per latency bucket in the last whole minute.
    pub fn put_latency(&self) -> [u64; 13] {
        self.rates.lock().last_window
    }

    /// Takes samples; to be called about once a second. `now_ms` is of a clock that only goes forward. `today` is any number that changes at local midnight.
    pub fn tick(&self, now_ms: i64, today: i64, store: &StoreStats) {
        let timers = [&self.timers_entered, &self.timers_delivered].map(|count| count.load(Ordering::Relaxed));
        self.rates.lock().sample(now_ms, store, timers);
        let totals = {
            let tables = self.tables.read();
            for meters in tables.topics.values() {
                meters.sent.sample(now_ms);
                for group in meters.groups.read().values() {
                    group.delivered.sample(now_ms);
                    group.sent_back.sample(now_ms);
                }
            }
            let totals = tables.totals();
            tables.broker.sent.lock().sample(Sample {
                at_ms: now_ms,
                messages: totals.sent,
                bytes: 0,
                calls: totals.sent,
            });
            tables.broker.delivered.lock().sample(Sample {
                at_ms: now_ms,
                messages: totals.delivered,
                bytes: 0,
                calls: totals.delivered,
            });
            totals
        };
        self.days.lock().turn(today, totals);
    }

    fn group_meters(&self, topic: &str, group: &str) -> Option<Arc<GroupMeters>> {
        let tables = self.tables.read();
        let groups = tables.topics.get(topic)?.groups.read();
        groups.get(group).cloned()
    }

    /// Runs `count` with the topic's counters, found in the thread's own table.
    fn with_topic(&self, topic: &str, count: impl FnOnce(&mut CachedTopic)) {
        CACHE.with_borrow_mut(|cache| {
            let generation = self.generation.load(Ordering::Acquire);
            if cache.generation != generation || cache.topics.len() > CACHED_TOPICS_MAX {
                cache.topics.clear();
                cache.generation = generation;
            }
            if let Some(cached) = cache.topics.get_mut(topic) {
                return count(cached);
            }
            let mut cached = CachedTopic { meters: self.topic_meters(topic), groups: HashMap::default() };
            count(&mut cached);
            cache.topics.insert(topic.into(), cached);
        });
    }

    fn topic_meters(&self, topic: &str) -> Arc<TopicMeters> {
        {
            let tables = self.tables.read();
            match tables.topics.get(topic) {
                Some(meters) => return Arc::clone(meters),
                None if tables.topics.len() >= self.limits.topics => return Arc::clone(&tables.others),
                None => {}
            }
        }
        let mut tables = self.tables.write();
        if tables.topics.len() >= self.limits.topics && !tables.topics.contains_key(topic) {
            return Arc::clone(&tables.others);
        }
        Arc::clone(tables.topics.entry(topic.into()).or_default())
    }

    /// Room that comes later comes with another generation, so that a thread may remember these.
    fn group_meters_of(&self, topic: &TopicMeters, group: &str) -> Arc<GroupMeters> {
        let is_full = || self.group_count.load(Ordering::Relaxed) >= self.limits.groups;
        if topic.of_others {
            return Arc::clone(&topic.other_groups);
        }
        if let Some(known) = topic.groups.read().get(group) {
            return Arc::clone(known);
        }
        if is_full() {
            return Arc::clone(&topic.other_groups);
        }
        let mut groups = topic.groups.write();
        match groups.get(group) {
            Some(known) => Arc::clone(known),
            None if is_full() => Arc::clone(&topic.other_groups),
            None => {
                self.group_count.fetch_add(1, Ordering::Relaxed);
                let new = Arc::<GroupMeters>::default();
                groups.insert(group.into(), Arc::clone(&new));
                new
            }
        }
    }

    /// Runs `count` with the counters of a group, found in the topic's table of the thread.
    fn with_group(&self, cached: &mut CachedTopic, group: &str, count: impl FnOnce(&GroupMeters)) {
        if let Some(known) = cached.groups.get(group) {
            return count(known);
        }
        let meters = self.group_meters_of(&cached.meters, group);
        if cached.groups.len() >= CACHED_GROUPS_MAX {
            cached.groups.clear();
        }
        count(&meters);
        cached.groups.insert(group.into(), meters);
    }
}

impl Default for Statistics {
    fn default() -> Statistics {
        Statistics::new()
    }
}

impl Tables {
    fn totals(&self) -> Totals {
        let others = add(self.removed, self.others.totals(""));
        self.topics.iter().fold(others, |sum, (topic, meters)| add(sum, meters.totals(topic)))
    }
}

impl TopicMeters {
    fn totals(&self, topic: &str) -> Totals {
        let sent = self.sent.messages.load(Ordering::Relaxed);
        let user_sent = if is_user_topic(topic) { sent } else { 0 };
        let own = Totals { sent, user_sent, ..Totals::default() };
        let own = add(own, self.other_groups.totals(topic));
        self.groups.read().values().fold(own, |sum, group| add(sum, group.totals(topic)))
    }
}

impl GroupMeters {
    fn totals(&self, topic: &str) -> Totals {
        let delivered = self.delivered.messages.load(Ordering::Relaxed);
        let user_delivered = if is_user_topic(topic) { delivered } else { 0 };
        Totals { delivered, user_delivered, ..Totals::default() }
    }
}

fn is_user_topic(topic: &str) -> bool {
    !topic_names::is_system(topic)
}

fn add(a: Totals, b: Totals) -> Totals {
    Totals {
        sent: a.sent + b.sent,
        delivered: a.delivered + b.delivered,
        user_sent: a.user_sent + b.user_sent,
        user_delivered: a.user_delivered + b.user_delivered,
    }
}

fn next_generation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

#[derive(Default)]
struct Cache {
    generation: u64,
    topics: HashMap<Box<str>, CachedTopic>,
}

struct CachedTopic {
    meters: Arc<TopicMeters>,
    groups: HashMap<Box<str>, Arc<GroupMeters>>,
}

/// Which of a meter's sums is asked for.
#[derive(Clone, Copy)]
enum Unit {
    Messages,
    Bytes,
}

/// Something counted: messages, their bytes, and the calls they came with.
#[derive(Default)]
struct Meter {
    messages: AtomicU64,
    bytes: AtomicU64,
    calls: AtomicU64,
    history: Mutex<History>,
}

impl Meter {
    fn add(&self, messages: u64, bytes: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn sample(&self, now_ms: i64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.history.lock().sample(Sample {
            at_ms: now_ms,
            messages: load(&self.messages),
            bytes: load(&self.bytes),
            calls: load(&self.calls),
        });
    }

    /// `None` before the first time.
    fn counted(&self, unit: Unit) -> Option<BrokerStatsData> {
        (self.calls.load(Ordering::Relaxed) > 0).then(|| self.data(unit))
    }

    fn data(&self, unit: Unit) -> BrokerStatsData {
        let history = self.history.lock();
        match unit {
            Unit::Messages => history.data(|sample| sample.messages),
            Unit::Bytes => history.data(|sample| sample.bytes),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at_ms: i64,
    messages: u64,
    bytes: u64,
    calls: u64,
}

/// Samples of one meter over a minute, an hour and a day.
#[derive(Default)]
struct History {
    minute: VecDeque<Sample>,
    hour: VecDeque<Sample>,
    day: VecDeque<Sample>,
}

impl History {
    /// Keeps the sample wherever one is due. A new meter began at zero: for the minute one period ago, as in Java, for hour and day now.
    fn sample(&mut self, sample: Sample) {
        for (samples, (period, kept)) in [(&mut self.minute, MINUTE), (&mut self.hour, HOUR), (&mut self.day, DAY)] {
            match samples.back() {
                Some(last) if sample.at_ms - last.at_ms < period => continue,
                Some(_) => {}
                None if period == MINUTE.0 => {
                    samples.push_back(Sample { at_ms: sample.at_ms - period, ..Sample::default() })
                }
                None => {
                    samples.push_back(Sample { at_ms: sample.at_ms, ..Sample::default() });
                    continue;
                }
            }
            samples.push_back(sample);
            while samples.len() > kept {
                samples.pop_front();
            }
        }
    }

    fn data(&self, value: impl Fn(&Sample) -> u64) -> BrokerStatsData {
        let item = |samples: &VecDeque<Sample>| {
            // Up to the newest sample there is: Java leaves out what came since the last one of the hour or day.
            let (Some(first), Some(last)) = (samples.front(), self.minute.back()) else {
                return BrokerStatsItem::default();
            };
            let sum = value(last).saturating_sub(value(first));
            let elapsed = last.at_ms - first.at_ms;
            let calls = last.calls.saturating_sub(first.calls);
            BrokerStatsItem {
                sum: i64::try_from(sum).unwrap_or(i64::MAX),
                tps: if elapsed > 0 { sum as f64 * 1000.0 / elapsed as f64 } else { 0.0 },
                average_per_call: if calls > 0 { sum as f64 / calls as f64 } else { 0.0 },
            }
        };
        BrokerStatsData { stats_minute: item(&self.minute), stats_hour: item(&self.hour), stats_day: item(&self.day) }
    }
}

/// The store's counters second by second.
#[derive(Default)]
struct Rates {
    samples: VecDeque<StoreSample>,
    window_since: Option<i64>,
    window_start: [u64; 13],
    last_window: [u64; 13],
}

#[derive(Clone, Copy)]
struct StoreSample {
    at_ms: i64,
    put: u64,
    found: u64,
    missed: u64,
    transferred: u64,
    timers_entered: u64,
    timers_delivered: u64,
}

impl Rates {
    fn sample(&mut self, now_ms: i64, store: &StoreStats, [timers_entered, timers_delivered]: [u64; 2]) {
        self.samples.push_back(StoreSample {
            at_ms: now_ms,
            put: store.put_count,
            found: store.reads_found,
            missed: store.reads_missed,
            transferred: store.read_count,
            timers_entered,
            timers_delivered,
        });
        while self.samples.len() > RATE_SAMPLES {
            self.samples.pop_front();
        }
        let since = *self.window_since.get_or_insert(now_ms);
        if now_ms - since >= LATENCY_WINDOW {
            self.last_window =
                std::array::from_fn(|bucket| store.put_latency[bucket].saturating_sub(self.window_start[bucket]));
            self.window_start = store.put_latency;
            self.window_since = Some(now_ms);
        }
    }

    fn rates(&self) -> StoreRates {
        let rate = |value: fn(&StoreSample) -> u64| {
            [10, 60, 600].map(|seconds| {
                let last = self.samples.back()?;
                let before = self.samples.get(self.samples.len().checked_sub(seconds + 1)?)?;
                let elapsed = last.at_ms - before.at_ms;
                (elapsed > 0).then(|| value(last).saturating_sub(value(before)) as f64 * 1000.0 / elapsed as f64)
            })
        };
        StoreRates {
            put: rate(|sample| sample.put),
            found: rate(|sample| sample.found),
            missed: rate(|sample| sample.missed),
            transferred: rate(|sample| sample.transferred),
            timers_entered: rate(|sample| sample.timers_entered),
            timers_delivered: rate(|sample| sample.timers_delivered),
        }
    }
}

/// Totals at the last two turns of the day.
#[derive(Default)]
struct Days {
    day: Option<i64>,
    yesterday: Totals,
    today: Totals,
}

impl Days {
    fn turn(&mut self, day: i64, totals: Totals) {
        if self.day.is_some_and(|before| before != day) {
            self.yesterday = self.today;
            self.today = totals;
        }
        self.day = Some(day);
    }
}

#[cfg(test)]
#[path = "statistics_test.rs"]
mod tests;
