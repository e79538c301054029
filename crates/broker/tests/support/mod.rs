//! A real broker on a free port over a temporary directory, and a connection that sends raw requests to it.

#![allow(dead_code, reason = "every test program uses its own part")]

pub mod killed;
pub mod scripted_master;
pub mod slave;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ferromq_broker::{Broker, BrokerConfig, StartError};
use ferromq_config::Configuration as _;
use ferromq_protocol::{Command, RequestCode};
use ferromq_remoting::{Client, ClientConfig, Connection, Service};
use ferromq_store::{Disk, LocalDisk};
use serde::de::DeserializeOwned;

/// Only a hang runs into this.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub struct House {
    pub broker: Broker,
    pub address: String,
    pub connection: Connection,
    pub client: Client,
}

impl House {
    pub async fn start(root: &Path, more: &str) -> House {
        House::start_on(root, more, Arc::new(LocalDisk)).await
    }

    pub async fn start_on(root: &Path, more: &str, disk: Arc<dyn Disk>) -> House {
        let broker = start_on(root, more, disk).await.unwrap();
        let address = format!("127.0.0.1:{}", broker.local_addr().port());
        let client = Client::new(ClientConfig::default(), None);
        let connection = client.connect(&address).await.unwrap();
        House { broker, address, connection, client }
    }

    pub async fn ask(&self, code: RequestCode, fields: &[(&str, &str)], body: &[u8]) -> Command {
        let request = Command::request(code, &fields.to_vec()).with_body(body.to_vec());
        self.connection.invoke(request, PATIENCE).await.unwrap()
    }

    pub async fn send(&self, topic: &str, queue: &str, properties: &str, body: &[u8]) -> Command {
        self.send_with(topic, queue, properties, body, &[]).await
    }

    pub async fn send_with(
        &self,
        topic: &str,
        queue: &str,
        properties: &str,
        body: &[u8],
        changes: &[(&str, &str)],
    ) -> Command {
        let fields = vec![
            ("a", "PG"),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", queue),
            ("f", "0"),
            ("g", "1795220483790"),
            ("h", "0"),
            ("i", properties),
        ];
        self.ask(RequestCode::SEND_MESSAGE_V2, &changed(fields, changes), body).await
    }

    /// A pull of `CG` that does not wait.
    pub async fn pull_with(&self, topic: &str, queue: &str, offset: &str, changes: &[(&str, &str)]) -> Command {
        self.connection.invoke(pull_request(topic, queue, offset, changes), PATIENCE).await.unwrap()
    }

    /// A pull of `CG` that waits for a message.
    pub async fn pull(&self, topic: &str, queue: &str, offset: &str) -> Command {
        self.pull_with(topic, queue, offset, &[("sysFlag", "6"), ("suspendTimeoutMillis", "60000")]).await
    }

    /// Waits until a queue shows this many messages, one after the other: a pull further ahead would be refused.
    pub async fn see(&self, topic: &str, queue: &str, count: u64) {
        for offset in 0..count {
            assert_eq!(self.pull(topic, queue, &offset.to_string()).await.code, 0);
        }
    }

    /// Makes a client of its own that answers requests with `service`, and introduces it as a member of `CG`.
    pub async fn consumer(&self, client_id: &str, version: i32, service: Arc<dyn Service>) -> (Client, Connection) {
        let client = Client::new(ClientConfig::default(), Some(service));
        let connection = client.connect(&self.address).await.unwrap();
        let body = heartbeat(client_id, "CG", "TopicA", "*", 1);
        let mut heartbeat = Command::request(RequestCode::HEART_BEAT, &ferromq_protocol::NoFields).with_body(body);
        heartbeat.version = version;
        assert_eq!(connection.invoke(heartbeat, PATIENCE).await.unwrap().code, 0);
        (client, connection)
    }

    /// Asks until the answer is as wanted, for what another thread does in its own time.
    pub async fn ask_until(
        &self,
        code: RequestCode,
        fields: &[(&str, &str)],
        wanted: impl Fn(&Command) -> bool,
    ) -> Command {
        let asking = async {
            loop {
                let reply = self.ask(code, fields, b"").await;
                if wanted(&reply) {
                    return reply;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        answer.unwrap_or_else(|_| panic!("the answer to {code:?} {fields:?} never was as wanted"))
    }

    pub async fn stop(self) {
        self.client.shutdown().await;
        self.broker.shutdown().await;
    }
}

/// A broker on a free port, started with a file; `more` are further lines of it. It does not call a disk slow that other work keeps busy.
pub async fn start(root: &Path, more: &str) -> Result<Broker, StartError> {
    start_on(root, more, Arc::new(LocalDisk)).await
}

async fn start_on(root: &Path, more: &str, disk: Arc<dyn Disk>) -> Result<Broker, StartError> {
    let text = format!(
        "listenPort=0\nbrokerName=broker-a\nbrokerIP1=127.0.0.1\nnamesrvAddr=\nstorePathRootDir={}\n\
         mappedFileSizeCommitLog=8388608\nmaxHashSlotNum=1000\nmaxIndexNum=4000\n\
         syncFlushTimeout=300000\nosPageCacheBusyTimeOutMills=300000\n{more}",
        root.display()
    );
    let file = root.join("broker.conf");
    std::fs::write(&file, &text).unwrap();
    let config = BrokerConfig::complete(BrokerConfig::parse(&text, &file).unwrap()).unwrap();
    Broker::start_on(config, Some(file), disk).await
}

/// A pull of `CG` that does not wait, but for the changes.
pub fn pull_request(topic: &str, queue: &str, offset: &str, changes: &[(&str, &str)]) -> Command {
    let fields = vec![
        ("consumerGroup", "CG"),
        ("topic", topic),
        ("queueId", queue),
        ("queueOffset", offset),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
    ];
    Command::request(RequestCode::PULL_MESSAGE, &changed(fields, changes))
}

fn changed<'a>(mut fields: Vec<(&'a str, &'a str)>, changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    for change in changes {
        fields.retain(|(name, _)| *name != change.0);
        fields.push(*change);
    }
    fields
}

/// Introduces a client as one that sends for a group and is a member of it, with a subscription to these tags.
pub fn heartbeat(client_id: &str, group: &str, topic: &str, tags: &str, version: u32) -> String {
    let [group, topic] = [group, topic].map(|name| serde_json::to_string(name).unwrap());
    let codes: Vec<i64> = match tags {
        "*" => Vec::new(),
        tags => tags.split("||").map(ferromq_protocol::message::tags::tags_code).collect(),
    };
    format!(
        r#"{{"clientID":"{client_id}","producerDataSet":[{{"groupName":{group}}}],"consumerDataSet":[{{"groupName":{group},"consumeType":"CONSUME_PASSIVELY",
           "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","unitMode":false,"subscriptionDataSet":[
           {{"topic":{topic},"subString":"{tags}","codeSet":{codes:?},"expressionType":"TAG","subVersion":{version}}}]}}]}}"#
    )
}

pub fn field(reply: &Command, name: &str) -> String {
    reply.field(name).unwrap_or_else(|| panic!("no field {name} in {reply:?}")).into_owned()
}

pub fn remark(reply: &Command) -> &str {
    reply.remark.as_deref().unwrap_or_default()
}

pub fn text(reply: &Command) -> String {
    String::from_utf8(reply.body.to_vec()).unwrap()
}

pub fn json<T: DeserializeOwned>(reply: &Command) -> T {
    assert_eq!(reply.code, 0, "{reply:?}");
    ferromq_protocol::json::from_slice(&reply.body).unwrap()
}
