//! Tables between a master and its slaves, one of them Java's: topics, groups, offsets, how far delays and timers are.

use std::path::PathBuf;
use std::time::Duration;

use ferromq_protocol::body::{ConsumerOffsetTable, DelayOffsetTable, SubscriptionGroupTable, TopicConfigTable};
use ferromq_protocol::{Command, RequestCode, json};
use ferromq_remoting::{Client, ClientConfig};

use crate::cluster::{Broker, Cluster, create_topic, mqadmin};
use crate::java_server::JavaServer;
use crate::process::{await_condition, run};

/// The tables that a slave takes.
#[derive(Debug, PartialEq)]
struct Tables {
    topics: TopicConfigTable,
    groups: SubscriptionGroupTable,
    offsets: ConsumerOffsetTable,
    delays: DelayOffsetTable,
}

impl Tables {
    /// Those of a broker's files; `None` while one is being replaced. In place of a version, and of what Java derives, there is nothing.
    fn in_files(file: impl Fn(&str) -> PathBuf) -> Option<Tables> {
        let read = |name: &str| std::fs::read(file(&format!("config/{name}.json"))).ok();
        let tables = Tables {
            topics: json::from_file(&read("topics")?).ok()?,
            groups: json::from_file(&read("subscriptionGroup")?).ok()?,
            offsets: json::from_file(&read("consumerOffset")?).ok()?,
            delays: json::from_file(&read("delayOffset")?).ok()?,
        };
        Some(tables.plain())
    }

    /// Those that a broker answers with.
    fn of_broker(addr: &str) -> Tables {
        let body = |code| ask(addr, code, &[]).body;
        let tables = Tables {
            topics: json::from_slice(&body(RequestCode::GET_ALL_TOPIC_CONFIG)).expect("topics"),
            groups: json::from_slice(&body(RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG)).expect("groups"),
            offsets: json::from_slice(&body(RequestCode::GET_ALL_CONSUMER_OFFSET)).expect("offsets"),
            delays: json::from_slice(&body(RequestCode::GET_ALL_DELAY_OFFSET)).expect("delays"),
        };
        tables.plain()
    }

    fn plain(self) -> Tables {
        let Tables { topics, groups, offsets, delays } = self;
        Tables {
            topics: TopicConfigTable { topic_config_table: topics.topic_config_table, ..TopicConfigTable::default() },
            groups: SubscriptionGroupTable {
                subscription_group_table: groups.subscription_group_table,
                ..SubscriptionGroupTable::default()
            },
            offsets: ConsumerOffsetTable { offset_table: offsets.offset_table, ..ConsumerOffsetTable::default() },
            delays: DelayOffsetTable { offset_table: delays.offset_table, ..DelayOffsetTable::default() },
        }
    }
}

/// Asks a broker.
fn ask(broker: &str, code: RequestCode, fields: &[(&str, &str)]) -> Command {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::new(ClientConfig::default(), None);
        let request = Command::request(code, &fields.to_vec());
        let reply = client.invoke(broker, request, Duration::from_secs(60)).await.expect("the broker answers");
        client.shutdown().await;
        assert_eq!(reply.code, 0, "{reply:?}");
        reply
    })
}

/// A topic, a group, what it has committed in queues without messages (no file of ours says more than a queue has), and a message.
fn fill(namesrv: &str, master: &str) {
    create_topic(namesrv, "TopicA", 3);
    let group = ["updateSubGroup", "-b", master, "-g", "GroupA", "-r", "5"];
    let message = ["sendMessage", "-n", namesrv, "-t", "TopicA", "-p", "hello", "-b", "broker-a", "-i", "1"];
    for command in [&group[..], &message[..]] {
        let done = run(&mut mqadmin(command));
        assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    }
    for (queue, offset) in [("0", "7"), ("2", "9")] {
        let fields = [("consumerGroup", "GroupA"), ("topic", "TopicA"), ("queueId", queue), ("commitOffset", offset)];
        ask(master, RequestCode::UPDATE_CONSUMER_OFFSET, &fields);
    }
}

#[test]
fn a_java_slave_takes_the_tables_of_our_master() {
    let cluster = Cluster::start(&[]);
    let (namesrv, master) = (cluster.namesrv(), cluster.broker.addr());
    fill(&namesrv, &master);
    let slave = JavaServer::slave_of(&namesrv, &[]);
    // The last that it asks for once a minute, and says that it did. The first time is 10 s after its start.
    await_condition("the slave's message request modes", || {
        slave.broker_log().contains("Update slave Message Request Mode from master").then_some(())
    });
    await_condition("the timers' checkpoint", || slave.file("config/timercheck").exists().then_some(()));
    let of_slave = await_condition("the slave's files", || Tables::in_files(|name| slave.file(name)));
    let of_master = Tables::of_broker(&master);
    assert!(
        of_master.offsets.offset_table["TopicA@GroupA"][&2] == 9
            && of_master.groups.subscription_group_table.contains_key("GroupA")
    );
    assert_eq!(of_slave, of_master);
    let log = slave.broker_log();
    for part in [
        "TopicConfig",
        "ConsumerOffset",
        "DelayOffset",
        "SubscriptionGroup",
        "MessageRequestMode",
        "TimerMetrics",
        "TimerCheckPoint",
    ] {
        for word in ["Sync", "sync"] {
            assert!(!log.contains(&format!("{word}{part} Exception")), "{part}:\n{log}");
        }
    }
}

/// Waits until a slave of ours has what its master answers with, in its files too.
fn await_equal(slave: &Broker, master: &str) -> Tables {
    await_condition("the slave's tables", || {
        let of_slave = Tables::in_files(|name| slave.store.join(name))?;
        (of_slave == Tables::of_broker(master)).then_some(of_slave)
    })
}

#[test]
fn our_slave_takes_the_tables_of_a_java_master() {
    let java = JavaServer::start(&[]);
    fill(&java.namesrv, &java.broker_addr());
    let home = tempfile::tempdir().expect("a temporary directory");
    let lines = ["brokerRole=SLAVE", "brokerId=1", "mappedFileSizeCommitLog=67108864"];
    let slave = Broker::start(home.path(), "broker-a", &java.namesrv, &lines);
    let tables = await_equal(&slave, &java.broker_addr());
    assert_eq!(tables.groups.subscription_group_table["GroupA"].retry_max_times, 5);
    assert_eq!(tables.offsets.offset_table["TopicA@GroupA"][&2], 9);
    await_condition("the timers' checkpoint", || slave.store.join("config/timercheck").exists().then_some(()));
    // What is gone at the master goes here.
    ask(&java.broker_addr(), RequestCode::DELETE_SUBSCRIPTIONGROUP, &[("groupName", "GroupA")]);
    create_topic(&java.namesrv, "TopicB", 1);
    await_condition("what changed", || {
        let tables = Tables::in_files(|name| slave.store.join(name))?;
        let gone = !tables.groups.subscription_group_table.contains_key("GroupA");
        (gone && tables.topics.topic_config_table.contains_key("TopicB")).then_some(())
    });
}
