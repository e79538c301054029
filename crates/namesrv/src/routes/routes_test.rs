//! The registration rules of Java's `RouteInfoManager`, step by step, with time passed in.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ferromq_protocol::body::{DataVersion, RouteForm};
use ferromq_protocol::json;
use ferromq_remoting::ConnectionId;
use proptest::prelude::*;

use super::*;

const MASTER: &str = "10.0.0.1:10911";
const SLAVE: &str = "10.0.0.2:10911";

/// This long after some moment, in milliseconds.
fn at(ms: u64) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_millis(ms)
}

fn version(counter: i64) -> DataVersion {
    DataVersion { counter, state_version: 0, timestamp: 1_700_000_000_000 }
}

fn queues(perm: i32) -> Queues {
    Queues { read: 4, write: 4, perm, sys_flag: 0 }
}

fn table(counter: i64, topics: &[&str]) -> TopicTable {
    let topics: BTreeMap<_, _> = topics.iter().map(|&topic| (topic.to_owned(), queues(6))).collect();
    TopicTable { version: version(counter), topics, ..TopicTable::default() }
}

/// A registration of broker-a in cluster c; the connection has the number of the last digit of the host.
fn registration(address: &str, broker_id: i64, topics: Option<TopicTable>) -> Registration {
    let host_digit = address.as_bytes()[7] - b'0';
    Registration {
        cluster: "c".into(),
        broker_name: "broker-a".into(),
        address: address.into(),
        broker_id,
        ha_address: format!("{address}0"),
        timeout: None,
        acting_master: Some(false),
        zone: None,
        topics,
        filter_servers: None,
        connection: ConnectionId(host_digit.into()),
    }
}

fn accepted() -> RegisterOutcome {
    RegisterOutcome::Accepted { master: None, change: None }
}

fn route_text(routes: &mut Routes, topic: &str) -> Option<String> {
    let lookup = RouteLookup { topic, form: RouteForm::Strict, order: None, zone: None };
    routes.route(lookup).map(|route| String::from_utf8(route.to_vec()).unwrap())
}

fn perm(routes: &Routes, topic: &str) -> i32 {
    routes.topics[topic]["broker-a"].shown.perm
}

/// A table with the master registered and two topics.
fn with_master(policy: Policy) -> Routes {
    let mut routes = Routes::new(policy);
    assert_eq!(routes.register(registration(MASTER, 0, Some(table(1, &["T1", "T2"]))), at(1000)), accepted());
    routes
}

