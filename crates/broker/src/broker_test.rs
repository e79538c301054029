//! What a whole broker does when it is told to be another one, which no request does yet.

use std::path::Path;
use std::sync::Arc;

use ferromq_config::Configuration as _;
use ferromq_protocol::message::Records;
use ferromq_protocol::{Command, PhysicalOffset, QueueId, RequestCode, ResponseCode};
use ferromq_remoting::Connection;

use super::*;
use crate::clock::now_ms;
use crate::master_duties::MasterDuties;
use crate::standing::{Position, Role};
use crate::testing::{PATIENCE, message, wait_until};

struct House {
    broker: Broker,
    connection: Connection,
    client: Client,
}

impl House {
    async fn start(root: &Path, more: &str) -> House {
        let text = format!(
            "listenPort=0\nbrokerIP1=127.0.0.1\nnamesrvAddr=\nstorePathRootDir={}\nmappedFileSizeCommitLog=8388608\n\
             maxHashSlotNum=1000\nmaxIndexNum=4000\nosPageCacheBusyTimeOutMills=300000\n{more}",
            root.display()
        );
        let config = BrokerConfig::parse(&text, &root.join("broker.conf")).unwrap();
        let broker = Broker::start(BrokerConfig::complete(config).unwrap(), None).await.unwrap();
        let client = Client::new(ClientConfig::default(), None);
        let connection = client.connect(&format!("127.0.0.1:{}", broker.local_addr().port())).await.unwrap();
        House { broker, connection, client }
    }

    async fn ask(&self, code: RequestCode, fields: &[(&str, &str)]) -> Command {
        let request = Command::request(code, &fields.to_vec()).with_body(b"body".to_vec());
        self.connection.invoke(request, PATIENCE).await.unwrap()
    }

    /// Into a queue 0.
    async fn send(&self, topic: &str, properties: &str) -> Command {
        let sys_flag = if properties.contains("TRAN_MSG") { "4" } else { "0" };
        let born = now_ms().to_string();
        let fields = [
            ("a", "PG"),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "1"),
            ("e", "0"),
            ("f", sys_flag),
            ("g", &*born),
            ("h", "0"),
            ("i", properties),
        ];
        self.ask(RequestCode::SEND_MESSAGE_V2, &fields).await
    }

    async fn begin(&self, topic: &str) -> Command {
        self.send(topic, "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}KEY\u{2}").await
    }

    async fn commit(&self, half: &Command) -> Command {
        let at = u64::from_str_radix(&half.field("msgId").unwrap()[16..], 16).unwrap().to_string();
        let fields = [
            ("producerGroup", "PG"),
            ("tranStateTableOffset", &*half.field("queueOffset").unwrap()),
            ("commitLogOffset", &*at),
            ("commitOrRollback", "8"),
            ("fromTransactionCheck", "false"),
            ("msgId", "KEY"),
        ];
        self.ask(RequestCode::END_TRANSACTION, &fields).await
    }

    async fn resume(&self, half: &Command) -> Command {
        self.ask(RequestCode::RESUME_CHECK_HALF_MESSAGE, &[("msgId", &*half.field("msgId").unwrap())]).await
    }

    fn pull_request(offset: u64, waits: bool) -> Command {
        let offset = offset.to_string();
        let fields = vec![
            ("consumerGroup", "CG"),
            ("topic", "TopicA"),
            ("queueId", "0"),
            ("queueOffset", &*offset),
            ("maxMsgNums", "32"),
            ("sysFlag", if waits { "6" } else { "4" }),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "60000"),
            ("subscription", "*"),
            ("subVersion", "0"),
        ];
        Command::request(RequestCode::PULL_MESSAGE, &fields)
    }

    /// What is answered, how many messages there are, and where the next pull is to go.
    async fn pull(&self, offset: u64, waits: bool) -> (ResponseCode, usize, String) {
        let reply = self.connection.invoke(House::pull_request(offset, waits), PATIENCE).await.unwrap();
        let suggested = reply.field("suggestWhichBrokerId").unwrap_or_default().into_owned();
        (reply.response_code(), Records::new(&reply.body).count(), suggested)
    }

    fn become_a(&self, role: Role) {
        self.broker.parts.change_role(Position { role, epoch: 0 });
    }

    /// Does what waits for the disk and for threads.
    async fn duties(&self, act: fn(&MasterDuties)) {
        let duties = Arc::clone(&self.broker.parts.master_duties);
        tokio::task::spawn_blocking(move || act(&duties)).await.unwrap();
    }

    async fn wait_until(&self, what: &'static str, done: impl Fn(&Store) -> bool + Send + 'static) {
        let store = Arc::clone(&self.broker.parts.store);
        tokio::task::spawn_blocking(move || wait_until(what, || done(&store))).await.unwrap();
    }

    fn counts(&self) -> [u64; 3] {
        counts(&self.broker.parts.store)
    }

    async fn stop(self) {
        self.client.shutdown().await;
        self.broker.shutdown().await;
    }
}

