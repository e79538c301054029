//! The sequences that were captured from Java's broker, and what time and closed connections do to them.

use std::sync::OnceLock;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(120);
const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

/// This long after some moment, in milliseconds.
fn at(ms: u64) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_millis(ms)
}

fn member(client_id: &str, heard_at_ms: u64) -> Member {
    Member {
        client_id: client_id.into(),
        language: Language::JAVA,
        version: 479,
        peer: ([127, 0, 0, 1], 1).into(),
        // The wall clock may stand anywhere.
        heard_at_ms: 0,
        heard_at: at(heard_at_ms),
    }
}

fn subscription(topic: &str, sub_string: &str, sub_version: i64) -> SubscriptionData {
    SubscriptionData { topic: topic.into(), sub_string: sub_string.into(), sub_version, ..SubscriptionData::default() }
}

fn heartbeat(subscriptions: Vec<SubscriptionData>) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: "G".into(),
        consume_type: Some(ConsumeType::Passively),
        message_model: Some(MessageModel::Clustering),
        consume_from_where: Some(ConsumeFromWhere::LastOffset),
        subscriptions: Some(subscriptions),
        fingerprint: 0,
        notify: true,
    }
}

fn one_topic(version: i64) -> ConsumerHeartbeat {
    heartbeat(vec![subscription("T", "*", version)])
}

/// The handles of these tests are the connection's number.
fn register(table: &mut Table<u64>, id: ConnectionId, at_ms: u64, heartbeat: ConsumerHeartbeat) -> Option<Vec<u64>> {
    table.register_consumer(id, &id.0, member("cid", at_ms), heartbeat).unwrap().notice.map(|notice| notice.to)
}

#[test]
fn members_are_told_of_newcomers_and_topics_but_not_of_expressions() {
    let mut table = Table::default();
    assert_eq!(register(&mut table, A, 0, one_topic(1)), Some(vec![1]));
    assert_eq!(register(&mut table, B, 0, one_topic(1)), Some(vec![1, 2]));
    assert_eq!(register(&mut table, A, 0, one_topic(2)), None);
    assert_eq!(register(&mut table, A, 0, heartbeat(vec![subscription("T", "TagA", 3)])), None);
    assert_eq!(table.consumer_group("G").unwrap().subscription("T").unwrap().sub_string, "TagA");
    let two_topics = || heartbeat(vec![subscription("T", "*", 4), subscription("T2", "*", 4)]);
    assert_eq!(register(&mut table, A, 0, two_topics()), Some(vec![1, 2]));
    assert_eq!(register(&mut table, A, 0, two_topics()), None);
    assert_eq!(register(&mut table, B, 0, one_topic(1)), Some(vec![1, 2]));
    assert!(table.consumer_group("G").unwrap().subscription("T2").is_none());
    // An older version does not win.
    assert_eq!(table.consumer_group("G").unwrap().subscription("T").unwrap().sub_version, 4);
}

#[test]
fn a_group_that_goes_or_consumes_otherwise_has_changed() {
    let mut table = Table::default();
    register(&mut table, A, 0, one_topic(1));
    let mut last = table.group_changes();
    let mut moved = |table: &Table<u64>| std::mem::replace(&mut last, table.group_changes()) != table.group_changes();
    register(&mut table, B, 0, one_topic(1));
    table.closed(B);
    assert!(!moved(&table), "members come and go");
    register(&mut table, A, 0, ConsumerHeartbeat { message_model: Some(MessageModel::Broadcasting), ..one_topic(1) });
    assert!(moved(&table));
    table.unregister_consumer(A, "G");
    assert!(moved(&table));
}

/// What is remembered of disagreements has a bound, and goes with the topics that they are about.
#[test]
fn disagreements_do_not_pile_up() {
    let mut table = Table::default();
    let all = |expression: &str, version: i64, names: std::ops::Range<usize>| {
        heartbeat(names.map(|number| subscription(&format!("T{number}"), expression, version)).collect())
    };
    let left = |table: &Table<u64>| table.consumers["G"].disagreeing.len();
    register(&mut table, A, 0, all("red", 2, 0..2000));
    for number in 0..3 {
        let id = ConnectionId(2 + number);
        let conflicts =
            table.register_consumer(id, &id.0, member("b", 0), all("blue", 1, 0..2000)).unwrap().conflicts.len();
        assert_eq!(conflicts, if number == 0 { DISAGREEING_MAX } else { 0 });
    }
    assert_eq!(left(&table), DISAGREEING_MAX);
    register(&mut table, A, 0, all("red", 3, 0..2));
    assert_eq!(left(&table), 2);
    register(&mut table, A, 0, heartbeat(vec![]));
    assert_eq!(left(&table), 0);
}

