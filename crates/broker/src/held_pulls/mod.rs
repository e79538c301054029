//! Held pulls: requests that found nothing, kept by topic and queue until a message arrives or their time is up.
//!
//! Only lists: who answers them is `handlers/pull.rs`. Their number is bounded as a whole, per connection, per address, and per connection
//! at one queue, the bytes that they keep as a whole and per address; when full the pull is answered at once. What is held goes with its connection. Whatever happens costs in proportion to the pulls that
//! it takes out, not to those that stay: an arrival looks at the pulls that want its tag. Java: `PullRequestHoldService`.

mod lists;
mod slab;

use std::collections::hash_map;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferromq_protocol::{GroupName, QueueId, QueueOffset, TopicName};
use ferromq_remoting::ConnectionId;
use ferromq_store::Arrival;
use foldhash::HashMap;
use parking_lot::Mutex;

use self::lists::{LinkId, Links, List};
use self::slab::Slab;
use crate::peer::Peer;
use crate::subscription::{Condition, WakeRule};

/// How often deadlines are looked at. Java looks every 5 s.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Characters of different conditions at one queue that are evaluated for each message that arrives there. A pull whose condition does not
/// fit is woken by every message, and looks itself.
const CONDITION_LEN_SUM_MAX: usize = 8 * 1024;

/// Intervals that have a list of deadlines of their own; later ones share theirs with earlier ones.
const DEADLINES: usize = 256;

/// Bytes that held pulls may keep.
const BYTES_MAX: usize = 256 << 20;

/// Most pulls that may be held.
#[derive(Clone, Copy, Debug)]
pub struct HeldPullLimits {
    pub all: usize,
    pub per_address: usize,
    pub per_connection: usize,
    /// Of one connection, at one queue: a consumer waits once for each of its groups.
    pub at_one_queue: usize,
    /// Bytes that they keep.
    pub bytes: usize,
    pub bytes_per_address: usize,
}

impl HeldPullLimits {
    /// `all` of them, of which one address can have half and one connection a quarter.
    pub fn of(all: usize) -> HeldPullLimits {
        HeldPullLimits {
            all,
            per_address: (all / 2).max(1),
            per_connection: (all / 4).max(1),
            at_one_queue: 256,
            bytes: BYTES_MAX,
            bytes_per_address: BYTES_MAX / 2,
        }
    }
}

/// One held request; `P` is what it takes to run it again.
pub struct HeldRequest<P> {
    /// The offset it waits for.
    pub from: QueueOffset,
    pub deadline: Instant,
    pub peer: Peer,
    /// The group whose subscription it goes by; `None` when it brought its own.
    pub subscriber: Option<GroupName>,
    pub wakes: WakeRule,
    /// What it keeps in memory besides itself.
    pub len_bytes: usize,
    pub pull: P,
}

/// Held requests, by topic and queue.
pub struct HeldPulls<P> {
    state: Mutex<State<P>>,
    /// How many are held; read without the lock so that an arrival nobody waits for costs one load.
    count: AtomicUsize,
    limits: HeldPullLimits,
    /// Deadlines are sorted by the number of intervals since then.
    since: Instant,
}

struct State<P> {
    entries: Slab<Entry<P>>,
    links: Links,
    bytes: usize,
    /// By number in `waiting`.
    queues: HashMap<TopicName, HashMap<QueueId, u32>>,
    waiting: Slab<QueueWaiters>,
    /// By number in `of_connection`.
    connections: HashMap<ConnectionId, u32>,
    of_connection: Slab<OfConnection>,
    addresses: HashMap<IpAddr, u32>,
    of_address: Slab<OfAddress>,
    subscribers: HashMap<GroupName, u32>,
    of_subscriber: Slab<OfSubscriber>,
    /// By the interval in which their time is up, going round.
    deadlines: Vec<List>,
    /// The first interval whose list has not been gone through after its end.
    interval: u64,
    /// What nobody may be waiting at any more: it is kept until the next look at deadlines, since most who are woken come again.
    emptied: Vec<EmptyList>,
    /// Numbers that are to be taken out; keeps its room.
    chosen: Vec<u32>,
}

/// A held request and its places in the lists.
struct Entry<P> {
    from: QueueOffset,
    deadline: Instant,
    /// Numbers of its queue, connection and subscriber.
    queue: u32,
    connection: u32,
    subscriber: Option<(u32, LinkId)>,
    of_connection: LinkId,
    /// Number of its list of deadlines.
    slot: usize,
    of_deadline: LinkId,
    waits: WaitingPlace,
    len_bytes: usize,
    pull: P,
}