/// Of what was delayed, of what was for a given time, and of what was committed.
fn counts(store: &Store) -> [u64; 3] {
    ["Delayed", "Timed", "Committed"]
        .map(|topic| store.queue_bounds(topic, QueueId(0)).map_or(0, |bounds| bounds.max.0))
}

#[tokio::test(flavor = "multi_thread")]
async fn duties_that_end_and_begin_again_do_each_thing_once() {
    // In the pool, what was just sent takes its time until it is in a queue.
    for more in ["", "flushDiskType=SYNC_FLUSH\n", "transientStorePoolEnable=true\n"] {
        let root = tempfile::tempdir().unwrap();
        let house = House::start(root.path(), &format!("messageDelayLevel=1s\n{more}")).await;
        let delayed = || house.send("Delayed", "DELAY\u{1}1\u{2}");
        let timed = || house.send("Timed", "TIMER_DELAY_MS\u{1}1000\u{2}");
        // Some are delivered before, some wait.
        assert_eq!([delayed().await.code, timed().await.code], [0, 0]);
        let ended = house.begin("Committed").await;
        assert_eq!(house.commit(&ended).await.code, 0);
        house.wait_until("nothing is delivered", |store| counts(store) == [1, 1, 1]).await;
        assert_eq!([delayed().await.code, timed().await.code], [0, 0]);
        let half = house.begin("Committed").await;
        assert_eq!(half.code, 0);
        house.duties(|duties| drop(duties.stop())).await;

        // On a slow machine those may have come already.
        let before = house.counts();
        assert_eq!([delayed().await.code, timed().await.code], [0, 0]);
        let due = now_ms() + 1_000;
        for refused in [
            house.begin("Committed").await,
            house.commit(&half).await,
            house.resume(&half).await,
            house.ask(RequestCode::GET_ALL_DELAY_OFFSET, &[]).await,
        ] {
            assert_eq!(refused.response_code(), ResponseCode::SERVICE_NOT_AVAILABLE);
            assert!(refused.remark.as_deref().unwrap().contains("no master"), "{:?}", refused.remark);
        }
        assert_eq!(house.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &[]).await.code, 0);
        house.wait_until("the time stands still", move |_| now_ms() > due + 200).await;
        assert_eq!(house.counts(), before);

        house.duties(|duties| duties.start().unwrap()).await;
        house.wait_until("what waited does not come", |store| counts(store)[..2] == [3, 3]).await;
        for _ in 0..2 {
            assert_eq!([house.commit(&ended).await.code, house.commit(&half).await.code], [0, 0]);
        }
        house.wait_until("what was open is not committed", |store| counts(store) == [3, 3, 2]).await;
        // They know what they did, and so does the next start.
        house.duties(|duties| drop(duties.stop())).await;
        house.duties(|duties| duties.start().unwrap()).await;
        assert_eq!(house.commit(&half).await.code, 0);
        house.duties(MasterDuties::settle).await;
        house.stop().await;
        let house = House::start(root.path(), &format!("messageDelayLevel=1s\n{more}")).await;
        assert_eq!(house.commit(&half).await.code, 0);
        house.duties(MasterDuties::settle).await;
        assert_eq!(house.counts(), [3, 3, 2]);
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duties_that_begin_wait_for_what_the_queues_do_not_have_yet() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let (store, duties) = (&house.broker.parts.store, &house.broker.parts.master_duties);
    store.set_replicated(store.watermarks().written);
    let half = house.begin("Committed").await;
    duties.stop();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| duties.start());
        let soon = now_ms() + 200;
        wait_until("the time stands still", || starting.is_finished() || now_ms() > soon);
        store.set_replicated(PhysicalOffset(1 << 40));
        starting.join().unwrap().unwrap();
    });
    assert_eq!(house.commit(&half).await.code, 0);
    house.wait_until("what was open is not committed", |store| counts(store) == [0, 0, 1]).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_duties_waits_for_requests_that_are_with_them() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let duties = &house.broker.parts.master_duties;
    std::thread::scope(|scope| {
        let held = duties.held().unwrap();
        let stopping = scope.spawn(|| duties.stop());
        wait_until("it does not stop", || duties.is_changing());
        assert!(!held.transactions.bell().is_stopping());
        drop(held);
        stopping.join().unwrap();
    });
    assert!(duties.held().is_err());
    house.stop().await;
}

