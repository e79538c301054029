//! Registration: keeps every nameserver informed of this broker and its topics, and signs off at the end.
//!
//! One task per nameserver, so that a dead one holds up nobody: register at once, at every topic change, every `registerNameServerPeriod`
//! and when the connection was lost; changes that come while a registration is under way fold into the next. Every registration carries
//! the whole table with its version. Java: `BrokerController.registerBrokerAll`, `BrokerOuterAPI`; spec broker §B.5, protocol §6.2.

use std::sync::Arc;
use std::time::Duration;

use ferromq_protocol::body::{KvTable, RegisterBrokerBody};
use ferromq_protocol::header::{RegisterBrokerRequest, UnregisterBrokerRequest};
use ferromq_protocol::message::record::body_crc;
use ferromq_protocol::{Command, RequestCode, ResponseCode, json};
use ferromq_remoting::{Client, Connection, InvokeError};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::live_config::LiveConfig;
use crate::topics::{Topics, perm};

/// Pause after a registration that failed. Java waits for its next period.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How often a connection is looked at, to register again soon after a nameserver came back.
const CONNECTION_CHECK: Duration = Duration::from_millis(500);
/// How long signing off may take per nameserver.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(3);

/// Who this broker is to nameservers.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub cluster: String,
    pub name: String,
    pub id: i64,
    /// `host:port` for clients.
    pub address: String,
    /// `host:port` for slaves.
    pub ha_address: String,
}

/// The registration tasks. Dropped without [`Registrar::stop`], they end at once and sign off nowhere.
pub(crate) struct Registrar {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// One per nameserver; resolves when the first attempt has ended, well or not.
    first_attempts: Vec<oneshot::Receiver<()>>,
}

impl Registrar {
    /// Starts to register with each of `nameservers` (`host:port`).
    pub(crate) fn start(
        nameservers: Vec<String>,
        identity: Identity,
        config: Arc<LiveConfig>,
        topics: Arc<Topics>,
        client: Client,
    ) -> Registrar {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut first_attempts = Vec::new();
        for nameserver in nameservers {
            let (attempted, first_attempt) = oneshot::channel();
            let registration = Registration {
                nameserver,
                identity: identity.clone(),
                config: Arc::clone(&config),
                topics: Arc::clone(&topics),
                client: client.clone(),
                registered: None,
            };
            tasks.spawn(registration.run(stopped.clone(), attempted));
            first_attempts.push(first_attempt);
        }
        Registrar { stop, tasks, first_attempts }
    }

    /// Waits until every nameserver has been tried once, at most `limit`.
    pub(crate) async fn first_round(&mut self, limit: Duration) {
        let round = async {
            for attempt in self.first_attempts.drain(..) {
                // An error means that the task is gone; there is nothing to wait for then.
                let _ = attempt.await;
            }
        };
        if timeout(limit, round).await.is_err() {
            debug!("not every nameserver has answered yet");
        }
    }

    /// Signs off from every nameserver and ends the tasks.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "a registration task failed");
            }
        }
    }
}

/// One nameserver and what is told to it.
struct Registration {
    nameserver: String,
    identity: Identity,
    config: Arc<LiveConfig>,
    topics: Arc<Topics>,
    client: Client,
    /// How the last attempt went; only changes are logged above DEBUG.
    registered: Option<bool>,
}

#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    #[error("refused with code {code:?}: {remark}")]
    Refused { code: ResponseCode, remark: String },
}