#[test]
fn slave_learns_its_master_and_does_not_change_topics() {
    let mut routes = with_master(Policy::default());
    let registered = routes.register(registration(SLAVE, 1, Some(table(7, &["T1", "T2", "T3"]))), at(1000));
    assert_eq!(
        registered,
        RegisterOutcome::Accepted { master: Some((MASTER.into(), format!("{MASTER}0"))), change: None }
    );
    assert_eq!(routes.topics(), ["T1", "T2"]);
    let route = route_text(&mut routes, "T1").unwrap();
    assert!(route.contains(r#""brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"}"#), "{route}");
}

#[test]
fn incremental_registration_needs_a_full_one_first_and_leaves_no_trace() {
    let mut routes = Routes::default();
    assert_eq!(routes.register(registration(MASTER, 0, Some(table(1, &["T1"]))), at(0)), RegisterOutcome::Incremental);
    assert_eq!(json::to_vec(&routes.cluster_info()), br#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#);
    let mut routes = with_master(Policy::default());
    assert_eq!(routes.register(registration(MASTER, 0, Some(table(2, &["T3"]))), at(0)), accepted());
    assert_eq!(routes.topics(), ["T1", "T2", "T3"]);
    // A part is not all, whatever the policy.
    routes.obey(Policy { delete_unlisted_topics: true, ..Policy::default() });
    let mut part = table(3, &["T3", "T4"]);
    part.partial = true;
    routes.register(registration(MASTER, 0, Some(part)), at(0));
    assert_eq!(routes.topics(), ["T1", "T2", "T3", "T4"]);
}

#[test]
fn what_an_operator_took_stays_taken_until_the_broker_says_something_else() {
    let mut routes = with_master(Policy::default());
    assert!(route_text(&mut routes, "T1").unwrap().contains(r#""perm":6"#));
    assert_eq!((routes.set_writable("broker-a", false), routes.set_writable("nope", false)), (2, 0));
    assert!(route_text(&mut routes, "T1").unwrap().contains(r#""perm":4"#));
    // Routine: the same again, a new topic alone, the whole table with a new version, a topic deleted.
    for topics in [table(1, &["T1", "T2"]), table(2, &["T3"]), table(3, &["T1", "T2", "T3"]), table(4, &["T1", "T3"])] {
        routes.register(registration(MASTER, 0, Some(topics)), at(0));
        assert_eq!((perm(&routes, "T1"), perm(&routes, "T2")), (4, 4));
    }
    assert_eq!(perm(&routes, "T3"), 6, "made after it");
    // So does what was set for a topic by itself.
    routes.register_topic("T3", [("broker-a".into(), queues(4))]);
    routes.register(registration(MASTER, 0, Some(table(5, &["T1", "T2", "T3"]))), at(0));
    assert_eq!(perm(&routes, "T3"), 4);
    // The topic itself is changed on the broker.
    let mut changed = table(6, &["T1", "T2"]);
    changed.topics.insert("T1".into(), Queues { write: 8, ..queues(6) });
    routes.register(registration(MASTER, 0, Some(changed)), at(0));
    assert_eq!((perm(&routes, "T1"), perm(&routes, "T2")), (6, 4));
    // It comes back after it has left.
    routes.closed(ConnectionId(1));
    routes.register(registration(MASTER, 0, Some(table(6, &["T1", "T2"]))), at(0));
    assert_eq!(perm(&routes, "T2"), 6);
    routes.set_writable("broker-a", false);
    assert_eq!((routes.set_writable("broker-a", true), perm(&routes, "T2")), (2, 6));
}

#[test]
fn what_an_operator_gave_lasts_until_the_broker_says_anything_new() {
    let mut routes = with_master(Policy::default());
    let read_only = |version| {
        let mut topics = table(version, &["T1", "T2"]);
        topics.topics.insert("T1".into(), queues(4));
        topics
    };
    routes.register(registration(MASTER, 0, Some(read_only(2))), at(0));
    routes.set_writable("broker-a", true);
    routes.register(registration(MASTER, 0, Some(read_only(2))), at(0));
    assert_eq!(perm(&routes, "T1"), 6, "the same again");
    routes.register(registration(MASTER, 0, Some(read_only(3))), at(0));
    assert_eq!(perm(&routes, "T1"), 4);
    // Taken and given back: what the broker said is still what it is held against.
    routes.set_writable("broker-a", false);
    routes.set_writable("broker-a", true);
    routes.set_writable("broker-a", false);
    routes.register(registration(MASTER, 0, Some(read_only(4))), at(0));
    assert_eq!(perm(&routes, "T2"), 4, "taken last");
}

#[test]
fn a_topic_lost_by_the_table_comes_back_with_an_unchanged_version() {
    let mut routes = with_master(Policy::default());
    routes.delete_topic("T2", None);
    assert_eq!(route_text(&mut routes, "T2"), None);
    routes.register(registration(MASTER, 0, Some(table(1, &["T1", "T2"]))), at(0));
    assert_eq!(routes.topics(), ["T1", "T2"]);
}

#[test]
fn registration_without_body_makes_the_next_one_a_change() {
    let mut routes = with_master(Policy::default());
    routes.register(registration(MASTER, 0, None), at(0));
    assert_eq!(routes.data_version("c", MASTER), Some(&DataVersion { counter: 0, state_version: 0, timestamp: 0 }));
    assert_eq!(routes.topics(), ["T1", "T2"]);
}

#[test]
fn unlisted_topics_go_only_when_told() {
    let policy = Policy { delete_unlisted_topics: true, ..Policy::default() };
    for (policy, left) in [(Policy::default(), &["T1", "T2", "T3"][..]), (policy, &["T2", "T3"])] {
        let mut routes = with_master(policy);
        routes.register(registration(MASTER, 0, Some(table(2, &["T2", "T3"]))), at(0));
        assert_eq!(routes.topics(), left);
    }
}

#[test]
fn promoted_slave_leaves_its_old_id() {
    let mut routes = with_master(Policy::default());
    routes.register(registration(SLAVE, 1, Some(table(1, &["T1", "T2"]))), at(0));
    routes.unregister("c", "broker-a", MASTER);
    routes.register(registration(SLAVE, 0, Some(table(1, &["T1", "T2"]))), at(0));
    let members = json::to_vec_bare_keys(&routes.member_group("c", "broker-a"));
    assert_eq!(
        members,
        br#"{"brokerMemberGroup":{"brokerAddrs":{0:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"c"}}"#
    );
}

#[test]
fn newer_state_keeps_its_id() {
    let mut routes = Routes::default();
    let with_state = |address, state| {
        let mut table = table(1, &["T1", "T2"]);
        table.version.state_version = state;
        registration(address, 0, Some(table))
    };
    routes.register(with_state(MASTER, 5), at(0));
    assert_eq!(routes.register(with_state(SLAVE, 4), at(0)), RegisterOutcome::Outdated);
    assert!(routes.data_version("c", SLAVE).is_none());
    assert_eq!(routes.register(with_state(SLAVE, 5), at(0)), accepted());
    assert!(route_text(&mut routes, "T1").unwrap().contains(SLAVE));
}

#[test]
fn silence_beyond_what_was_promised() {
    let mut routes = with_master(Policy::default());
    let mut hasty = registration(SLAVE, 1, None);
    hasty.timeout = Some(Duration::from_secs(10));
    routes.register(hasty, at(1000));
    assert_eq!(routes.expire(at(11_000)).0, []);
    assert_eq!(routes.expire(at(11_001)).0, [ConnectionId(2)]);
    assert!(!routes.heard("c", SLAVE, at(11_002)));
    assert!(routes.heard("c", MASTER, at(2000)));
    assert_eq!(routes.expire(at(122_000)).0, []);
    assert_eq!(routes.expire(at(122_001)).0, [ConnectionId(1)]);
    assert_eq!((route_text(&mut routes, "T1"), routes.topics().len()), (None, 0));
    assert_eq!(json::to_vec(&routes.cluster_info()), br#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#);
}

#[test]
fn closed_connection_counts_only_if_it_registered_last() {
    let mut routes = with_master(Policy::default());
    let mut again = registration(MASTER, 0, Some(table(1, &["T1", "T2"])));
    again.connection = ConnectionId(9);
    routes.register(again, at(0));
    routes.closed(ConnectionId(1));
    assert!(route_text(&mut routes, "T1").is_some());
    routes.closed(ConnectionId(9));
    assert_eq!(route_text(&mut routes, "T1"), None);
}

#[test]
fn acting_master_is_shown_as_master_and_is_read_only() {
    let policy = Policy { acting_master: true, notify_min_broker_id: true, ..Policy::default() };
    let mut routes = with_master(policy);
    let acting = |address, id| {
        let mut registration = registration(address, id, Some(table(1, &["T1", "T2"])));
        registration.acting_master = Some(true);
        registration
    };
    routes.register(acting(MASTER, 0), at(0));
    routes.register(acting(SLAVE, 1), at(0));
    let change = routes.unregister("c", "broker-a", MASTER).unwrap();
    assert_eq!(
        (change.min_id, &*change.min_address, change.offline_address.as_deref(), &change.to[..]),
        (1, SLAVE, Some(MASTER), &[SLAVE.to_owned()][..])
    );
    let route = route_text(&mut routes, "T1").unwrap();
    assert!(route.contains(r#""brokerAddrs":{"0":"10.0.0.2:10911"}"#) && route.contains(r#""perm":4"#), "{route}");
    routes.obey(Policy::default());
    assert!(route_text(&mut routes, "T1").unwrap().contains(r#""brokerAddrs":{"1":"10.0.0.2:10911"}"#));
    // The master comes back: the others are told, not the master.
    routes.obey(policy);
    let RegisterOutcome::Accepted { change: Some(change), .. } = routes.register(acting(MASTER, 0), at(0)) else {
        panic!("no change noticed")
    };
    assert_eq!(
        (change.min_id, &change.to[..], change.ha_address),
        (0, &[SLAVE.to_owned()][..], Some(format!("{MASTER}0")))
    );
}

#[test]
fn zone_keeps_its_own_brokers_and_those_without_a_master() {
    let mut routes = Routes::default();
    for (name, zone, id) in [("a", Some("z1"), 0), ("b", Some("Z2"), 0), ("d", Some("z2"), 1), ("e", None, 0)] {
        let mut registration = registration(MASTER, id, Some(table(1, &["T1", "T2"])));
        registration.broker_name = name.into();
        registration.address = format!("{name}:1");
        registration.zone = zone.map(Into::into);
        routes.register(registration, at(0));
    }
    routes.register_topic("T1", [("d".into(), queues(4))]);
    let lookup = RouteLookup { topic: "T1", form: RouteForm::Legacy, order: None, zone: Some(Zone("z1")) };
    let route = routes.route(lookup).unwrap();
    let expected = concat!(
        r#"{"brokerDatas":[{"brokerAddrs":{0:"a:1"},"brokerName":"a","cluster":"c","enableActingMaster":false,"zoneName":"z1"},"#,
        r#"{"brokerAddrs":{1:"d:1"},"brokerName":"d","cluster":"c","enableActingMaster":false,"zoneName":"z2"}],"filterServerTable":{},"#,
        r#""queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4},"#,
        r#"{"brokerName":"d","perm":4,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#
    );
    assert_eq!(std::str::from_utf8(&route).unwrap(), expected);
}

#[test]
fn lists_by_cluster_and_unit_flag() {
    let mut routes = with_master(Policy::default());
    routes.register_topic("Unit", [("broker-a".into(), Queues { sys_flag: 1, ..queues(6) })]);
    routes.register_topic("UnitSub", [("broker-a".into(), Queues { sys_flag: 3, ..queues(6) })]);
    routes.register_topic("Sub", [("broker-a".into(), Queues { sys_flag: 2, ..queues(6) })]);
    routes.register_topic("Nowhere", [("broker-z".into(), queues(6))]);
    assert_eq!(routes.topics_of_cluster("c"), ["Sub", "T1", "T2", "Unit", "UnitSub"]);
    assert_eq!(routes.topics_of_cluster("nope").len(), 0);
    assert_eq!(routes.unit_topics(), ["Unit", "UnitSub"]);
    assert_eq!(routes.topics_with_unit_subscription(), ["Sub", "UnitSub"]);
    assert_eq!(routes.plain_topics_with_unit_subscription(), ["Sub"]);
    assert_eq!(routes.system_topics(), (vec!["c".into(), "broker-a".into()], Some(MASTER.into())));
    routes.delete_topic("T1", Some("other"));
    assert!(routes.topics().contains(&"T1".into()));
    routes.delete_topic("T1", Some("c"));
    assert!(!routes.topics().contains(&"T1".into()));
}

#[derive(Clone, Debug)]
enum Step {
    Register { broker: usize, topics: Vec<usize>, mapped: Option<usize> },
    RegisterTopic { broker: usize, topic: usize },
    DeleteTopic(usize),
    Close(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let topics = proptest::collection::vec(0usize..8, 0..6);
    prop_oneof![
        4 => (0usize..5, topics, proptest::option::of(0usize..4))
            .prop_map(|(broker, topics, mapped)| Step::Register { broker, topics, mapped }),
        2 => (0usize..5, 0usize..8).prop_map(|(broker, topic)| Step::RegisterTopic { broker, topic }),
        1 => (0usize..8).prop_map(Step::DeleteTopic),
        1 => (0usize..5).prop_map(Step::Close),
    ]
}

proptest! {
    /// Whatever brokers say: what is taken is what is there, there is never more than there is room for, and who is refused leaves nothing.
    #[test]
    fn the_table_has_room_for_so_much(steps in proptest::collection::vec(step(), 1..60)) {
        let mut routes = Routes::new(Policy::default());
        routes.bounds = room::Bounds { brokers: 3, taken: 12 };
        // The last one is so long that it counts twice.
        let topic = |number: usize| if number == 7 { "t".repeat(200) } else { format!("T{number}") };
        for (counter, step) in steps.into_iter().enumerate() {
            let before = routes.topics();
            match step {
                Step::Register { broker, topics, mapped } => {
                    let topics: Vec<_> = topics.into_iter().map(topic).collect();
                    let mut table = table(counter as i64, &topics.iter().map(String::as_str).collect::<Vec<_>>());
                    for (topic, queues) in topics.first().into_iter().zip(mapped) {
                        let curr_id_map = (0..queues as i32).map(|id| (id, id)).collect();
                        let mapping = TopicQueueMappingInfo { curr_id_map, ..TopicQueueMappingInfo::default() };
                        table.mappings.insert(topic.clone(), mapping);
                    }
                    let asked = Registration {
                        broker_name: format!("broker-{broker}"),
                        connection: ConnectionId(broker as u64),
                        ..registration(&format!("10.0.0.{broker}:10911"), 0, Some(table))
                    };
                    if routes.register(asked, at(0)) == RegisterOutcome::Full {
                        prop_assert_eq!(routes.topics(), before);
                    }
                }
                Step::RegisterTopic { broker, topic: number } => {
                    routes.register_topic(&topic(number), [(format!("broker-{broker}"), queues(6))]);
                }
                Step::DeleteTopic(number) => routes.delete_topic(&topic(number), None),
                Step::Close(broker) => {
                    routes.closed(ConnectionId(broker as u64));
                }
            }
            let topics: usize = routes.topics.iter().map(|(topic, held)| held.len() * weight(topic)).sum();
            let of_topic = |(topic, held): (&String, &BTreeMap<_, _>)| -> usize {
                held.values().map(|mapping| weight_of_mapping(topic, mapping)).sum()
            };
            let mappings: usize = routes.mappings.iter().map(of_topic).sum();
            prop_assert_eq!(routes.taken, topics + mappings);
            prop_assert!(routes.taken <= 12 && routes.processes.len() <= 3 && routes.groups.len() <= 3);
        }
    }
}