const SLAVE: Role = Role::Slave { id: 1 };

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_serves_pulls_only_with_slave_read_enable_and_sends_who_is_not_behind_to_the_master() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    for _ in 0..2 {
        assert_eq!(house.send("TopicA", "").await.code, 0);
    }
    house.wait_until("nothing is shown", |store| store.queue_end("TopicA", QueueId(0)).is_some()).await;
    assert_eq!(house.pull(0, true).await, (ResponseCode::SUCCESS, 2, "0".into()));
    let connection = house.connection.clone();
    let held = tokio::spawn(async move { connection.invoke(House::pull_request(2, true), PATIENCE).await.unwrap() });
    let pull = Arc::clone(&house.broker.parts.pull);
    house.wait_until("it is not held", move |_| pull.held_count() == 1).await;

    house.become_a(SLAVE);
    assert_eq!(house.send("TopicA", "").await.response_code(), ResponseCode::SERVICE_NOT_AVAILABLE);
    // What waited is looked at as one that comes now.
    house.broker.parts.store.append(&message("TopicA", QueueId(0), b"3", "")).unwrap();
    let refused = held.await.unwrap();
    assert_eq!(refused.response_code(), ResponseCode::SYSTEM_BUSY);
    assert_eq!(refused.remark.as_deref(), Some("[REJECTREQUEST]system busy, start flow control for a while"));
    assert_eq!(house.pull(0, true).await, (ResponseCode::SYSTEM_BUSY, 0, String::new()));

    house.broker.parts.live.update(&[("slaveReadEnable", "true")]).unwrap();
    assert_eq!(house.pull(0, true).await, (ResponseCode::SUCCESS, 3, "0".into()));
    for nothing_there in [3, 9] {
        assert_eq!(house.pull(nothing_there, true).await, (ResponseCode::PULL_RETRY_IMMEDIATELY, 0, "0".into()));
    }

    house.become_a(Role::Master);
    assert_eq!(house.pull(3, false).await, (ResponseCode::PULL_NOT_FOUND, 0, "0".into()));
    house.broker.parts.live.update(&[("slaveReadEnable", "false")]).unwrap();
    assert_eq!(house.pull(0, true).await, (ResponseCode::SUCCESS, 3, "0".into()));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_takes_less_of_the_memory_for_its_log() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "accessMessageInMemoryMaxRatio=10\nslaveReadEnable=true\n").await;
    for _ in 0..12 {
        assert_eq!(house.send("TopicA", "").await.code, 0);
    }
    house
        .wait_until("not all is shown", |store| store.queue_bounds("TopicA", QueueId(0)).is_some_and(|b| b.max.0 == 12))
        .await;
    for (role, count, suggested) in [(Role::Master, 12, "0"), (SLAVE, 8, "1"), (Role::Master, 12, "0")] {
        house.become_a(role);
        assert_eq!(house.pull(0, true).await, (ResponseCode::SUCCESS, count, suggested.into()), "{role:?}");
    }
    house.stop().await;
}

