//! What one peer can pile up in a broker, and that another one beside it does not notice: of the rows of the table in docs/architecture.md those
//! that hold a peer against its share and can be reached in a moment (`GREEDS`). The others have tests of their own:
//!
//! - connections of a whole port: `connections_beyond_the_limit_are_closed` (remoting/tests/server.rs);
//! - sends waiting for a flush: `waiting_acknowledgements_are_bounded` (admission.rs);
//! - requests waiting to read from the disk: `what_waits_has_bounds`, `threads_are_given_as_the_shares_say` (readers.rs), with a disk that hangs
//!   tests/slow_disk.rs, where what a filter and a query go through is too;
//! - work on threads that wait for the disk: `one_address_cannot_have_all_threads` (remoting, gate.rs);
//! - bytes of all held pulls, and what an arrival looks at: `the_lists_do_as_one_list_would`, `conditions_beyond_the_bound_wake_always`
//!   (held_pulls/pulls_test.rs);
//! - `Topics`, `Groups`, all of `ConsumerOffsets`: `there_is_room_for_so_many_…_and_for_those_that_are_there` beside each;
//! - memberships and bytes of all subscriptions: `the_table_has_bounds_and_what_goes_makes_room` (clients/table_test.rs);
//! - all `QueueLocks`: `one_address_cannot_have_all_locks` (queue_locks.rs);
//! - `Statistics`: `names_beyond_the_bound_are_part_of_the_sums_alone` (statistics.rs);
//! - names, in every way in: tests/names_and_places.rs;
//! - the nameserver: `the_table_has_room_for_so_much` (routes/routes_test.rs), `there_is_room_for_so_much_and_what_is_known_stays` (kv.rs).
//!
//! The greedy peer comes from 127.0.0.2 and asks for more than its share of one thing; then everything that an honest client does still works.

mod support;

use std::net::SocketAddr;

use bytes::BytesMut;
use ferromq_protocol::{Command, FRAME_LEN_MAX, RequestCode, decode_frame};
use ferromq_remoting::{Client, ClientConfig};
use support::{House, PATIENCE, heartbeat};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const CONFIG: &str = "workerThreads=2\nenablePropertyFilter=true\npullThreadPoolQueueCapacity=1000\nconnectionsPerAddressMax=60\n\
                      unfinishedFrameBytesMax=67108864\nunreadAnswerBytesMax=134217728\nmaxTransferBytesOnMessageInMemory=67108864\n";

/// A socket of the greedy peer.
struct Greedy {
    stream: TcpStream,
    buffer: BytesMut,
    opaque: i32,
}

impl Greedy {
    async fn connect(house: &House) -> Greedy {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(256 * 1024).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
        let stream = socket.connect(house.address.parse().unwrap()).await.unwrap();
        Greedy { stream, buffer: BytesMut::new(), opaque: 0 }
    }

    fn frame(&mut self, code: RequestCode, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut command = Command::request(code, &fields.to_vec()).with_body(body.to_vec());
        self.opaque += 1;
        command.opaque = self.opaque;
        let mut bytes = BytesMut::new();
        command.encode_head(&mut bytes).unwrap();
        bytes.extend_from_slice(body);
        bytes.to_vec()
    }

    /// The broker may have closed the connection; that shows when something is to be read from it.
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    async fn next(&mut self) -> Option<Command> {
        next(&mut self.stream, &mut self.buffer).await
    }

    async fn ask(&mut self, code: RequestCode, fields: &[(&str, &str)], body: &[u8]) -> Option<Command> {
        let frame = self.frame(code, fields, body);
        self.write(&frame).await;
        self.next().await
    }

    /// Pulls that wait as long as they can for a tag that never comes; as many answers as were refused a place.
    async fn hold(&mut self, count: usize) -> usize {
        self.park_for(count, pull("never", "86400000")).await
    }

    async fn park_for(&mut self, count: usize, fields: Vec<(&str, &str)>) -> usize {
        let mut frames = Vec::new();
        for _ in 0..count {
            frames.extend(self.frame(RequestCode::PULL_MESSAGE, &fields, b""));
        }
        frames.extend(self.frame(RequestCode::GET_TOPIC_CONFIG, &[("topic", "TopicA")], b""));
        self.write(&frames).await;
        let last = self.opaque;
        let mut refused = 0;
        while let Some(answer) = self.next().await {
            if answer.opaque == last {
                break;
            }
            assert_eq!(answer.code, 19, "{answer:?}");
            refused += 1;
        }
        refused
    }
}

