//! Registration: keeps every nameserver informed of this broker and its topics, and signs off at the end.
//!
//! One task per nameserver, so that a dead one holds up nobody: register at once, at every topic change, every `registerNameServerPeriod`,
//! when the connection was lost, and when the broker's role changes; topic changes that come while a registration is under way fold into
//! the next. After such a change only the topics that changed are registered, with the table's new version, as Java does it: what an operator
//! set for the others stays. At any other time the whole table goes, in parts if it must. To a slave the reply names its master, which is
//! handed on. Java: `BrokerController.registerBrokerAll`, `registerIncrementBrokerData`, `BrokerOuterAPI`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ferromq_protocol::body::{KvTable, RegisterBrokerBody, TopicConfigTable};
use ferromq_protocol::header::{RegisterBrokerReply, RegisterBrokerRequest, UnregisterBrokerRequest};
use ferromq_protocol::message::record::body_crc;
use ferromq_protocol::{BODY_LEN_MAX, ByteString, Command, RequestCode, ResponseCode, json};
use ferromq_remoting::{Client, Connection, ConnectionId, InvokeError};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::config::BrokerConfig;
use crate::live_config::LiveConfig;
use crate::standing::{MasterAddress, Position, Standing};
use crate::topics::{Step, Topics, perm};

/// Pause after a registration that failed. Java waits for its next period.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// A registration that goes on failing is logged again after so many attempts, about once a minute.
const SAY_AGAIN_EVERY: u32 = 30;
/// How often a slave registers that was told of no master yet: the answer tells.
const MASTER_WANTED: Duration = Duration::from_secs(5);
/// How often a connection is looked at, to register again soon after a nameserver came back.
const CONNECTION_CHECK: Duration = Duration::from_millis(500);
/// How long signing off may take per nameserver.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(3);

/// Who this broker is to nameservers, in every role.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub cluster: String,
    pub name: String,
    /// `host:port` for clients.
    pub address: String,
    /// `host:port` for slaves.
    pub ha_address: String,
}

/// Which nameservers do not have this broker now, and why: for the runtime figures.
#[derive(Default)]
pub(crate) struct MissingRegistrations(Mutex<BTreeMap<String, String>>);