#[test]
fn nobody_is_told_in_broadcasting_groups_or_when_switched_off() {
    let mut table = Table::default();
    let broadcasting = ConsumerHeartbeat { message_model: Some(MessageModel::Broadcasting), ..one_topic(1) };
    assert_eq!(register(&mut table, A, 0, broadcasting), None);
    assert!(table.consumer_group("G").unwrap().is_broadcasting());
    assert_eq!(register(&mut table, B, 0, ConsumerHeartbeat { notify: false, ..one_topic(1) }), None);
    assert_eq!(table.closed(A), []);
}

#[test]
fn signing_off_tells_those_that_stay() {
    let mut table = Table::default();
    register(&mut table, A, 0, one_topic(1));
    register(&mut table, B, 0, one_topic(1));
    assert_eq!(table.unregister_consumer(B, "other"), None);
    assert_eq!(table.unregister_consumer(B, "G"), Some(Notice { group: "G".into(), to: vec![1] }));
    assert_eq!(table.unregister_consumer(B, "G"), None);
    assert_eq!(table.unregister_consumer(A, "G"), None);
    assert!(table.consumer_group("G").is_none());
    assert!(table.connections.is_empty() && table.consumers.is_empty());
}

#[test]
fn closed_connection_leaves_every_group() {
    let mut table = Table::default();
    register(&mut table, A, 0, one_topic(1));
    register(&mut table, B, 0, one_topic(1));
    register(&mut table, A, 0, ConsumerHeartbeat { group: "G2".into(), ..one_topic(1) });
    table.register_producer(A, &1, member("cid", 0), &"P".into()).unwrap();
    assert_eq!(table.closed(A), [Notice { group: "G".into(), to: vec![2] }]);
    assert_eq!(table.closed(A), []);
    assert_eq!((table.consumers.len(), table.producers.len(), table.connections.len()), (1, 0, 1));
}

#[test]
fn silent_clients_are_closed() {
    let mut table = Table::default();
    register(&mut table, A, 0, one_topic(1));
    register(&mut table, B, 5, one_topic(1));
    table.register_producer(A, &1, member("cid", 5), &"P".into()).unwrap();
    assert_eq!(table.expire(at(120_000), TIMEOUT), (vec![], vec![]));
    assert_eq!(table.expire(at(120_001), TIMEOUT), (vec![1], vec![Notice { group: "G".into(), to: vec![2] }]));
    assert_eq!(table.producers("P").count(), 0);
    register(&mut table, B, 100_000, one_topic(1));
    assert_eq!(table.expire(at(200_000), TIMEOUT), (vec![], vec![]));
}

#[test]
fn second_kind_of_heartbeat_keeps_what_it_leaves_out() {
    let mut table = Table::default();
    let full = || ConsumerHeartbeat { fingerprint: 7, ..one_topic(1) };
    let bare = |fingerprint| ConsumerHeartbeat { fingerprint, subscriptions: None, ..one_topic(1) };
    let mut wanted =
        |heartbeat| table.register_consumer(A, &1, member("cid", 0), heartbeat).unwrap().subscriptions_wanted;
    // A broker that has just started asks for what it does not know.
    assert!(wanted(bare(7)));
    assert!(!wanted(full()));
    assert!(!wanted(bare(7)));
    assert!(wanted(bare(8)));
    assert!(table.consumer_group("G").unwrap().subscription("T").is_some());
}

#[test]
fn another_client_id_on_the_same_connection_replaces_the_first() {
    let mut table = Table::default();
    table.register_consumer(A, &1, member("one", 0), one_topic(1)).unwrap();
    assert!(table.register_consumer(A, &1, member("two", 0), one_topic(1)).unwrap().notice.is_none());
    assert_eq!(table.consumers("G").map(|(member, _)| &*member.client_id).collect::<Vec<_>>(), ["two"]);
}

#[test]
fn producers_take_turns() {
    let mut table = Table::default();
    assert_eq!(table.next_producer("P"), None);
    for id in [A, B] {
        table.register_producer(id, &id.0, member("cid", 0), &"P".into()).unwrap();
    }
    assert_eq!([(); 3].map(|()| table.next_producer("P")), [Some(1), Some(2), Some(1)]);
    table.unregister_producer(A, "P");
    assert_eq!([(); 2].map(|()| table.next_producer("P")), [Some(2), Some(2)]);
}