impl Registration {
    async fn run(mut self, mut stopped: watch::Receiver<bool>, attempted: oneshot::Sender<()>) {
        let mut changes = self.topics.changes();
        let mut attempted = Some(attempted);
        loop {
            changes.borrow_and_update();
            let outcome = tokio::select! {
                outcome = self.register() => outcome,
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            self.note(&outcome);
            if let Some(attempted) = attempted.take() {
                // Nobody may be waiting for it.
                let _ = attempted.send(());
            }
            let period = Duration::from_millis(self.config.current().register_name_server_period.clamp(10_000, 60_000));
            tokio::select! {
                () = sleep(if outcome.is_ok() { period } else { RETRY_PAUSE }) => {}
                changed = changes.changed(), if outcome.is_ok() => if changed.is_err() { break },
                () = lost(outcome.as_ref().ok()) => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        if self.registered == Some(true) {
            self.unregister().await;
        }
    }

    /// Registers once, over the one connection that this broker keeps to the nameserver: the nameserver ties the registration to it.
    async fn register(&self) -> Result<Connection, RegisterError> {
        let limit = Duration::from_millis(self.config.current().register_broker_timeout_mills);
        let connection = self.client.connect(&self.nameserver).await.map_err(InvokeError::from)?;
        let reply = connection.invoke(self.request(), limit).await?;
        if reply.response_code() != ResponseCode::SUCCESS {
            return Err(RegisterError::Refused {
                code: reply.response_code(),
                remark: reply.remark.map(|remark| remark.to_string()).unwrap_or_default(),
            });
        }
        self.take_order_topics(&reply);
        Ok(connection)
    }

    fn request(&self) -> Command {
        let mut table = self.topics.snapshot().with_mappings();
        let config = self.config.current();
        let permission = config.broker_permission;
        if permission & perm::READ_WRITE != perm::READ_WRITE {
            for topic in table.topic_config_table.values_mut() {
                topic.perm &= permission;
            }
        }
        let body = RegisterBrokerBody { topic_config_serialize_wrapper: table, filter_server_list: Vec::new() };
        let (body, compressed) = match config.compressed_register.then(|| body.encode_compressed()) {
            Some(Ok(compressed)) => (compressed, true),
            Some(Err(error)) => {
                warn!(%error, "cannot compress a registration; sending it as it is");
                (body.encode(), false)
            }
            None => (body.encode(), false),
        };
        let header = RegisterBrokerRequest {
            broker_name: self.identity.name.as_str().into(),
            broker_addr: self.identity.address.as_str().into(),
            cluster_name: self.identity.cluster.as_str().into(),
            ha_server_addr: self.identity.ha_address.as_str().into(),
            broker_id: self.identity.id,
            heartbeat_timeout_millis: None,
            // Its absence would mark a broker older than 5.0.
            enable_acting_master: Some(false),
            compressed,
            body_crc32: body_crc(&body).cast_signed(),
        };
        Command::request(RequestCode::REGISTER_BROKER, &header).with_body(body)
    }

    /// The reply's body, if there is one, lists the topics whose order the operators keep on the nameserver.
    fn take_order_topics(&self, reply: &Command) {
        if reply.body.is_empty() {
            return;
        }
        match json::from_slice::<KvTable>(&reply.body) {
            Ok(order) if !order.table.is_empty() => {
                self.topics.apply_order_topics(|topic| order.table.contains_key(topic))
            }
            Ok(_) => {}
            Err(error) => {
                warn!(nameserver = self.nameserver, %error, "cannot read the order topics in a registration's reply")
            }
        }
    }

    fn note(&mut self, outcome: &Result<Connection, RegisterError>) {
        let before = self.registered.replace(outcome.is_ok());
        let nameserver = &self.nameserver;
        match outcome {
            Ok(_) if before == Some(true) => debug!(nameserver, "registered again"),
            Ok(_) => info!(nameserver, "registered"),
            Err(error) if before == Some(false) => debug!(nameserver, %error, "still cannot register"),
            Err(error) => warn!(nameserver, %error, "cannot register; trying again every {} s", RETRY_PAUSE.as_secs()),
        }
    }

    async fn unregister(&self) {
        let header = UnregisterBrokerRequest {
            broker_name: self.identity.name.as_str().into(),
            broker_addr: self.identity.address.as_str().into(),
            cluster_name: self.identity.cluster.as_str().into(),
            broker_id: self.identity.id,
        };
        let request = Command::request(RequestCode::UNREGISTER_BROKER, &header);
        // The limit holds for connecting too: a nameserver that is gone must not hold up the shutdown.
        match timeout(UNREGISTER_TIMEOUT, self.client.invoke(&self.nameserver, request, UNREGISTER_TIMEOUT)).await {
            Ok(Ok(_)) => info!(nameserver = self.nameserver, "unregistered"),
            Ok(Err(error)) => warn!(nameserver = self.nameserver, %error, "cannot unregister"),
            Err(_) => warn!(nameserver = self.nameserver, "no answer when unregistering"),
        }
    }
}

/// Resolves when the connection is gone; never without one.
async fn lost(connection: Option<&Connection>) {
    match connection {
        Some(connection) => {
            while !connection.is_closed() {
                sleep(CONNECTION_CHECK).await;
            }
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ferromq_protocol::Reply;
    use ferromq_remoting::{ClientConfig, Outcome, Server, ServerConfig, Service};
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::BrokerConfig;
    use crate::persistence::Persistence;
    use crate::topics::CreateOnSend;

    /// Says yes to everything and passes on what it was asked.
    struct Nameserver(mpsc::UnboundedSender<Command>);

    impl Service for Nameserver {
        fn handle(&self, _connection: &Connection, request: Command) -> Outcome {
            let order = br#"{"table":{"TopicA":"broker-a:4"}}"#;
            self.0.send(request).unwrap();
            Outcome::Reply(Reply::ok().body(&order[..]))
        }
    }

    async fn nameserver(listen: SocketAddr) -> (Server, mpsc::UnboundedReceiver<Command>) {
        let (heard, requests) = mpsc::unbounded_channel();
        let server = Server::bind(ServerConfig { listen, ..ServerConfig::default() }, Arc::new(Nameserver(heard)))
            .await
            .unwrap();
        (server, requests)
    }

    fn registered_topics(request: &Command) -> Vec<String> {
        assert_eq!(request.request_code(), RequestCode::REGISTER_BROKER);
        let body = RegisterBrokerBody::decode(&request.body, request.version).unwrap();
        body.topic_config_serialize_wrapper.topic_config_table.keys().map(|topic| topic.to_string()).collect()
    }

    #[tokio::test]
    async fn registers_at_once_after_a_change_after_a_loss_and_signs_off() {
        let directory = tempfile::tempdir().unwrap();
        let config = BrokerConfig { broker_permission: 4, ..BrokerConfig::default() };
        let persistence = Persistence::start().unwrap();
        let live = Arc::new(LiveConfig::new(config, None));
        let topics = Arc::new(Topics::open(directory.path(), &live, &persistence).unwrap());
        let identity = Identity {
            cluster: "DefaultCluster".into(),
            name: "broker-a".into(),
            id: 0,
            address: "127.0.0.1:10911".into(),
            ha_address: "127.0.0.1:10912".into(),
        };
        let (server, mut requests) = nameserver(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let address = server.local_addr();
        let client = Client::new(ClientConfig::default(), None);
        let mut registrar = Registrar::start(vec![address.to_string()], identity, live, Arc::clone(&topics), client);
        registrar.first_round(Duration::from_secs(60)).await;

        let first = requests.recv().await.unwrap();
        let header: RegisterBrokerRequest = first.header().unwrap();
        assert_eq!((&*header.broker_name, &*header.broker_addr, header.broker_id), ("broker-a", "127.0.0.1:10911", 0));
        assert_eq!(header.body_crc32, body_crc(&first.body).cast_signed());
        assert!(registered_topics(&first).contains(&"TBW102".into()));
        // What the broker may not do, its topics may not either.
        let body = RegisterBrokerBody::decode(&first.body, first.version).unwrap();
        assert!(
            body.topic_config_serialize_wrapper.topic_config_table.values().all(|topic| topic.perm & perm::WRITE == 0)
        );

        topics
            .create_on_send(&CreateOnSend {
                topic: "TopicA",
                default_topic: "TBW102",
                queue_count: 4,
                topic_sys_flag: 0,
            })
            .unwrap();
        assert!(registered_topics(&requests.recv().await.unwrap()).contains(&"TopicA".into()));

        // A nameserver that comes back has forgotten everything.
        server.shutdown(Duration::ZERO).await;
        let (server, mut requests) = nameserver(address).await;
        assert!(registered_topics(&requests.recv().await.unwrap()).contains(&"TopicA".into()));
        // The reply's order topics are taken over.
        while !topics.find("TopicA").unwrap().order {
            tokio::task::yield_now().await;
        }

        registrar.stop().await;
        assert_eq!(requests.recv().await.unwrap().request_code(), RequestCode::UNREGISTER_BROKER);
        server.shutdown(Duration::ZERO).await;
    }
}
