//! Held pulls against a list that is gone through from end to end, and what one peer can make of them.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ferromq_protocol::message::tags::tags_code;
use proptest::prelude::*;

use super::*;
use crate::subscription::Conditions;
use crate::subscription::PullFilter;

const LIMITS: HeldPullLimits =
    HeldPullLimits { all: 12, per_address: 9, per_connection: 6, at_one_queue: 4, bytes: 1000, bytes_per_address: 700 };

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn peer(connection: u64, address_number: u8) -> Peer {
    Peer { connection: ConnectionId(connection), address: address(address_number) }
}

fn held<P>(from: u64, deadline: Instant, wakes: WakeRule, pull: P) -> HeldRequest<P> {
    HeldRequest { from: QueueOffset(from), deadline, peer: peer(1, 1), subscriber: None, wakes, len_bytes: 0, pull }
}

fn arrival<'a>(topic: &'a str, queue: u32, offset: u64, tag: &str, properties: &'a str) -> Arrival<'a> {
    Arrival {
        topic,
        queue_id: QueueId(queue),
        queue_offset: QueueOffset(offset),
        tags_code: tags_code(tag),
        store_timestamp: 0,
        properties,
    }
}

fn condition(conditions: &Conditions, text: &str) -> WakeRule {
    match conditions.compile(text).unwrap() {
        PullFilter::Condition(condition) => WakeRule::Condition(condition),
        other => panic!("{other:?}"),
    }
}

fn codes(tags: &[&str]) -> WakeRule {
    WakeRule::Codes(tags.iter().map(|tag| tags_code(tag)).collect())
}

impl<P> HeldPulls<P> {
    /// Nothing is left behind by what was taken out.
    fn assert_nothing_left(&self) {
        assert_eq!(self.len(), 0);
        let _ = self.take_expired(Instant::now());
        let state = self.state.lock();
        assert!(state.queues.is_empty() && state.connections.is_empty() && state.addresses.is_empty());
        assert!(state.waiting.is_empty() && state.of_connection.is_empty() && state.of_address.is_empty());
        assert!(state.subscribers.is_empty() && state.of_subscriber.is_empty() && state.emptied.is_empty());
        assert!(state.deadlines.iter().all(List::is_empty) && state.entries.is_empty());
        assert_eq!(state.bytes, 0);
    }
}

#[test]
fn only_the_waiting_queue_is_touched() {
    let pulls = HeldPulls::new(HeldPullLimits::of(10));
    let later = Instant::now() + Duration::from_secs(60);
    pulls.hold(&"T".into(), QueueId(0), held(5, later, WakeRule::Any, "a"), |_| false).unwrap();
    pulls.hold(&"T".into(), QueueId(1), held(5, later, WakeRule::Any, "b"), |_| false).unwrap();
    pulls
        .hold(&"U".into(), QueueId(0), HeldRequest { peer: peer(2, 1), ..held(5, later, WakeRule::Any, "c") }, |_| {
            false
        })
        .unwrap();
    assert_eq!(pulls.take_woken(&arrival("T", 0, 4, "", "")), Vec::<&str>::new());
    assert_eq!(pulls.take_woken(&arrival("T", 0, 5, "", "")), ["a"]);
    assert_eq!(pulls.take_woken(&arrival("T", 0, 6, "", "")), Vec::<&str>::new());
    assert_eq!(pulls.len(), 2);
}

#[test]
fn a_message_that_came_meanwhile_is_not_waited_for() {
    let pulls = HeldPulls::new(HeldPullLimits::of(10));
    assert_eq!(pulls.hold(&"T".into(), QueueId(0), held(0, Instant::now(), WakeRule::Any, "a"), |_| true), Err("a"));
    pulls.assert_nothing_left();
}

#[test]
fn deadlines_and_shutdown_empty_the_list() {
    let pulls = HeldPulls::new(HeldPullLimits::of(10));
    let now = Instant::now();
    let soon = now + Duration::from_millis(1);
    for (deadline, name) in [(now, "due"), (soon, "soon"), (now + Duration::from_secs(60), "later")] {
        let peer = peer(name.len() as u64, 1);
        pulls
            .hold(&"T".into(), QueueId(0), HeldRequest { peer, ..held(0, deadline, WakeRule::Never, name) }, |_| false)
            .unwrap();
    }
    assert_eq!(pulls.take_expired(now), ["due"]);
    assert_eq!(pulls.take_expired(soon), ["soon"]);
    assert_eq!(pulls.take_all(), ["later"]);
    pulls.assert_nothing_left();
}