/// `None` when the broker closes the connection.
async fn next(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Option<Command> {
    loop {
        if let Some(command) = decode_frame(buffer, FRAME_LEN_MAX).unwrap() {
            return Some(command);
        }
        match tokio::time::timeout(PATIENCE, stream.read_buf(buffer)).await.unwrap() {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn pull<'a>(subscription: &'a str, wait: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("consumerGroup", "Greedy"),
        ("topic", "TopicA"),
        ("queueId", "1"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "6"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", wait),
        ("subscription", subscription),
        ("subVersion", "0"),
    ]
}

/// What there is only so much of.
const GREEDS: [&str; 18] = [
    "held pulls of one connection",
    "held pulls of one address",
    "bytes of held pulls",
    "tags of a pull",
    "tags of a subscription",
    "a condition",
    "groups of a connection",
    "topics of a group",
    "offsets of a group in a topic",
    "names of queue locks",
    "queue locks",
    "requests that another client does not answer",
    "a long frame",
    "a long header",
    "a long body",
    "unfinished frames",
    "answers that nobody reads",
    "connections",
];

/// Asks for too much of one thing, sees that it is refused, and gives what it keeps.
async fn be_greedy(house: &House, greed: &str) -> Vec<Greedy> {
    let mut peer = Greedy::connect(house).await;
    match greed {
        "held pulls of one connection" => {
            // A quarter of all; at one queue a little more than a quarter of a thousand.
            assert!(peer.hold(1000).await >= 750);
            vec![peer]
        }
        "held pulls of one address" => {
            let mut peers = vec![peer];
            let mut held = 1000 - peers[0].hold(1000).await;
            for _ in 0..4 {
                let mut peer = Greedy::connect(house).await;
                held += 250 - peer.hold(250).await;
                peers.push(peer);
            }
            assert!(held <= 500, "{held}");
            peers
        }
        "bytes of held pulls" => {
            // A condition counts sixteen times, for what is made of it: an address has room for 64 of these.
            let long = format!("a = '{}'", "x".repeat(128 << 10));
            let mut fields = pull(&long, "86400000");
            fields.push(("expressionType", "SQL92"));
            assert!(peer.park_for(80, fields).await >= 16);
            vec![peer]
        }
        "tags of a pull" => {
            let many = "a||".repeat(3000);
            let answer = peer.ask(RequestCode::PULL_MESSAGE, &pull(&many, "0"), b"").await.unwrap();
            assert_eq!((answer.code, answer.remark.unwrap().contains("more than 2048 tags")), (23, true));
            vec![peer]
        }
        "tags of a subscription" => {
            let many = "a||".repeat(30_000);
            let answer = peer
                .ask(RequestCode::HEART_BEAT, &[], heartbeat("greedy", "Greedy", "TopicA", &many, 1).as_bytes())
                .await
                .unwrap();
            assert_eq!((answer.code, answer.remark.unwrap().contains("TopicA")), (23, true));
            assert_eq!(
                peer.ask(RequestCode::HEART_BEAT, &[], heartbeat("greedy", "Greedy", "TopicA", "a||b", 1).as_bytes())
                    .await
                    .unwrap()
                    .code,
                0
            );
            vec![peer]
        }
        "a condition" => {
            let long = format!("a = '{}'", "x".repeat(256 << 10));
            let mut fields = pull(&long, "0");
            fields.push(("expressionType", "SQL92"));
            let answer = peer.ask(RequestCode::PULL_MESSAGE, &fields, b"").await.unwrap();
            assert_eq!((answer.code, answer.remark.unwrap().contains("the limit is 262144")), (23, true));
            vec![peer]
        }
        "groups of a connection" => {
            let groups: Vec<String> =
                (0..10_001).map(|number| format!(r#"{{"groupName":"Greedy{number}"}}"#)).collect();
            let body = |groups: &[String]| {
                format!(r#"{{"clientID":"greedy","producerDataSet":[{}],"consumerDataSet":[]}}"#, groups.join(","))
            };
            for (asked, code) in [(&groups[..], 2), (&groups[..1000], 0)] {
                let answer = peer.ask(RequestCode::HEART_BEAT, &[], body(asked).as_bytes()).await.unwrap();
                assert_eq!(answer.code, code, "{answer:?}");
            }
            vec![peer]
        }
        "topics of a group" => {
            let topics: Vec<String> = (0..10_001)
                .map(|number| {
                    format!(r#"{{"topic":"Greedy{number}","subString":"*","expressionType":"TAG","subVersion":1}}"#)
                })
                .collect();
            let body = format!(
                r#"{{"clientID":"greedy","producerDataSet":[],"consumerDataSet":[{{"groupName":"Greedy","consumeType":"CONSUME_PASSIVELY",
                   "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[{}]}}]}}"#,
                topics.join(",")
            );
            let answer = peer.ask(RequestCode::HEART_BEAT, &[], body.as_bytes()).await.unwrap();
            assert_eq!((answer.code, answer.remark.unwrap().contains("10000")), (2, true));
            vec![peer]
        }
        "offsets of a group in a topic" => {
            let frames: Vec<u8> = (0..65_600)
                .flat_map(|queue: u32| {
                    let queue = queue.to_string();
                    let fields =
                        [("consumerGroup", "Greedy"), ("topic", "TopicA"), ("queueId", &queue), ("commitOffset", "0")];
                    peer.frame(RequestCode::UPDATE_CONSUMER_OFFSET, &fields, b"")
                })
                .collect();
            let mut refused = 0;
            let (mut reading, mut writing) = peer.stream.split();
            let write = async { writing.write_all(&frames).await.unwrap() };
            let read = async {
                for _ in 0..65_600 {
                    let answer = next(&mut reading, &mut peer.buffer).await.unwrap();
                    refused += usize::from(answer.code == 2);
                }
            };
            tokio::join!(write, read);
            assert_eq!(refused, 65_600 - 65_536);
            vec![peer]
        }
        "names of queue locks" => {
            let long = "t".repeat(256);
            let body = format!(
                r#"{{"clientId":"greedy","consumerGroup":"Greedy","mqSet":[{{"brokerName":"b","queueId":0,"topic":"{long}"}}]}}"#
            );
            let answer = peer.ask(RequestCode::LOCK_BATCH_MQ, &[], body.as_bytes()).await.unwrap();
            assert!(!String::from_utf8_lossy(&answer.body).contains(&long), "{answer:?}");
            vec![peer]
        }
        "queue locks" => {
            let mut held = 0;
            for part in 0..6 {
                let queues: Vec<String> = (0..45_000)
                    .map(|queue| format!(r#"{{"brokerName":"b","queueId":{queue},"topic":"T{part}"}}"#))
                    .collect();
                let body =
                    format!(r#"{{"clientId":"greedy","consumerGroup":"Greedy","mqSet":[{}]}}"#, queues.join(","));
                let answer = peer.ask(RequestCode::LOCK_BATCH_MQ, &[], body.as_bytes()).await.unwrap();
                held += String::from_utf8_lossy(&answer.body).matches("queueId").count();
            }
            assert_eq!(held, 250_000);
            vec![peer]
        }
        "requests that another client does not answer" => {
            let mut silent = Greedy::connect(house).await;
            let subscribed = heartbeat("silent", "Greedy", "TopicA", "*", 1);
            assert_eq!(silent.ask(RequestCode::HEART_BEAT, &[], subscribed.as_bytes()).await.unwrap().code, 0);
            let relayed = [("consumerGroup", "Greedy"), ("clientId", "silent")];
            let asked: Vec<u8> =
                (0..5000).flat_map(|_| peer.frame(RequestCode::GET_CONSUMER_RUNNING_INFO, &relayed, b"")).collect();
            peer.write(&asked).await;
            let mut came = 0;
            while came < 4096 {
                let asked = silent.next().await.unwrap();
                came += usize::from(asked.code == i32::from(RequestCode::GET_CONSUMER_RUNNING_INFO));
            }
            // Nothing more is read from this connection; the next one of its address is served.
            let mut other = Greedy::connect(house).await;
            assert!(other.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "TopicA")], b"").await.is_some());
            assert!(decode_frame(&mut silent.buffer, FRAME_LEN_MAX).unwrap().is_none());
            let more = silent.stream.try_read(&mut [0]);
            assert!(more.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
            vec![peer, silent, other]
        }
        "a long frame" => {
            peer.write(&(FRAME_LEN_MAX as u32 + 1).to_be_bytes()).await;
            assert!(peer.next().await.is_none());
            Vec::new()
        }
        "a long header" => {
            let long = "a||".repeat(400_000);
            assert!(peer.ask(RequestCode::PULL_MESSAGE, &pull(&long, "0"), b"").await.is_none());
            Vec::new()
        }
        "a long body" => {
            let long = format!(r#"{{"groupName":"{}"}}"#, "g".repeat(5_000_000));
            for code in [RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, RequestCode::UPDATE_BROKER_CONFIG] {
                let answer = peer.ask(code, &[], long.as_bytes()).await.unwrap();
                assert_eq!((answer.code, answer.remark.unwrap().contains("the limit is 4194304")), (1, true));
            }
            vec![peer]
        }
        "unfinished frames" => {
            // Four times six MiB of an address that may have sixteen: one goes at the latest when the third is there.
            let mut ends = tokio::task::JoinSet::new();
            for _ in 0..4 {
                let mut peer = Greedy::connect(house).await;
                let frame = peer.frame(RequestCode::SEND_MESSAGE_V2, &[], &vec![0; 8 << 20]);
                ends.spawn(async move {
                    peer.write(&frame[..6 << 20]).await;
                    assert!(peer.next().await.is_none());
                });
            }
            ends.join_next().await.unwrap().unwrap();
            ends.shutdown().await;
            Vec::new()
        }
        "answers that nobody reads" => {
            // Each leaves the 8 MiB unread after which nothing more is read from it; the address may have four times as much.
            let mut peers = Vec::new();
            for _ in 0..6 {
                let mut peer = Greedy::connect(house).await;
                let asked: Vec<u8> =
                    (0..2000).flat_map(|_| peer.frame(RequestCode::GET_BROKER_CONFIG, &[], b"")).collect();
                peer.write(&asked).await;
                peers.push(peer);
            }
            // Who is closed with requests that were not read can write no more.
            let is_closed = |peer: &Greedy| {
                let written = peer.stream.try_write(b"x");
                written.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
            };
            let one_is_closed = async {
                while !peers.iter().any(is_closed) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, one_is_closed).await.unwrap();
            peers
        }
        "connections" => {
            let mut peers = vec![peer];
            let mut refused = 0;
            for _ in 0..70 {
                let mut peer = Greedy::connect(house).await;
                match peer.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "TopicA")], b"").await {
                    Some(_) => peers.push(peer),
                    None => refused += 1,
                }
            }
            assert!(refused >= 10, "{refused}");
            peers
        }
        other => panic!("{other}"),
    }
}

/// All that a client does, beside whatever the greedy peer keeps.
async fn an_honest_client_works(house: &House, round: u64) {
    let topic = format!("Honest{round}");
    assert_eq!(house.send(&topic, "0", "TAGS\u{1}TagA\u{2}", &vec![1; 3 << 20]).await.code, 0);
    house.see(&topic, "0", 1).await;
    // A pull waits, although others do, until its message comes.
    let waiting = [("sysFlag", "6"), ("suspendTimeoutMillis", "60000"), ("subscription", "TagA||TagB")];
    let pulled = house.pull_with(&topic, "0", "1", &waiting);
    // Over the same connection, so the pull is there first.
    let sent = house.send(&topic, "0", "TAGS\u{1}TagB\u{2}", b"x");
    let (pulled, sent) = tokio::join!(pulled, sent);
    assert_eq!((pulled.code, sent.code), (0, 0), "{pulled:?}");
    let body = heartbeat("honest", "CG", "TopicA", "TagA||TagB", 1);
    assert_eq!(house.ask(RequestCode::HEART_BEAT, &[], body.as_bytes()).await.code, 0);
    let lock = format!(
        r#"{{"clientId":"honest","consumerGroup":"CG","mqSet":[{{"brokerName":"broker-a","queueId":0,"topic":"{topic}"}}]}}"#
    );
    let locked = house.ask(RequestCode::LOCK_BATCH_MQ, &[], lock.as_bytes()).await;
    assert!(String::from_utf8_lossy(&locked.body).contains(&topic), "{locked:?}");
    let commit = [("consumerGroup", "CG"), ("topic", &*topic), ("queueId", "0"), ("commitOffset", "2")];
    assert_eq!(house.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").await.code, 0);
    // Over a connection that comes only now.
    let another = Client::new(ClientConfig::default(), None);
    let deleted = Command::request(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", &*topic)]);
    assert_eq!(another.invoke(&house.address, deleted, PATIENCE).await.unwrap().code, 0);
    another.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_one_peer_piles_up_another_does_not_notice() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), CONFIG).await;
    assert_eq!(house.send("TopicA", "0", "", b"x").await.code, 0);
    let mut round = 0;
    for greed in GREEDS {
        let kept = be_greedy(&house, greed).await;
        round += 1;
        an_honest_client_works(&house, round).await;
        drop(kept);
        free(&house).await;
    }
    house.stop().await;
}

/// Waits until everything that the greedy peer had is gone with its connections: a second time it gets as much as the first time.
async fn free(house: &House) {
    let all = async {
        loop {
            let mut peer = Greedy::connect(house).await;
            if peer.ask(RequestCode::GET_TOPIC_CONFIG, &[("topic", "TopicA")], b"").await.is_some()
                && peer.hold(250).await == 0
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
}

/// Names that do not exist can be deleted, as in Java, and leave nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_what_is_not_there_makes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    assert_eq!(house.send("TopicA", "0", "", b"x").await.code, 0);
    house.see("TopicA", "0", 1).await;
    let all = || house.ask(RequestCode::GET_ALL_TOPIC_CONFIG, &[], b"");
    let before = all().await.body;
    for number in 0..100 {
        let name = format!("Nobody{number}");
        assert_eq!(house.ask(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", &name)], b"").await.code, 0);
    }
    assert_eq!(all().await.body, before);
    let queues = std::fs::read_dir(root.path().join("consumequeue")).unwrap();
    let names: Vec<_> = queues.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("Nobody")), "{names:?}");
    house.stop().await;
}

/// A pull of a backlog is cut to what a frame takes, whatever `maxTransferBytesOnMessageInMemory` allows, and so is a query by key.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_cut_to_what_a_frame_takes() {
    let root = tempfile::tempdir().unwrap();
    let more = "mappedFileSizeCommitLog=67108864\nmaxTransferBytesOnMessageInMemory=67108864\n\
                maxTransferCountOnMessageInMemory=1000\npullBatchMaxMessageCount=1000\nmaxMessageSize=1073741824\n";
    let house = House::start(root.path(), more).await;
    for _ in 0..6 {
        assert_eq!(house.send("TopicA", "0", "KEYS\u{1}k\u{2}", &vec![1; 3 << 20]).await.code, 0);
    }
    house.see("TopicA", "0", 6).await;
    let mut at = 0;
    let mut pulls = 0;
    while at < 6 {
        let reply = house.pull_with("TopicA", "0", &at.to_string(), &[("maxMsgNums", "1000")]).await;
        assert_eq!(reply.code, 0, "{:?}", reply.remark);
        at = reply.field("nextBeginOffset").unwrap().parse::<u64>().unwrap();
        pulls += 1;
    }
    assert_eq!(pulls, 2);
    let query = [
        ("topic", "TopicA"),
        ("key", "k"),
        ("maxNum", "32"),
        ("beginTimestamp", "0"),
        ("endTimestamp", "9999999999999"),
    ];
    let found = house.ask(RequestCode::QUERY_MESSAGE, &query, b"").await;
    assert_eq!(found.code, 0, "{:?}", found.remark);
    assert_eq!(ferromq_protocol::message::Records::new(&found.body).count(), 5);
    // What could never be pulled is not stored.
    assert_eq!(house.send("TopicA", "0", "", &vec![1; FRAME_LEN_MAX - 100_000]).await.code, 13);
    assert_eq!(house.send("TopicB", "0", "", &vec![1; FRAME_LEN_MAX - 200_000]).await.code, 0);
    house.see("TopicB", "0", 1).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_at_thousands_of_queues_is_served_beside_that() {
    let root = tempfile::tempdir().unwrap();
    let house = House::start(root.path(), "").await;
    let mut client = Greedy::connect(&house).await;
    let mut frames = Vec::new();
    for topic in (0..20).map(|number| format!("Topic{number}")) {
        assert_eq!(house.send(&topic, "0", "", b"x").await.code, 0);
        for queue in ["1", "2", "3"] {
            let mut fields = pull("*", "86400000");
            fields.iter_mut().filter(|(name, _)| *name == "topic").for_each(|known| known.1 = &topic);
            fields.iter_mut().filter(|(name, _)| *name == "queueId").for_each(|known| known.1 = queue);
            for _ in 0..90 {
                frames.extend(client.frame(RequestCode::PULL_MESSAGE, &fields, b""));
            }
        }
    }
    client.write(&frames).await;
    // 5,400 pulls wait; whatever else comes over this connection has its answer.
    let answer = client
        .ask(RequestCode::HEART_BEAT, &[], heartbeat("greedy", "Greedy", "TopicA", "*", 1).as_bytes())
        .await
        .unwrap();
    assert_eq!((answer.code, answer.opaque), (0, client.opaque), "{answer:?}");
    house.stop().await;
}