/// Where in its queue's lists a request is.
enum WaitingPlace {
    Never,
    Any(LinkId),
    Code(i64, LinkId),
    Codes(Vec<(i64, LinkId)>),
    Condition(Arc<Condition>, LinkId),
}

/// The requests that wait at one queue, by what wakes them.
struct QueueWaiters {
    topic: TopicName,
    queue: QueueId,
    count: usize,
    any: List,
    codes: HashMap<i64, List>,
    /// Each once, however many requests have it.
    conditions: Vec<(Arc<Condition>, List)>,
    condition_len_sum: usize,
    is_emptied: bool,
}

/// The requests of one connection.
struct OfConnection {
    id: ConnectionId,
    /// Number of its address.
    address: u32,
    list: List,
    /// How many wait at which queue, as long as there may be too many at one.
    at_queues: Option<HashMap<u32, usize>>,
    is_emptied: bool,
}

/// The requests of one address.
struct OfAddress {
    address: IpAddr,
    /// Connections that are known, with requests or without.
    connections: usize,
    count: usize,
    bytes: usize,
}

/// The requests that go by the subscription of one group.
struct OfSubscriber {
    group: GroupName,
    list: List,
    is_emptied: bool,
}

/// Numbers of what nobody may be waiting at.
enum EmptyList {
    Queue(u32),
    Connection(u32),
    Subscriber(u32),
}