/// What waits for slaves when the mastership ends is told that nobody else may have it.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_slaves_is_told_when_the_broker_is_a_master_no_more() {
    let root = tempfile::tempdir().unwrap();
    let more = "brokerRole=SYNC_MASTER\ninSyncReplicas=2\nslaveTimeout=3600000\n";
    let house = House::start(root.path(), more).await;
    let change = async {
        house.wait_until("nothing is stored", |store| store.watermarks().written.0 > 0).await;
        house.become_a(Role::Slave { id: 1 });
    };
    let (answer, ()) = tokio::join!(house.send("TopicA", ""), change);
    assert_eq!(answer.code, ResponseCode::FLUSH_SLAVE_TIMEOUT.0);
    let late = house.send("TopicA", "").await;
    assert_eq!(late.code, ResponseCode::SERVICE_NOT_AVAILABLE.0);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_makes_and_changes_no_tables_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "slaveReadEnable=true\nautoCreateSubscriptionGroup=true\n").await;
    assert_eq!(house.send("TopicA", "").await.code, 0);
    house.wait_until("nothing is shown", |store| store.queue_end("TopicA", QueueId(0)).is_some()).await;
    house.become_a(SLAVE);
    let parts = &house.broker.parts;
    let tables = || (parts.topics.snapshot(), parts.groups.snapshot());
    let before = tables();

    // A group that the slave has not heard of may read, and what it commits is kept.
    let heartbeat = r#"{"clientID":"c","consumerDataSet":[{"groupName":"CG","subscriptionDataSet":[{"topic":"TopicA","subString":"*"}]}]}"#;
    let request = Command::request(RequestCode::HEART_BEAT, &Vec::<(&str, &str)>::new());
    let reply = house.connection.invoke(request.with_body(heartbeat.as_bytes().to_vec()), PATIENCE).await.unwrap();
    assert_eq!(reply.code, 0);
    assert_eq!(house.pull(0, false).await, (ResponseCode::SUCCESS, 1, "0".into()));
    let commit = [("consumerGroup", "CG"), ("topic", "TopicA"), ("queueId", "0"), ("commitOffset", "1")];
    assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit).await.code, 0);
    let own = parts.offsets.own_commits();
    assert_eq!(own.iter().map(|own| (&*own.group, own.offset, own.base)).collect::<Vec<_>>(), [("CG", 1, None)]);

    assert_eq!(house.send("TopicB", "").await.response_code(), ResponseCode::SERVICE_NOT_AVAILABLE);
    let give_back = [("offset", "0"), ("group", "CG"), ("delayLevel", "0"), ("originTopic", "TopicA")];
    let refused = house.ask(RequestCode::CONSUMER_SEND_MSG_BACK, &give_back).await;
    assert_eq!(refused.response_code(), ResponseCode::SERVICE_NOT_AVAILABLE, "{refused:?}");
    parts.topics.apply_order_topics(|topic| topic == "TopicA");
    for code in [17, 18, 200, 207, 215, 222, 225, 314, 353] {
        let refused = house.ask(RequestCode(code), &[("topic", "TopicA"), ("groupName", "CG")]).await;
        assert_eq!(refused.code, 1, "{code}");
    }
    assert!(parts.topics.find_or_create("%RETRY%CG", 1, 6, false, 0).is_err());
    assert_eq!(tables(), before);

    house.become_a(Role::Master);
    assert_eq!(house.send("TopicB", "").await.code, 0);
    assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit).await.code, 26);
    assert_eq!(house.pull(0, false).await.0, ResponseCode::SUCCESS);
    assert!(parts.groups.contains("CG") && parts.offsets.own_commits().is_empty());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_that_is_told_where_its_master_is_goes_there() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    house.become_a(SLAVE);
    let master = house.broker.parts.standing.master();
    let exchange = |fields: &'static [(&str, &str)]| house.ask(RequestCode::EXCHANGE_BROKER_HA_INFO, fields);
    let known = || master.borrow().as_ref().map(|master| (master.address.clone(), master.ha_address.clone()));
    for unusable in [
        &[("masterHaAddress", "10.0.0.1:1")][..],
        &[("masterHaAddress", "10.0.0.1"), ("masterAddress", "10.0.0.1:1")][..],
        &[("masterHaAddress", "10.0.0.1:1"), ("masterAddress", "")][..],
    ] {
        let refused = exchange(unusable).await;
        assert_eq!((refused.response_code(), known()), (ResponseCode::INVALID_PARAMETER, None), "{unusable:?}");
    }
    assert_eq!(exchange(&[("masterHaAddress", "10.0.0.1:2"), ("masterAddress", "10.0.0.1:1")]).await.code, 0);
    assert_eq!(known(), Some(("10.0.0.1:1".into(), "10.0.0.1:2".into())));
    // The known master, and one of whom nobody says where it is asked.
    assert_eq!(exchange(&[("masterHaAddress", "10.0.0.1:2")]).await.code, 0);
    let other = exchange(&[("masterHaAddress", "10.0.0.1:3")]).await;
    assert_eq!(other.response_code(), ResponseCode::INVALID_PARAMETER);
    assert_eq!(known(), Some(("10.0.0.1:1".into(), "10.0.0.1:2".into())));
    // It has none of its own to tell.
    assert_eq!(exchange(&[]).await.field("masterHaAddress"), None);
    house.stop().await;
}
