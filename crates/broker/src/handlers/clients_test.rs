//! Replays over real sockets what was captured of clients and tools managing clients on Java's broker.

use std::sync::Arc;

use ferromq_protocol::{Command, RequestCode, json};
use ferromq_remoting::{Outcome, Requests, Server, ServerConfig, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::handlers::locks;
use crate::live_config::LiveConfig;
use crate::persistence::Persistence;
use crate::queue_locks::QueueLocks;

/// The lines of the dispatch table that these handlers are behind.
struct Front {
    clients: Clients,
    groups: Groups,
    topics: Topics,
    locks: QueueLocks,
    config: BrokerConfig,
}

impl Front {
    fn answer(&self, connection: &Connection, command: &Command) -> Result<Reply, Refusal> {
        let Front { clients, groups, topics, locks, config } = self;
        let body = &command.body;
        let unreadable = |error: json::JsonError| Refusal::system_error(error.to_string());
        match command.request_code() {
            RequestCode::HEART_BEAT => {
                let origin = Origin::of(connection, command);
                let heartbeat = json::from_slice(body).map_err(unreadable)?;
                super::heartbeat(clients, groups, topics, config, &origin, connection, heartbeat)
            }
            RequestCode::UNREGISTER_CLIENT => unregister(clients, connection, &command.header()?),
            RequestCode::CHECK_CLIENT_CONFIG => check_config(config, json::from_slice(body).map_err(unreadable)?),
            RequestCode::GET_CONSUMER_LIST_BY_GROUP => consumer_ids(clients, &command.header()?),
            RequestCode::GET_CONSUMER_CONNECTION_LIST => consumer_connections(clients, &command.header()?),
            RequestCode::GET_PRODUCER_CONNECTION_LIST => producer_connections(clients, &command.header()?),
            RequestCode::GET_ALL_PRODUCER_INFO => Ok(producers(clients)),
            RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER => Ok(subscription(clients, command.header()?)),
            RequestCode::LOCK_BATCH_MQ => {
                Ok(locks::lock(locks, crate::peer::Peer::of(connection), json::from_slice(body).map_err(unreadable)?))
            }
            RequestCode::UNLOCK_BATCH_MQ => Ok(locks::unlock(locks, &json::from_slice(body).map_err(unreadable)?)),
            code => panic!("code {code:?} is not tested here"),
        }
    }
}

impl Service for Front {
    fn serve(&self, requests: &mut Requests<'_>) {
        requests.each(|connection, command| {
            Outcome::Reply(self.answer(connection, &command).unwrap_or_else(Refusal::into_reply))
        });
    }

    fn closed(&self, connection: &Connection) {
        self.clients.closed(connection);
    }
}

struct Broker {
    server: Server,
    front: Arc<Front>,
    persistence: Persistence,
    _dir: tempfile::TempDir,
}

impl Broker {
    async fn start(config: BrokerConfig) -> Broker {
        let dir = tempfile::tempdir().unwrap();
        let persistence = Persistence::default();
        let live = Arc::new(LiveConfig::new(config.clone(), None));
        let front = Arc::new(Front {
            clients: Clients::new(),
            groups: Groups::open(dir.path(), &live, &persistence).unwrap(),
            topics: Topics::open(dir.path(), &live, &persistence).unwrap(),
            locks: QueueLocks::default(),
            config,
        });
        let listen = ([127, 0, 0, 1], 0).into();
        let server =
            Server::bind(ServerConfig { listen, ..ServerConfig::default() }, Arc::clone(&front) as Arc<dyn Service>)
                .await
                .unwrap();
        Broker { server, front, persistence, _dir: dir }
    }

    async fn connect(&self) -> Peer {
        Peer { stream: TcpStream::connect(self.server.local_addr()).await.unwrap(), opaque: 100, notices: Vec::new() }
    }

    async fn stop(self) {
        self.server.shutdown(std::time::Duration::ZERO).await;
        self.persistence.stop();
    }
}

/// A client made of bytes.
struct Peer {
    stream: TcpStream,
    opaque: i32,
    /// Groups that this client was told about.
    notices: Vec<String>,
}

impl Peer {
    /// The answer's code, the members of its header that tell something, and its body.
    async fn ask(&mut self, code: i32, fields: &str, body: &str) -> (i64, String, String) {
        self.opaque += 1;
        let fields = if fields.is_empty() { String::new() } else { format!("\"extFields\":{fields},") };
        let header = format!(
            "{{\"code\":{code},{fields}\"flag\":0,\"language\":\"JAVA\",\"opaque\":{},\"serializeTypeCurrentRPC\":\"JSON\",\"version\":479}}",
            self.opaque
        );
        let mut frame = Vec::new();
        frame.extend(u32::try_from(4 + header.len() + body.len()).unwrap().to_be_bytes());
        frame.extend(u32::try_from(header.len()).unwrap().to_be_bytes());
        frame.extend([header.as_bytes(), body.as_bytes()].concat());
        self.stream.write_all(&frame).await.unwrap();
        loop {
            let (header, body) = self.frame().await;
            let value: serde_json::Value = serde_json::from_str(&header).unwrap();
            if value["code"] == 40 && value["flag"] == 2 {
                self.notices.push(value["extFields"]["consumerGroup"].as_str().unwrap().to_owned());
                continue;
            }
            assert_eq!(value["opaque"], self.opaque);
            let told: Vec<String> =
                ["extFields", "remark"].iter().filter_map(|name| value.get(name)).map(ToString::to_string).collect();
            return (value["code"].as_i64().unwrap(), told.join(" "), body);
        }
    }

    async fn frame(&mut self) -> (String, String) {
        let len = self.stream.read_u32().await.unwrap() as usize;
        let header_len = self.stream.read_u32().await.unwrap() as usize;
        let mut rest = vec![0; len - 4];
        self.stream.read_exact(&mut rest).await.unwrap();
        let body = rest.split_off(header_len);
        (String::from_utf8(rest).unwrap(), String::from_utf8(body).unwrap())
    }

    /// Any request whose answer comes after what was sent to this connection before.
    async fn notices(&mut self) -> Vec<String> {
        self.ask(46, "", "{}").await;
        std::mem::take(&mut self.notices)
    }
}

const ANSWER: &str = r#"{"IS_SUPPORT_HEART_BEAT_V2":"true","IS_SUB_CHANGE":"true"}"#;

fn subscription_json(topic: &str, version: i64) -> String {
    format!(
        r#"{{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":{version},"tagsSet":[],"topic":"{topic}"}}"#
    )
}

fn consumer(client_id: &str, subscriptions: &[String]) -> String {
    format!(
        concat!(
            r#"{{"clientID":"{}","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"G_hb","#,
            r#""messageModel":"CLUSTERING","subscriptionDataSet":[{}],"unitMode":false}}],"heartbeatFingerprint":0,"producerDataSet":[],"withoutSub":false}}"#
        ),
        client_id,
        subscriptions.join(",")
    )
}

fn ok(fields: &str, body: &str) -> (i64, String, String) {
    (0, fields.into(), body.into())
}

#[tokio::test]
async fn members_of_a_group_come_and_go() {
    let broker = Broker::start(BrokerConfig { broker_name: "broker-a".into(), ..BrokerConfig::default() }).await;
    let (mut a, mut b) = (broker.connect().await, broker.connect().await);
    let wire2 = |version| subscription_json("TopicWire2", version);

    let producer = r#"{"clientID":"cidA@1","consumerDataSet":[],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"PG_hb"}],"withoutSub":false}"#;
    assert_eq!(a.ask(34, "", producer).await, ok(ANSWER, ""));
    assert_eq!(a.notices, [""; 0]);
    assert_eq!(a.ask(34, "", &consumer("cidA@1", &[wire2(1)])).await, ok(ANSWER, ""));
    assert_eq!(a.notices().await, ["G_hb"]);
    assert_eq!(a.ask(38, r#"{"consumerGroup":"G_hb"}"#, "").await, ok("{}", r#"{"consumerIdList":["cidA@1"]}"#));
    let retry = broker.front.topics.find("%RETRY%G_hb").unwrap();
    assert_eq!((retry.read_queue_nums, retry.write_queue_nums, retry.perm, retry.order), (1, 1, 6, false));

    assert_eq!(b.ask(34, "", &consumer("cidB@2", &[wire2(1)])).await, ok(ANSWER, ""));
    assert_eq!((a.notices().await, b.notices().await), (vec!["G_hb".into()], vec!["G_hb".into()]));
    assert_eq!(a.ask(34, "", &consumer("cidA@1", &[wire2(2)])).await, ok(ANSWER, ""));
    assert_eq!((a.notices().await.len(), b.notices().await.len()), (0, 0));
    a.ask(34, "", &consumer("cidA@1", &[wire2(3), subscription_json("TopicTest", 3)])).await;
    assert_eq!((a.notices().await.len(), b.notices().await.len()), (1, 1));
    let stored = format!(r#"{{"group":"G_hb","subscriptionData":{},"topic":"TopicWire2"}}"#, wire2(3));
    assert_eq!(a.ask(345, r#"{"group":"G_hb","topic":"TopicWire2"}"#, "").await, ok("", &stored));

    // C++ style: ordinals, strings for numbers, missing members, newline. The second topic goes, so both are told.
    let foreign = concat!(
        r#"{"clientID":"cidC@3","consumerDataSet":[{"consumeFromWhere":0,"consumeType":1,"groupName":"G_hb","messageModel":1,"subscriptionDataSet":["#,
        r#"{"codeSet":["2598919"],"subString":"TagA","subVersion":"1700000000000","tagsSet":["TagA"],"topic":"TopicWire2"}],"unitMode":false}]}"#,
        "\n"
    );
    assert_eq!(b.ask(34, "", foreign).await, ok(ANSWER, ""));
    assert_eq!((a.notices().await.len(), b.notices().await.len()), (1, 1));
    // The connection's client id is replaced.
    assert_eq!(a.ask(38, r#"{"consumerGroup":"G_hb"}"#, "").await.2, r#"{"consumerIdList":["cidA@1","cidC@3"]}"#);
    assert_eq!(
        b.ask(34, "", r#"{"clientID":"cidD@4","consumerDataSet":[{"groupName":"G_hb2"}]}"#).await,
        ok(ANSWER, "")
    );
    assert_eq!(b.notices().await, ["G_hb2"]);

    let sign_off = r#"{"clientID":"cidB@2","consumerGroup":"G_hb","producerGroup":""}"#;
    assert_eq!(b.ask(35, sign_off, "").await, ok("{}", ""));
    assert_eq!(a.notices().await, ["G_hb"]);
    assert_eq!(b.ask(35, r#"{"clientID":"nobody"}"#, "").await, ok("{}", ""));

    drop(a);
    let nobody = (1, r#"{} "no consumer for this group, G_hb""#.to_owned(), String::new());
    while b.ask(38, r#"{"consumerGroup":"G_hb"}"#, "").await != nobody {
        tokio::task::yield_now().await;
    }
    assert_eq!(b.ask(34, "", "{bad").await.0, 1);
    assert_eq!(b.ask(34, "", "").await.0, 1);
    broker.stop().await;
}

#[tokio::test]
async fn tools_see_who_is_connected() {
    let broker = Broker::start(BrokerConfig { broker_name: "broker-a".into(), ..BrokerConfig::default() }).await;
    let mut a = broker.connect().await;
    let address = a.stream.local_addr().unwrap();
    let both = consumer("cidA@1", &[subscription_json("T", 1)])
        .replace(r#""producerDataSet":[]"#, r#""producerDataSet":[{"groupName":"PID_pay"}]"#);
    a.ask(34, "", &both).await;
    let connection = format!(r#"{{"clientAddr":"{address}","clientId":"cidA@1","language":"JAVA","version":479}}"#);
    let consumers = format!(
        concat!(
            r#"{{"connectionSet":[{}],"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","#,
            r#""subscriptionTable":{{"T":{}}}}}"#
        ),
        connection,
        subscription_json("T", 1)
    );
    assert_eq!(a.ask(203, r#"{"consumerGroup":"G_hb"}"#, "").await, ok("", &consumers));
    let offline = (206, r#""the consumer group[NoSuchGroup] not online""#.to_owned(), String::new());
    assert_eq!(a.ask(203, r#"{"consumerGroup":"NoSuchGroup"}"#, "").await, offline);
    assert_eq!(
        a.ask(204, r#"{"producerGroup":"PID_pay"}"#, "").await,
        ok("", &format!(r#"{{"connectionSet":[{connection}]}}"#))
    );
    let missing = (1, r#""the producer group[NoSuchGroup] not exist""#.to_owned(), String::new());
    assert_eq!(a.ask(204, r#"{"producerGroup":"NoSuchGroup"}"#, "").await, missing);
    let (_, _, producers) = a.ask(328, "", "").await;
    assert!(
        producers.starts_with(r#"{"data":{"PID_pay":[{"clientId":"cidA@1","language":"JAVA","lastUpdateTimestamp":"#),
        "{producers}"
    );
    assert!(producers.ends_with(&format!(r#","remoteIP":"/{address}","version":479}}]}}}}"#)), "{producers}");
    assert_eq!(
        a.ask(345, r#"{"group":"NoSuchGroup","topic":"T"}"#, "").await,
        ok("", r#"{"group":"NoSuchGroup","topic":"T"}"#)
    );

    let sql = r#"{"clientId":"c","group":"g","subscriptionData":{"topic":"T","subString":"a > 1","expressionType":"SQL92","subVersion":1}}"#;
    assert_eq!(
        a.ask(46, "", sql).await,
        (1, r#""The broker does not support consumer to filter message by SQL92""#.into(), String::new())
    );
    assert_eq!(a.ask(46, "", &sql.replace("SQL92", "TAG")).await, ok("", ""));
    broker.stop().await;
}

#[tokio::test]
async fn groups_that_may_not_be_created_are_left_out() {
    let config = BrokerConfig {
        broker_name: "broker-a".into(),
        auto_create_subscription_group: false,
        ..BrokerConfig::default()
    };
    let broker = Broker::start(config).await;
    let mut a = broker.connect().await;
    assert_eq!(a.ask(34, "", &consumer("cidA@1", &[])).await, ok(ANSWER, ""));
    assert_eq!(a.ask(38, r#"{"consumerGroup":"G_hb"}"#, "").await.0, 1);
    assert!(!broker.front.topics.contains("%RETRY%G_hb"));
    broker.stop().await;
}

#[tokio::test]
async fn second_kind_of_heartbeat() {
    let broker = Broker::start(BrokerConfig { broker_name: "broker-a".into(), ..BrokerConfig::default() }).await;
    let mut a = broker.connect().await;
    let full = consumer("cidA@1", &[subscription_json("T", 1)])
        .replace(r#""heartbeatFingerprint":0"#, r#""heartbeatFingerprint":77"#);
    let bare = consumer("cidA@1", &[])
        .replace(r#""heartbeatFingerprint":0"#, r#""heartbeatFingerprint":77"#)
        .replace(r#""withoutSub":false"#, r#""withoutSub":true"#);
    let unchanged = r#"{"IS_SUPPORT_HEART_BEAT_V2":"true","IS_SUB_CHANGE":"false"}"#;
    assert_eq!(a.ask(34, "", &full).await, ok(unchanged, ""));
    assert_eq!(a.ask(34, "", &bare).await, ok(unchanged, ""));
    assert!(broker.front.clients.consumer_group("G_hb").unwrap().subscription("T").is_some());
    assert_eq!(a.ask(34, "", &bare.replace("77", "78")).await, ok(ANSWER, ""));
    broker.stop().await;
}

#[tokio::test]
async fn queue_locks() {
    let broker = Broker::start(BrokerConfig { broker_name: "broker-a".into(), ..BrokerConfig::default() }).await;
    let mut a = broker.connect().await;
    let queue = |id: i32| format!(r#"{{"brokerName":"broker-a","queueId":{id},"topic":"TopicWire2"}}"#);
    let body = |client: &str, queues: &[String]| {
        format!(r#"{{"clientId":"{client}","consumerGroup":"G_hb","mqSet":[{}]}}"#, queues.join(","))
    };
    let held = |queues: &[String]| ok("", &format!(r#"{{"lockOKMQSet":[{}]}}"#, queues.join(",")));
    assert_eq!(a.ask(41, "", &body("A", &[queue(0), queue(1)])).await, held(&[queue(0), queue(1)]));
    assert_eq!(a.ask(41, "", &body("B", &[queue(1)])).await, held(&[]));
    assert_eq!(a.ask(42, "", &body("B", &[queue(1)])).await, ok("", ""));
    assert_eq!(a.ask(42, "", &body("A", &[queue(1)])).await, ok("", ""));
    assert_eq!(a.ask(41, "", &body("B", &[queue(1)])).await, held(&[queue(1)]));
    assert_eq!(a.ask(41, "", "").await.0, 1);
    broker.stop().await;
}