/// What one connection, and all connections of one address, may hold leaves room for the others; and at one queue there is room for the
/// other queues of the same connection.
#[test]
fn nobody_has_all_the_room() {
    let limits = HeldPullLimits { per_address: 50, per_connection: 20, at_one_queue: 5, ..HeldPullLimits::of(100) };
    let pulls = HeldPulls::new(limits);
    let later = Instant::now() + Duration::from_secs(60);
    let hold = |connection, address, queue| {
        let held =
            HeldRequest { peer: peer(connection, address), ..held(0, later, WakeRule::Any, (connection, address)) };
        pulls.hold(&"T".into(), QueueId(queue), held, |_| false).is_ok()
    };
    let held_of = |connection, address, queues: std::ops::Range<u32>| {
        queues.map(|queue| (0..10).filter(|_| hold(connection, address, queue)).count()).sum::<usize>()
    };
    assert_eq!(held_of(1, 1, 0..1), 5);
    assert_eq!(held_of(1, 1, 1..100), 15);
    assert_eq!((2..20).map(|connection| held_of(connection, 1, 0..100)).sum::<usize>(), 30);
    // Nobody else notices.
    assert!(hold(100, 2, 0));
    // What goes makes room: with its connection at the latest.
    assert_eq!(pulls.take_connection(ConnectionId(1)).len(), 20);
    assert_eq!(held_of(200, 1, 0..100), 20);
    assert_eq!(pulls.len(), 51);
    assert_eq!(pulls.take_all().len(), 51);
    pulls.assert_nothing_left();
}