#[test]
fn a_producer_is_found_by_its_latest_connection() {
    let mut table = Table::default();
    let named = |client_id| Member { client_id: Arc::from(client_id), ..member("", 0) };
    table.register_producer(A, &1, named("one"), &"P".into()).unwrap();
    table.register_producer(A, &1, named("one"), &"P2".into()).unwrap();
    table.unregister_producer(A, "P");
    assert_eq!(table.producer_by_id("one"), Some(&1));
    // It comes back before the old connection is noticed to be gone.
    table.register_producer(B, &2, named("one"), &"P".into()).unwrap();
    assert_eq!(table.producer_by_id("one"), Some(&2));
    table.closed(A);
    assert_eq!(table.producer_by_id("one"), Some(&2));
    table.register_producer(B, &2, named("two"), &"P".into()).unwrap();
    assert_eq!((table.producer_by_id("one"), table.producer_by_id("two")), (None, Some(&2)));
    table.unregister_producer(B, "P");
    assert!(table.producer_ids.is_empty() && table.connections.is_empty());
}

#[test]
fn members_that_subscribe_differently_are_named_once() {
    let mut table = Table::default();
    let mut beat = |id: ConnectionId, expression: &str, version| {
        let member = member(if id == A { "a" } else { "b" }, 0);
        let heartbeat = heartbeat(vec![subscription("T", expression, version)]);
        table.register_consumer(id, &id.0, member, heartbeat).unwrap().conflicts
    };
    let conflict = |client: &str, wants: &str, other: &str, other_wants: &str| Conflict {
        topic: "T".into(),
        client_id: client.into(),
        wants: Some(wants.into()),
        other_client_id: other.into(),
        other_wants: other_wants.into(),
    };
    assert_eq!(beat(A, "red", 1), []);
    assert_eq!(beat(B, "blue", 2), [conflict("b", "blue", "a", "red")]);
    assert_eq!(beat(A, "red", 1), [conflict("a", "red", "b", "blue")]);
    assert_eq!((beat(B, "blue", 2), beat(A, "red", 1)), (vec![], vec![]));
    // They agree, and then no longer: that is news.
    assert_eq!(beat(A, "blue", 3), []);
    assert_eq!(beat(B, "green", 4), [conflict("b", "green", "a", "blue")]);
    // Changing one's own mind is no conflict.
    assert_eq!(beat(B, "grey", 5), []);
    table.closed(A);
    let given_up = table.register_consumer(B, &2, member("b", 0), heartbeat(vec![])).unwrap().conflicts;
    assert_eq!(given_up, []);
    assert!(table.consumers.values().all(|consumers| consumers.subscribers.is_empty()));
}

/// What one connection, and all of them, may make of the table; who is in it stays.
#[test]
fn the_table_has_bounds_and_what_goes_makes_room() {
    let limits =
        ClientLimits { groups_per_connection: 3, memberships: 5, topics_per_group: 4, subscription_bytes: 100 };
    let mut table = Table { limits, ..Table::default() };
    let subscribing = |group: &str, topics: usize| ConsumerHeartbeat {
        group: group.into(),
        consume_type: None,
        message_model: None,
        consume_from_where: None,
        subscriptions: Some(
            (0..topics)
                .map(|topic| SubscriptionData {
                    topic: format!("TopicNumber{topic}").into(),
                    sub_string: "*".into(),
                    sub_version: 1,
                    ..SubscriptionData::default()
                })
                .collect(),
        ),
        fingerprint: 0,
        notify: true,
    };
    let consumer = |table: &mut Table<u64>, id: ConnectionId, group: &str, topics| {
        table.register_consumer(id, &id.0, member("cid", 0), subscribing(group, topics)).map(|_| ())
    };
    assert_eq!(consumer(&mut table, A, "G", 5), Err(ClientsFull::Topics { topics: 5, limit: 4 }));
    for group in ["G1", "G2"] {
        consumer(&mut table, A, group, 3).unwrap();
    }
    table.register_producer(A, &1, member("cid", 0), &"P".into()).unwrap();
    assert_eq!(table.register_producer(A, &1, member("cid", 0), &"Q".into()), Err(ClientsFull::Connection(3)));
    assert_eq!(consumer(&mut table, A, "G3", 0), Err(ClientsFull::Connection(3)));
    // Renewals are no new memberships, nor is a subscription that was there.
    consumer(&mut table, A, "G1", 3).unwrap();
    assert_eq!(consumer(&mut table, B, "G4", 3), Err(ClientsFull::Subscriptions(100)));
    consumer(&mut table, B, "G1", 3).unwrap();
    table.register_producer(B, &2, member("other", 0), &"P".into()).unwrap();
    assert_eq!(consumer(&mut table, ConnectionId(3), "G5", 0), Err(ClientsFull::Memberships(5)));
    table.unregister_producer(B, "P");
    consumer(&mut table, ConnectionId(3), "G5", 0).unwrap();
    for id in [A, B, ConnectionId(3)] {
        table.closed(id);
    }
    assert_eq!((table.memberships, table.subscription_bytes), (0, 0));
    assert!(table.connections.is_empty() && table.consumers.is_empty() && table.producers.is_empty());
}