impl<P> HeldPulls<P> {
    pub fn new(limits: HeldPullLimits) -> HeldPulls<P> {
        let state = State {
            entries: Slab::default(),
            links: Links::default(),
            bytes: 0,
            queues: HashMap::default(),
            waiting: Slab::default(),
            connections: HashMap::default(),
            of_connection: Slab::default(),
            addresses: HashMap::default(),
            of_address: Slab::default(),
            subscribers: HashMap::default(),
            of_subscriber: Slab::default(),
            deadlines: vec![List::default(); DEADLINES],
            interval: 0,
            emptied: Vec::new(),
            chosen: Vec::new(),
        };
        HeldPulls { state: Mutex::new(state), count: AtomicUsize::new(0), limits, since: Instant::now() }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Holds a request unless `is_over` says, under the lock that arrivals take, that there is nothing to wait for (its message has come
    /// meanwhile, its connection is closed), or a bound is reached.
    pub fn hold(
        &self,
        topic: &TopicName,
        queue: QueueId,
        held: HeldRequest<P>,
        is_over: impl FnOnce(&P) -> bool,
    ) -> Result<(), P> {
        let interval = self.interval(held.deadline);
        let mut state = self.state.lock();
        // Counted before the check: an arrival that the check does not see yet sees the count.
        let count = self.count.fetch_add(1, Ordering::SeqCst);
        let outcome = if count >= self.limits.all || is_over(&held.pull) {
            Err(held.pull)
        } else {
            state.insert(topic, queue, held, interval, self.limits)
        };
        if outcome.is_err() {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
        outcome
    }

    /// Takes out the requests of the queue that the message wakes.
    pub fn take_woken(&self, arrival: &Arrival<'_>) -> Vec<P> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        self.taken(|state, chosen| {
            let number = state.queues.get(arrival.topic).and_then(|queues| queues.get(&arrival.queue_id));
            let Some(waiting) = number.and_then(|number| state.waiting.get(*number)) else { return };
            let conditions = waiting.conditions.iter().filter(|(condition, _)| condition.holds(arrival.properties));
            let wanting = [Some(&waiting.any), waiting.codes.get(&arrival.tags_code)].into_iter().flatten();
            let listed = wanting.chain(conditions.map(|(_, list)| list)).flat_map(|list| state.links.iter(list));
            chosen.extend(
                listed.filter(|number| {
                    state.entries.get(*number).is_some_and(|entry| entry.from <= arrival.queue_offset)
                }),
            );
        })
    }

    /// Takes out the requests that go by the subscription of a group.
    pub fn take_subscriber(&self, group: &str) -> Vec<P> {
        self.taken(|state, chosen| {
            let number = state.subscribers.get(group).and_then(|number| state.of_subscriber.get(*number));
            chosen.extend(number.into_iter().flat_map(|of| state.links.iter(&of.list)));
        })
    }

    /// Takes out the requests of a connection.
    pub fn take_connection(&self, connection: ConnectionId) -> Vec<P> {
        self.taken(|state, chosen| {
            let number = state.connections.get(&connection).and_then(|number| state.of_connection.get(*number));
            chosen.extend(number.into_iter().flat_map(|of| state.links.iter(&of.list)));
        })
    }

    /// Takes out the requests whose deadline is not after `now`, and forgets queues, connections and groups that nobody waits for.
    pub fn take_expired(&self, now: Instant) -> Vec<P> {
        let last = self.interval(now);
        self.taken(|state, chosen| {
            state.forget_emptied();
            let last = last.max(state.interval);
            // The last one is not over yet, and is gone through again.
            let first = state.interval.max(last.saturating_sub(DEADLINES as u64 - 1));
            for interval in first..=last {
                let list = &state.deadlines[slot(interval)];
                chosen.extend(
                    state
                        .links
                        .iter(list)
                        .filter(|number| state.entries.get(*number).is_some_and(|entry| entry.deadline <= now)),
                );
            }
            state.interval = last;
        })
    }

    /// Takes out everything.
    pub fn take_all(&self) -> Vec<P> {
        self.taken(|state, chosen| chosen.extend(state.entries.numbers()))
    }

    /// Takes out what `choose` names by number; numbers that stand for nothing are passed over.
    fn taken(&self, choose: impl FnOnce(&mut State<P>, &mut Vec<u32>)) -> Vec<P> {
        let mut state = self.state.lock();
        let mut chosen = std::mem::take(&mut state.chosen);
        choose(&mut state, &mut chosen);
        let taken: Vec<P> = chosen.drain(..).filter_map(|number| state.remove(number)).collect();
        chosen.shrink_to(CHOSEN_KEPT);
        state.chosen = chosen;
        self.count.fetch_sub(taken.len(), Ordering::SeqCst);
        taken
    }

    fn interval(&self, at: Instant) -> u64 {
        let intervals = at.saturating_duration_since(self.since).as_millis() / CHECK_INTERVAL.as_millis();
        u64::try_from(intervals).unwrap_or(u64::MAX)
    }
}

/// Numbers for which there stays room.
const CHOSEN_KEPT: usize = 1024;

fn slot(interval: u64) -> usize {
    (interval % DEADLINES as u64) as usize
}

impl<P> State<P> {
    fn insert(
        &mut self,
        topic: &TopicName,
        queue: QueueId,
        held: HeldRequest<P>,
        interval: u64,
        limits: HeldPullLimits,
    ) -> Result<(), P> {
        let HeldRequest { from, deadline, peer, subscriber, wakes, len_bytes, pull } = held;
        let queue = self.queue(topic, queue);
        let connection = self.connection(peer);
        let (Some(waiting), Some(of_connection)) =
            (self.waiting.get_mut(queue), self.of_connection.get_mut(connection))
        else {
            return Err(pull);
        };
        let Some(of_address) = self.of_address.get_mut(of_connection.address) else { return Err(pull) };
        let is_full = of_connection.list.len() >= limits.per_connection
            || of_address.count >= limits.per_address
            || self.bytes.saturating_add(len_bytes) > limits.bytes
            || of_address.bytes.saturating_add(len_bytes) > limits.bytes_per_address
            || of_connection.count_at(queue, limits.at_one_queue, &self.links, &self.entries) >= limits.at_one_queue;
        if is_full {
            self.note_emptied(queue, connection, None);
            return Err(pull);
        }
        self.bytes += len_bytes;
        of_address.bytes += len_bytes;
        of_address.count += 1;
        // The number that the entry will have.
        let number = self.entries.insert_with(|number| {
            let links = &mut self.links;
            if let Some(at_queues) = &mut of_connection.at_queues {
                *at_queues.entry(queue).or_default() += 1;
            }
            let slot = slot(interval.max(self.interval));
            Entry {
                from,
                deadline,
                queue,
                connection,
                subscriber: None,
                of_connection: links.push(&mut of_connection.list, number),
                slot,
                of_deadline: links.push(&mut self.deadlines[slot], number),
                waits: waiting.insert(links, wakes, number),
                len_bytes,
                pull,
            }
        });
        if let Some(group) = subscriber {
            let subscriber = self.subscriber(group);
            if let (Some(of), Some(entry)) = (self.of_subscriber.get_mut(subscriber), self.entries.get_mut(number)) {
                entry.subscriber = Some((subscriber, self.links.push(&mut of.list, number)));
            }
        }
        Ok(())
    }

    /// The number of a queue.
    fn queue(&mut self, topic: &TopicName, queue: QueueId) -> u32 {
        let queues = match self.queues.get_mut(&**topic) {
            Some(queues) => queues,
            None => self.queues.entry(topic.clone()).or_default(),
        };
        *queues.entry(queue).or_insert_with(|| self.waiting.insert(QueueWaiters::at(topic.clone(), queue)))
    }