/// A hundred thousand pulls for tags that never come, and as many messages: to go through all of them for each would take many minutes.
#[test]
fn an_arrival_costs_what_it_wakes_and_not_what_waits() {
    const MANY: usize = 100_000;
    let pulls = HeldPulls::new(HeldPullLimits {
        per_address: MANY,
        per_connection: MANY,
        at_one_queue: MANY,
        ..HeldPullLimits::of(MANY)
    });
    let later = Instant::now() + Duration::from_secs(60);
    for number in 0..MANY {
        let wakes = WakeRule::Codes(vec![number as i64 + 10_000_000_000]);
        pulls.hold(&"T".into(), QueueId(0), held(0, later, wakes, number), |_| false).unwrap();
    }
    let begun = Instant::now();
    for offset in 0..MANY as u64 {
        assert!(pulls.take_woken(&arrival("T", 0, offset, "TagA", "")).is_empty());
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(pulls.take_all().len(), MANY);
    pulls.assert_nothing_left();
}

/// Conditions are evaluated up to a bound; a pull beyond it is woken by everything, so that it misses nothing.
#[test]
fn conditions_beyond_the_bound_wake_always() {
    let conditions = Conditions::default();
    let pulls = HeldPulls::new(HeldPullLimits::of(1000));
    let later = Instant::now() + Duration::from_secs(60);
    let long = |number: usize| format!("a = '{number}{}'", "x".repeat(CONDITION_LEN_SUM_MAX / 3));
    for number in 0..10 {
        let wakes = condition(&conditions, &long(number));
        pulls.hold(&"T".into(), QueueId(0), held(0, later, wakes, number), |_| false).unwrap();
        // The same one again costs nothing more.
        let wakes = condition(&conditions, &long(0));
        pulls.hold(&"T".into(), QueueId(0), held(0, later, wakes, 100), |_| false).unwrap();
    }
    {
        let state = pulls.state.lock();
        let waiting = state.waiting.get(state.queues["T"][&QueueId(0)]).unwrap();
        assert!(waiting.condition_len_sum <= CONDITION_LEN_SUM_MAX);
    }
    let woken = pulls.take_woken(&arrival("T", 0, 0, "", "a\u{1}1\u{2}"));
    assert!(!woken.contains(&100) && !woken.contains(&0) && woken.contains(&9), "{woken:?}");
    let matching = format!("a\u{1}0{}\u{2}", "x".repeat(CONDITION_LEN_SUM_MAX / 3));
    assert_eq!(pulls.take_woken(&arrival("T", 0, 0, "", &matching)).len(), 11);
    pulls.take_all();
    pulls.assert_nothing_left();
}

#[derive(Clone, Debug)]
enum Step {
    Hold {
        connection: u64,
        queue: u32,
        from: u64,
        deadline: u64,
        wakes: usize,
        subscriber: Option<usize>,
        len_bytes: usize,
    },
    Arrive {
        queue: u32,
        offset: u64,
        tag: usize,
    },
    Close(u64),
    Resubscribe(usize),
    Expire(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let hold = (0u64..4, 0u32..2, 0u64..3, 0u64..8, 0usize..6, proptest::option::of(0usize..2), 0usize..300).prop_map(
        |(connection, queue, from, deadline, wakes, subscriber, len_bytes)| Step::Hold {
            connection,
            queue,
            from,
            deadline,
            wakes,
            subscriber,
            len_bytes,
        },
    );
    let step = prop_oneof![
        8 => hold,
        3 => (0u32..2, 0u64..3, 0usize..3).prop_map(|(queue, offset, tag)| Step::Arrive { queue, offset, tag }),
        1 => (0u64..4).prop_map(Step::Close),
        1 => (0usize..2).prop_map(Step::Resubscribe),
        1 => (0u64..8).prop_map(Step::Expire),
    ];
    proptest::collection::vec(step, 0..80)
}

struct Known {
    number: usize,
    connection: u64,
    queue: u32,
    from: u64,
    deadline: u64,
    wakes: usize,
    subscriber: Option<usize>,
    len_bytes: usize,
}

const TAGS: [&str; 3] = ["A", "B", "C"];
const GROUPS: [&str; 2] = ["G", "H"];

fn wanted(conditions: &Conditions, kind: usize) -> WakeRule {
    match kind {
        0 => WakeRule::Never,
        1 => WakeRule::Any,
        2 => codes(&["A"]),
        3 => codes(&["A", "B", "A"]),
        4 => condition(conditions, "t = 'A'"),
        _ => condition(conditions, "t IN ('B', 'C')"),
    }
}

fn wants(kind: usize, tag: usize) -> bool {
    match kind {
        0 => false,
        1 => true,
        2 | 4 => tag == 0,
        3 => tag < 2,
        _ => tag > 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_lists_do_as_one_list_would(steps in steps()) {
        let conditions = Conditions::default();
        let pulls = HeldPulls::new(LIMITS);
        let begin = Instant::now();
        // Deadlines on both sides of an interval's border, and one round of the lists later.
        let at = |deadline: u64| begin + Duration::from_millis(deadline % 4 * 260) + CHECK_INTERVAL * DEADLINES as u32 * (deadline / 4) as u32;
        let mut model: Vec<Known> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let taken = |model: &mut Vec<Known>, goes: &dyn Fn(&Known) -> bool| {
                model.extract_if(.., |known| goes(known)).map(|known| known.number).collect::<HashSet<_>>()
            };
            let (found, expected) = match step {
                Step::Hold { connection, queue, from, deadline, wakes, subscriber, len_bytes } => {
                    // Two connections from each address.
                    let count = |same: &dyn Fn(&Known) -> bool| model.iter().filter(|known| same(known)).count();
                    let bytes = |same: &dyn Fn(&Known) -> bool| {
                        model.iter().filter(|known| same(known)).map(|known| known.len_bytes).sum::<usize>() + len_bytes
                    };
                    let fits = model.len() < LIMITS.all
                        && bytes(&|_| true) <= LIMITS.bytes
                        && bytes(&|known| known.connection / 2 == connection / 2) <= LIMITS.bytes_per_address
                        && count(&|known| known.connection / 2 == connection / 2) < LIMITS.per_address
                        && count(&|known| known.connection == connection) < LIMITS.per_connection
                        && count(&|known| known.connection == connection && known.queue == queue) < LIMITS.at_one_queue;
                    let held = HeldRequest {
                        from: QueueOffset(from),
                        deadline: at(deadline),
                        peer: peer(connection, (connection / 2) as u8),
                        subscriber: subscriber.map(|group| GROUPS[group].into()),
                        wakes: wanted(&conditions, wakes),
                        len_bytes,
                        pull: number,
                    };
                    prop_assert_eq!(pulls.hold(&"T".into(), QueueId(queue), held, |_| false).is_ok(), fits);
                    if fits {
                        model.push(Known { number, connection, queue, from, deadline, wakes, subscriber, len_bytes });
                    }
                    (Vec::new(), HashSet::new())
                }
                Step::Arrive { queue, offset, tag } => {
                    let properties = format!("t\u{1}{}\u{2}", TAGS[tag]);
                    let woken = pulls.take_woken(&arrival("T", queue, offset, TAGS[tag], &properties));
                    let wakes = |known: &Known| known.queue == queue && known.from <= offset && wants(known.wakes, tag);
                    (woken, taken(&mut model, &wakes))
                }
                Step::Close(connection) => {
                    let closed = pulls.take_connection(ConnectionId(connection));
                    (closed, taken(&mut model, &|known| known.connection == connection))
                }
                Step::Resubscribe(group) => {
                    let subscribed = pulls.take_subscriber(GROUPS[group]);
                    (subscribed, taken(&mut model, &|known| known.subscriber == Some(group)))
                }
                Step::Expire(now) => {
                    let expired = pulls.take_expired(at(now));
                    (expired, taken(&mut model, &|known| known.deadline <= now))
                }
            };
            prop_assert_eq!(found.len(), expected.len());
            prop_assert_eq!(found.into_iter().collect::<HashSet<_>>(), expected);
            prop_assert_eq!(pulls.len(), model.len());
        }
        pulls.take_all();
        pulls.assert_nothing_left();
    }
}