impl MissingRegistrations {
    /// `host:port: reason`, by nameserver.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.0.lock().iter().map(|(nameserver, reason)| format!("{nameserver}: {reason}")).collect()
    }
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
        standing: Arc<Standing>,
        config: Arc<LiveConfig>,
        topics: Arc<Topics>,
        client: Client,
        unregistered: Arc<MissingRegistrations>,
    ) -> Registrar {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut first_attempts = Vec::new();
        for nameserver in nameservers {
            let (attempted, first_attempt) = oneshot::channel();
            let registration = Registration {
                nameserver,
                identity: identity.clone(),
                standing: Arc::clone(&standing),
                config: Arc::clone(&config),
                topics: Arc::clone(&topics),
                client: client.clone(),
                unregistered: Arc::clone(&unregistered),
                told: None,
                registered: None,
                failures: 0,
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
    standing: Arc<Standing>,
    config: Arc<LiveConfig>,
    topics: Arc<Topics>,
    client: Client,
    unregistered: Arc<MissingRegistrations>,
    told: Option<Told>,
    /// How the last attempt went.
    registered: Option<bool>,
    /// Attempts in a row that failed.
    failures: u32,
}

/// What the nameserver knows.
#[derive(Clone, Copy)]
struct Told {
    /// How far, of the topic table.
    step: Step,
    by: ConnectionId,
    position: Position,
}

/// One request's worth of topics.
struct Part {
    body: Vec<u8>,
    compressed: bool,
    partial: bool,
}

#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    #[error("refused with code {code:?}: {remark}")]
    Refused { code: ResponseCode, remark: String },
    #[error("the topics cannot be compressed: {0}")]
    Compress(#[from] std::io::Error),
}

impl Registration {
    async fn run(mut self, mut stopped: watch::Receiver<bool>, attempted: oneshot::Sender<()>) {
        let mut changes = self.topics.announcements();
        let mut positions = self.standing.positions();
        let mut attempted = Some(attempted);
        // Only after a change is it enough to tell what changed.
        let mut whole = true;
        loop {
            changes.borrow_and_update();
            let position = *positions.borrow_and_update();
            let outcome = tokio::select! {
                outcome = self.register(whole, position) => outcome,
                // What is under way says what this broker is no more: over the same connection, the next comes behind it.
                Ok(()) = positions.changed() => {
                    whole = true;
                    continue;
                }
                _ = stopped.wait_for(|stopped| *stopped) => break,
            };
            self.note(&outcome);
            if let Some(attempted) = attempted.take() {
                // Nobody may be waiting for it.
                let _ = attempted.send(());
            }
            let period = self.period(position);
            whole = true;
            tokio::select! {
                () = sleep(if outcome.is_ok() { period } else { RETRY_PAUSE }) => {}
                changed = changes.changed(), if outcome.is_ok() => if changed.is_err() { break } else { whole = false },
                () = lost(outcome.as_ref().ok()) => {}
                Ok(()) = positions.changed() => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        if self.registered == Some(true) {
            self.unregister().await;
        }
    }

    fn period(&self, position: Position) -> Duration {
        if position.role.is_slave() && self.standing.master().borrow().is_none() {
            return MASTER_WANTED;
        }
        Duration::from_millis(self.config.current().register_name_server_period.clamp(10_000, 60_000))
    }

    /// Registers once, over the one connection that this broker keeps to the nameserver: the nameserver ties the registration to it.
    async fn register(&mut self, whole: bool, position: Position) -> Result<Connection, RegisterError> {
        // Whatever goes wrong below, the next one tells everything.
        let told = self.told.take();
        let limit = Duration::from_millis(self.config.current().register_broker_timeout_mills);
        let connection = self.client.connect(&self.nameserver).await.map_err(InvokeError::from)?;
        let told = told.filter(|told| told.by == connection.id() && told.position == position).map(|told| told.step);
        let mut to_register = self.topics.to_register(told.filter(|_| !whole));
        let step = to_register.step;
        let known = told == Some(step);
        if to_register.whole || !to_register.table.topic_config_table.is_empty() {
            let config = Arc::clone(&*self.config.current());
            let partial = !to_register.whole;
            to_register.table.data_version.state_version = position.epoch;
            // A large table takes a while to write.
            let parts = tokio::task::spawn_blocking(move || parts(to_register.table, partial, known, &config));
            let parts = parts.await.map_err(std::io::Error::from)??;
            let mut last = None;
            for part in parts {
                let reply = connection.invoke(self.request(part, position), limit).await?;
                if reply.response_code() != ResponseCode::SUCCESS {
                    return Err(RegisterError::Refused {
                        code: reply.response_code(),
                        remark: reply.remark.map(|remark| remark.to_string()).unwrap_or_default(),
                    });
                }
                last = Some(reply);
            }
            if let Some(reply) = last {
                self.take_order_topics(&reply);
                self.take_master(&reply, position);
            }
        }
        self.told = Some(Told { step, by: connection.id(), position });
        Ok(connection)
    }

    fn request(&self, part: Part, position: Position) -> Command {
        let header = RegisterBrokerRequest {
            broker_name: self.identity.name.as_str().into(),
            broker_addr: self.identity.address.as_str().into(),
            cluster_name: self.identity.cluster.as_str().into(),
            ha_server_addr: self.identity.ha_address.as_str().into(),
            broker_id: position.role.broker_id(),
            heartbeat_timeout_millis: None,
            // Its absence would mark a broker older than 5.0.
            enable_acting_master: Some(false),
            compressed: part.compressed,
            body_crc32: body_crc(&part.body).cast_signed(),
            partial_table: part.partial.then_some(true),
        };
        Command::request(RequestCode::REGISTER_BROKER, &header).with_body(part.body)
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

    /// Hands on where the master is, if the reply says so. A nameserver that does not know it, as one that has just begun, changes nothing.
    fn take_master(&self, reply: &Command, position: Position) {
        let header: RegisterBrokerReply = match reply.header() {
            Ok(header) => header,
            Err(error) => return warn!(nameserver = self.nameserver, %error, "cannot read a registration's reply"),
        };
        let known = |address: Option<ByteString>| address.filter(|address| !address.is_empty());
        let (Some(address), Some(ha_address)) = (known(header.master_addr), known(header.ha_server_addr)) else {
            return;
        };
        let named = MasterAddress { address: address.to_string(), ha_address: ha_address.to_string() };
        if self.standing.name_master(position, named.clone()) {
            let MasterAddress { address, ha_address } = named;
            info!(nameserver = self.nameserver, address, ha_address, "a nameserver names the master");
        }
    }

    fn note(&mut self, outcome: &Result<Connection, RegisterError>) {
        let before = self.registered.replace(outcome.is_ok());
        let nameserver = &self.nameserver;
        match outcome {
            Ok(_) => {
                self.failures = 0;
                self.unregistered.0.lock().remove(nameserver);
                if before == Some(true) {
                    debug!(nameserver, "registered again");
                } else {
                    info!(nameserver, "registered");
                }
            }
            Err(error) => {
                self.unregistered.0.lock().insert(nameserver.clone(), error.to_string());
                let text = "cannot register: clients of this nameserver do not find this broker, or its new topics";
                if self.failures.is_multiple_of(SAY_AGAIN_EVERY) {
                    error!(nameserver, %error, "{text}; trying again every {} s", RETRY_PAUSE.as_secs());
                } else {
                    debug!(nameserver, %error, "still cannot register");
                }
                self.failures = self.failures.wrapping_add(1);
            }
        }
    }

    async fn unregister(&self) {
        let header = UnregisterBrokerRequest {
            broker_name: self.identity.name.as_str().into(),
            broker_addr: self.identity.address.as_str().into(),
            cluster_name: self.identity.cluster.as_str().into(),
            broker_id: self.standing.role().broker_id(),
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

/// The table in as many parts as it takes: one, compressed if it does not fit otherwise, or several. `known`: the nameserver has all of it,
/// this is a sign of life.
fn parts(
    mut table: TopicConfigTable,
    partial: bool,
    known: bool,
    config: &BrokerConfig,
) -> Result<Vec<Part>, RegisterError> {
    let permission = config.broker_permission;
    if permission & perm::READ_WRITE != perm::READ_WRITE {
        for topic in table.topic_config_table.values_mut() {
            topic.perm &= permission;
        }
    }
    let count = table.topic_config_table.len();
    let mut part_len = if config.enable_split_registration { config.split_registration_size } else { count };
    loop {
        let tables = split(&table, part_len.max(2), known);
        let partial = partial || tables.len() > 1;
        let parts = tables.into_iter().map(|table| encode(table, partial, config.compressed_register));
        let parts = parts.collect::<Result<Vec<Part>, RegisterError>>()?;
        if part_len <= 2 || parts.iter().all(|part| part.body.len() <= BODY_LEN_MAX) {
            return Ok(parts);
        }
        part_len = part_len.div_ceil(2);
        debug!(topics = count, part_len, "the topics do not fit into one registration");
    }
}

/// The last part has the table's version. A nameserver takes a topic that it knows only with a version that it did not see before, so the
/// others have one of their own, which no table had; Java steps the table's version for each part.
fn split(table: &TopicConfigTable, part_len: usize, known: bool) -> Vec<TopicConfigTable> {
    let topics: Vec<_> = table.topic_config_table.iter().collect();
    let mut parts: Vec<TopicConfigTable> = topics
        .chunks(part_len)
        .map(|chunk| TopicConfigTable {
            data_version: table.data_version.clone(),
            topic_config_table: chunk.iter().map(|&(name, topic)| (name.clone(), topic.clone())).collect(),
            ..TopicConfigTable::default()
        })
        .collect();
    if let Some((_, before)) = parts.split_last_mut().filter(|_| !known) {
        for (number, part) in (1..).zip(before) {
            part.data_version.timestamp = part.data_version.timestamp.saturating_add(number);
        }
    }
    parts
}

fn encode(table: TopicConfigTable, partial: bool, compressed: bool) -> Result<Part, RegisterError> {
    let body =
        RegisterBrokerBody { topic_config_serialize_wrapper: table.with_mappings(), filter_server_list: Vec::new() };
    if !compressed {
        let body = body.encode();
        if body.len() <= BODY_LEN_MAX {
            return Ok(Part { body, compressed: false, partial });
        }
    }
    Ok(Part { body: body.encode_compressed()?, compressed: true, partial })
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use ferromq_protocol::body::{DataVersion, TopicConfig};
    use ferromq_protocol::{Reply, TopicName};
    use ferromq_remoting::{ClientConfig, Outcome, Requests, Server, ServerConfig, Service};
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::BrokerConfig;
    use crate::persistence::Persistence;
    use crate::standing::Role;
    use crate::topics::CreateOnSend;

    /// Passes on what it was asked, and says yes to everything unless it says nothing. Slaves it tells the master, as Java's does.
    struct Nameserver {
        heard: mpsc::UnboundedSender<Command>,
        is_silent: Arc<AtomicBool>,
    }

    impl Service for Nameserver {
        fn serve(&self, requests: &mut Requests<'_>) {
            let order = br#"{"table":{"TopicA":"broker-a:4"}}"#;
            requests.each(|_, request| {
                let is_slave = request.field("brokerId").is_some_and(|id| id != "0");
                self.heard.send(request).unwrap();
                if self.is_silent.load(Ordering::SeqCst) {
                    return Outcome::Deferred;
                }
                let of_master = |address: &str| is_slave.then(|| address.into());
                let (master_addr, ha_server_addr) = (of_master("10.0.0.1:10911"), of_master("10.0.0.1:10912"));
                let header = RegisterBrokerReply { master_addr, ha_server_addr };
                Outcome::Reply(Reply::ok().header(header).body(&order[..]))
            });
        }
    }

    async fn nameserver(listen: SocketAddr) -> (Server, mpsc::UnboundedReceiver<Command>) {
        let (server, requests, _) = nameserver_that_may_be_silent(listen).await;
        (server, requests)
    }

    async fn nameserver_that_may_be_silent(
        listen: SocketAddr,
    ) -> (Server, mpsc::UnboundedReceiver<Command>, Arc<AtomicBool>) {
        let (heard, requests) = mpsc::unbounded_channel();
        let is_silent = Arc::<AtomicBool>::default();
        let service = Nameserver { heard, is_silent: Arc::clone(&is_silent) };
        let server = Server::bind(ServerConfig { listen, ..ServerConfig::default() }, Arc::new(service)).await.unwrap();
        (server, requests, is_silent)
    }

    fn identity() -> Identity {
        Identity {
            cluster: "DefaultCluster".into(),
            name: "broker-a".into(),
            address: "127.0.0.1:10911".into(),
            ha_address: "127.0.0.1:10912".into(),
        }
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
        let persistence = Persistence::default();
        let live = Arc::new(LiveConfig::new(config, None));
        let topics = Arc::new(Topics::open(directory.path(), &live, &persistence).unwrap());
        let (server, mut requests) = nameserver(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let address = server.local_addr();
        let client = Client::new(ClientConfig::default(), None);
        let unregistered = Arc::new(MissingRegistrations::default());
        let mut registrar = Registrar::start(
            vec![address.to_string()],
            identity(),
            Arc::new(Standing::new(Role::Master, 0)),
            live,
            Arc::clone(&topics),
            client,
            Arc::clone(&unregistered),
        );
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
            .unwrap()
            .unwrap();
        let alone = requests.recv().await.unwrap();
        assert_eq!(registered_topics(&alone), ["TopicA"], "what was registered before is not registered again");
        assert_eq!(alone.field("partialTable").as_deref(), Some("true"));
        assert_eq!(
            RegisterBrokerBody::decode(&alone.body, alone.version).unwrap().topic_config_serialize_wrapper.data_version,
            topics.data_version()
        );

        // What is wrong stands in the runtime figures for as long as it is.
        assert_eq!(unregistered.reasons(), Vec::<String>::new());
        server.shutdown(Duration::ZERO).await;
        while unregistered.reasons().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        let reasons = unregistered.reasons();
        assert!(reasons[0].starts_with(&format!("{address}: cannot connect to ")), "{reasons:?}");

        // A nameserver that comes back has forgotten everything.
        let (server, mut requests) = nameserver(address).await;
        assert!(registered_topics(&requests.recv().await.unwrap()).contains(&"TopicA".into()));
        // The reply's order topics are taken over.
        while !topics.find("TopicA").unwrap().order {
            tokio::task::yield_now().await;
        }

        while !unregistered.reasons().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }

        registrar.stop().await;
        assert_eq!(requests.recv().await.unwrap().request_code(), RequestCode::UNREGISTER_BROKER);
        server.shutdown(Duration::ZERO).await;
    }

    /// Long before the next registration would come by itself.
    async fn soon(requests: &mut mpsc::UnboundedReceiver<Command>) -> Command {
        timeout(Duration::from_secs(30), requests.recv()).await.expect("it does not register at once").unwrap()
    }

    /// With which number, in which epoch.
    fn registered_as(request: &Command) -> (i64, i64) {
        assert!(registered_topics(request).contains(&"TBW102".into()), "a change of role registers all topics");
        let body = RegisterBrokerBody::decode(&request.body, request.version).unwrap();
        let header: RegisterBrokerRequest = request.header().unwrap();
        assert!(header.partial_table.is_none());
        (header.broker_id, body.topic_config_serialize_wrapper.data_version.state_version)
    }

    #[tokio::test]
    async fn a_change_of_role_registers_at_once_and_learns_the_master() {
        let directory = tempfile::tempdir().unwrap();
        let config = BrokerConfig {
            register_name_server_period: 60_000,
            register_broker_timeout_mills: 60_000,
            ..BrokerConfig::default()
        };
        let persistence = Persistence::default();
        let live = Arc::new(LiveConfig::new(config, None));
        let topics = Arc::new(Topics::open(directory.path(), &live, &persistence).unwrap());
        let (server, mut requests, is_silent) =
            nameserver_that_may_be_silent(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let standing = Arc::new(Standing::new(Role::Master, 4));
        let mut registrar = Registrar::start(
            vec![server.local_addr().to_string()],
            identity(),
            Arc::clone(&standing),
            live,
            topics,
            Client::new(ClientConfig::default(), None),
            Arc::default(),
        );
        registrar.first_round(Duration::from_secs(60)).await;
        assert_eq!(registered_as(&soon(&mut requests).await), (0, 4));
        assert_eq!(*standing.master().borrow(), None);

        let mut master = standing.master();
        standing.change(Position { role: Role::Slave { id: 2 }, epoch: 5 });
        assert_eq!(registered_as(&soon(&mut requests).await), (2, 5));
        let named = MasterAddress { address: "10.0.0.1:10911".into(), ha_address: "10.0.0.1:10912".into() };
        master.wait_for(|master| master.as_ref() == Some(&named)).await.unwrap();

        // A registration that hangs does not hold up the next, which says who is master now.
        is_silent.store(true, Ordering::SeqCst);
        standing.change(Position { role: Role::Slave { id: 3 }, epoch: 5 });
        assert_eq!(registered_as(&soon(&mut requests).await), (3, 5));
        is_silent.store(false, Ordering::SeqCst);
        standing.change(Position { role: Role::Master, epoch: 6 });
        assert_eq!(registered_as(&soon(&mut requests).await), (0, 6));
        assert_eq!(*standing.master().borrow(), None);
        // What was said to the slave that it was is said too late.
        assert!(!standing.name_master(Position { role: Role::Slave { id: 3 }, epoch: 5 }, named));
        assert_eq!(*standing.master().borrow(), None);

        registrar.stop().await;
        server.shutdown(Duration::ZERO).await;
    }

    fn table(topics: usize, name_len: usize) -> TopicConfigTable {
        TopicConfigTable {
            data_version: DataVersion { counter: 7, state_version: 0, timestamp: 1_700_000_000_000 },
            topic_config_table: (0..topics)
                .map(|number| {
                    let name = TopicName::from(format!("{number:0name_len$}").as_str());
                    (name.clone(), TopicConfig { topic_name: name, ..TopicConfig::default() })
                })
                .collect(),
            ..TopicConfigTable::default()
        }
    }

    fn decoded(part: &Part) -> TopicConfigTable {
        RegisterBrokerBody::decode(&part.body, ferromq_protocol::VERSION).unwrap().topic_config_serialize_wrapper
    }

    #[test]
    fn a_table_that_fits_no_frame_is_compressed_by_itself() {
        let parts = parts(table(66_000, 54), false, false, &BrokerConfig::default()).unwrap();
        let [part] = &parts[..] else { panic!("{} parts", parts.len()) };
        assert!(part.compressed && !part.partial && part.body.len() <= BODY_LEN_MAX);
        assert_eq!(decoded(part).topic_config_table.len(), 66_000);
    }

    #[test]
    fn a_split_table_is_registered_whole_and_each_part_as_a_change() {
        let config =
            BrokerConfig { enable_split_registration: true, split_registration_size: 4, ..BrokerConfig::default() };
        for (topics, expected) in [(3, 1), (4, 1), (5, 2), (12, 3), (13, 4)] {
            for known in [false, true] {
                let whole = table(topics, 3);
                let parts = parts(whole.clone(), false, known, &config).unwrap();
                let tables: Vec<_> = parts.iter().map(decoded).collect();
                assert_eq!(tables.len(), expected);
                assert!(parts.iter().all(|part| part.partial == (expected > 1)));
                let together: BTreeMap<_, _> =
                    tables.iter().flat_map(|table| table.topic_config_table.clone()).collect();
                assert_eq!(together, whole.topic_config_table.into_iter().collect());
                assert_eq!(tables.last().unwrap().data_version, whole.data_version);
                let versions: std::collections::BTreeSet<_> =
                    tables.iter().map(|table| table.data_version.timestamp).collect();
                assert_eq!(versions.len(), if known { 1 } else { expected });
            }
        }
    }
}