    /// The number of a connection.
    fn connection(&mut self, peer: Peer) -> u32 {
        *self.connections.entry(peer.connection).or_insert_with(|| {
            let address = *self.addresses.entry(peer.address).or_insert_with(|| {
                let address = peer.address;
                self.of_address.insert(OfAddress { address, connections: 0, count: 0, bytes: 0 })
            });
            if let Some(of_address) = self.of_address.get_mut(address) {
                of_address.connections += 1;
            }
            let list = List::default();
            self.of_connection.insert(OfConnection {
                id: peer.connection,
                address,
                list,
                at_queues: None,
                is_emptied: false,
            })
        })
    }

    /// The number of a group.
    fn subscriber(&mut self, group: GroupName) -> u32 {
        if let Some(number) = self.subscribers.get(&*group) {
            return *number;
        }
        let of = OfSubscriber { group: group.clone(), list: List::default(), is_emptied: false };
        let number = self.of_subscriber.insert(of);
        self.subscribers.insert(group, number);
        number
    }

    /// Takes a request out of every list.
    fn remove(&mut self, number: u32) -> Option<P> {
        let entry = self.entries.remove(number)?;
        let links = &mut self.links;
        self.bytes -= entry.len_bytes;
        if let Some(of_connection) = self.of_connection.get_mut(entry.connection) {
            links.remove(&mut of_connection.list, entry.of_connection);
            of_connection.left(entry.queue);
            if let Some(of_address) = self.of_address.get_mut(of_connection.address) {
                of_address.count -= 1;
                of_address.bytes -= entry.len_bytes;
            }
        }
        if let Some((subscriber, link)) = entry.subscriber
            && let Some(of) = self.of_subscriber.get_mut(subscriber)
        {
            links.remove(&mut of.list, link);
        }
        links.remove(&mut self.deadlines[entry.slot], entry.of_deadline);
        if let Some(waiting) = self.waiting.get_mut(entry.queue) {
            waiting.remove(links, entry.waits);
        }
        self.note_emptied(entry.queue, entry.connection, entry.subscriber.map(|(subscriber, _)| subscriber));
        Some(entry.pull)
    }

    /// Each once until it is looked at.
    fn note_emptied(&mut self, queue: u32, connection: u32, subscriber: Option<u32>) {
        if let Some(waiting) = self.waiting.get_mut(queue).filter(|waiting| waiting.count == 0 && !waiting.is_emptied) {
            waiting.is_emptied = true;
            self.emptied.push(EmptyList::Queue(queue));
        }
        if let Some(of) = self.of_connection.get_mut(connection).filter(|of| of.list.is_empty() && !of.is_emptied) {
            of.is_emptied = true;
            self.emptied.push(EmptyList::Connection(connection));
        }
        if let Some(number) = subscriber
            && let Some(of) = self.of_subscriber.get_mut(number).filter(|of| of.list.is_empty() && !of.is_emptied)
        {
            of.is_emptied = true;
            self.emptied.push(EmptyList::Subscriber(number));
        }
    }

    /// Forgets what is still empty.
    fn forget_emptied(&mut self) {
        for emptied in std::mem::take(&mut self.emptied) {
            match emptied {
                EmptyList::Queue(number) => {
                    let Some(waiting) = self.waiting.get_mut(number) else { continue };
                    waiting.is_emptied = false;
                    if waiting.count == 0
                        && let Some(waiting) = self.waiting.remove(number)
                        && let Some(queues) = self.queues.get_mut(&*waiting.topic)
                    {
                        queues.remove(&waiting.queue);
                        if queues.is_empty() {
                            self.queues.remove(&*waiting.topic);
                        }
                    }
                }
                EmptyList::Connection(number) => {
                    let Some(of) = self.of_connection.get_mut(number) else { continue };
                    of.is_emptied = false;
                    if of.list.is_empty()
                        && let Some(of) = self.of_connection.remove(number)
                    {
                        self.connections.remove(&of.id);
                        self.forget_connection_of(of.address);
                    }
                }
                EmptyList::Subscriber(number) => {
                    let Some(of) = self.of_subscriber.get_mut(number) else { continue };
                    of.is_emptied = false;
                    if of.list.is_empty()
                        && let Some(of) = self.of_subscriber.remove(number)
                    {
                        self.subscribers.remove(&*of.group);
                    }
                }
            }
        }
    }

    fn forget_connection_of(&mut self, address: u32) {
        let Some(of) = self.of_address.get_mut(address) else { return };
        of.connections -= 1;
        if of.connections == 0
            && let Some(of) = self.of_address.remove(address)
        {
            self.addresses.remove(&of.address);
        }
    }
}

impl OfConnection {
    /// How many of its requests wait at a queue; zero as long as there cannot be `limit`. Counted from then on, until there are half as many.
    fn count_at<P>(&mut self, queue: u32, limit: usize, links: &Links, entries: &Slab<Entry<P>>) -> usize {
        if self.list.len() < limit {
            return 0;
        }
        let list = &self.list;
        let at_queues = self.at_queues.get_or_insert_with(|| {
            let mut counts = HashMap::default();
            for entry in links.iter(list).filter_map(|number| entries.get(number)) {
                *counts.entry(entry.queue).or_default() += 1;
            }
            counts
        });
        at_queues.get(&queue).copied().unwrap_or(0)
    }

    /// One request less at a queue.
    fn left(&mut self, queue: u32) {
        let Some(at_queues) = &mut self.at_queues else { return };
        if let Some(count) = at_queues.get_mut(&queue) {
            *count -= 1;
            if *count == 0 {
                at_queues.remove(&queue);
            }
        }
        if self.list.is_empty() {
            self.at_queues = None;
        }
    }
}

impl QueueWaiters {
    fn at(topic: TopicName, queue: QueueId) -> QueueWaiters {
        QueueWaiters {
            topic,
            queue,
            count: 0,
            any: List::default(),
            codes: HashMap::default(),
            conditions: Vec::new(),
            condition_len_sum: 0,
            is_emptied: false,
        }
    }

    fn insert(&mut self, links: &mut Links, wakes: WakeRule, number: u32) -> WaitingPlace {
        self.count += 1;
        match wakes {
            WakeRule::Never => WaitingPlace::Never,
            WakeRule::Any => WaitingPlace::Any(links.push(&mut self.any, number)),
            WakeRule::Code(code) => WaitingPlace::Code(code, links.push(self.codes.entry(code).or_default(), number)),
            WakeRule::Codes(mut codes) => {
                codes.sort_unstable();
                codes.dedup();
                let link = |code| (code, links.push(self.codes.entry(code).or_default(), number));
                WaitingPlace::Codes(codes.into_iter().map(link).collect())
            }
            WakeRule::Condition(condition) => match self.condition(&condition) {
                Some(list) => {
                    let link = links.push(list, number);
                    WaitingPlace::Condition(condition, link)
                }
                None => WaitingPlace::Any(links.push(&mut self.any, number)),
            },
        }
    }

    /// The list of a condition; `None` where there is no room for one more.
    fn condition(&mut self, condition: &Arc<Condition>) -> Option<&mut List> {
        let known = self.conditions.iter().position(|(known, _)| Arc::ptr_eq(known, condition));
        let place = match known {
            Some(place) => place,
            None if self.condition_len_sum + condition.len_bytes() > CONDITION_LEN_SUM_MAX => return None,
            None => {
                self.condition_len_sum += condition.len_bytes();
                self.conditions.push((Arc::clone(condition), List::default()));
                self.conditions.len() - 1
            }
        };
        self.conditions.get_mut(place).map(|(_, list)| list)
    }

    fn remove(&mut self, links: &mut Links, waits: WaitingPlace) {
        self.count -= 1;
        match waits {
            WaitingPlace::Never => {}
            WaitingPlace::Any(link) => links.remove(&mut self.any, link),
            WaitingPlace::Code(code, link) => self.remove_code(links, code, link),
            WaitingPlace::Codes(codes) => {
                codes.into_iter().for_each(|(code, link)| self.remove_code(links, code, link))
            }
            WaitingPlace::Condition(condition, link) => {
                let place = self.conditions.iter().position(|(known, _)| Arc::ptr_eq(known, &condition));
                if let Some(place) = place {
                    links.remove(&mut self.conditions[place].1, link);
                    if self.conditions[place].1.is_empty() {
                        self.conditions.swap_remove(place);
                        self.condition_len_sum -= condition.len_bytes();
                    }
                }
            }
        }
    }

    fn remove_code(&mut self, links: &mut Links, code: i64, link: LinkId) {
        if let hash_map::Entry::Occupied(mut list) = self.codes.entry(code) {
            links.remove(list.get_mut(), link);
            if list.get().is_empty() {
                list.remove();
            }
        }
    }
}

#[cfg(test)]
#[path = "pulls_test.rs"]
mod tests;
