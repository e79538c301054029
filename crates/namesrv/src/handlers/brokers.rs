//! What brokers say about themselves, and what operators do to them. Java: `DefaultRequestProcessor`.

use std::time::{Duration, Instant};

use ferromq_protocol::body::{DataVersion, KvTable, RegisterBrokerBody, TopicConfig, TopicConfigTable};
use ferromq_protocol::header::{
    AddWritePermReply, BrokerHeartbeatRequest, BrokerMemberGroupRequest, DataVersionReply, DataVersionRequest,
    RegisterBrokerReply, RegisterBrokerRequest, UnregisterBrokerRequest, WipeWritePermReply,
};
use ferromq_protocol::{Command, Reply, json};
use ferromq_remoting::{Connection, Outcome};
use parking_lot::Mutex;

use super::reply;
use crate::config::Config;
use crate::kv::{KvConfig, ORDER_TOPIC_CONFIG};
use crate::parts::Notices;
use crate::refusal::Refusal;
use crate::routes::{NAME_LEN_MAX, Queues, RegisterOutcome, Registration, Routes, TopicTable};

/// Of one broker; normally there are none.
const FILTER_SERVERS_MAX: usize = 100;

/// REGISTER_BROKER (103).
pub fn register(
    routes: &Mutex<Routes>,
    kv: &KvConfig,
    notices: &Notices,
    config: &Config,
    connection: &Connection,
    request: &Command,
    now: Instant,
) -> Result<Outcome, Refusal> {
    let header: RegisterBrokerRequest = request.header()?;
    if header.body_crc32 != 0 && header.body_crc32 != checksum(&request.body) {
        return Err(Refusal::system_error("crc32 not match").empty_header());
    }
    let zone = request.field("__ZONE_NAME");
    let names = [&header.cluster_name, &header.broker_name, &header.broker_addr, &header.ha_server_addr];
    let names = names.into_iter().map(|name| name.len()).chain(zone.as_deref().map(str::len));
    if let Some(len) = names.max().filter(|len| *len > NAME_LEN_MAX) {
        let remark = format!("a name or an address has {len} bytes, the limit is {NAME_LEN_MAX}");
        return Err(Refusal::system_error(remark).empty_header());
    }
    let (topics, filter_servers) = if request.body.is_empty() {
        (None, None)
    } else {
        let body = RegisterBrokerBody::decode(&request.body, request.version);
        let body =
            body.map_err(|error| Refusal::system_error(format!("Failed to decode RegisterBrokerBody: {error}")))?;
        let filter_servers = body.filter_server_list.iter().map(|server| server.len());
        if body.filter_server_list.len() > FILTER_SERVERS_MAX || filter_servers.max() > Some(NAME_LEN_MAX) {
            return Err(Refusal::system_error("too many filter servers, or too long ones").empty_header());
        }
        (Some(topic_table(body.topic_config_serialize_wrapper, header.partial_table)), Some(body.filter_server_list))
    };
    let registration = Registration {
        cluster: header.cluster_name.to_string(),
        broker_name: header.broker_name.to_string(),
        address: header.broker_addr.to_string(),
        broker_id: header.broker_id,
        ha_address: header.ha_server_addr.to_string(),
        // A negative one has run out at once, as in Java.
        timeout: header.heartbeat_timeout_millis.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
        acting_master: header.enable_acting_master,
        zone: zone.map(|zone| zone.into_owned()),
        topics,
        filter_servers,
        connection: connection.id(),
    };
    let registered = routes.lock().register(registration, now);
    let (master, change) = match registered {
        RegisterOutcome::Accepted { master, change } => (master, change),
        RegisterOutcome::Outdated => (None, None),
        RegisterOutcome::Full => {
            return Err(Refusal::system_error("register broker failed: there is no room for more brokers or topics")
                .empty_header());
        }
        RegisterOutcome::Incremental => return Err(Refusal::system_error("register broker failed").empty_header()),
    };
    notices.send(change);
    let (master_addr, ha_server_addr) = master.unzip();
    let answer = Reply::ok().header(RegisterBrokerReply {
        ha_server_addr: ha_server_addr.map(Into::into),
        master_addr: master_addr.map(Into::into),
    });
    let order_topics = if config.return_order_topic_config_to_broker { kv.namespace(ORDER_TOPIC_CONFIG) } else { None };
    reply(match order_topics {
        Some(table) => answer.json_body(&KvTable { table: table.into_iter().collect() }),
        None => answer,
    })
}

/// UNREGISTER_BROKER (104). Done at once; Java queues it and may answer that the queue is full.
pub fn unregister(routes: &Mutex<Routes>, notices: &Notices, request: &Command) -> Result<Outcome, Refusal> {
    let header: UnregisterBrokerRequest = request.header()?;
    let change = routes.lock().unregister(&header.cluster_name, &header.broker_name, &header.broker_addr);
    notices.send(change);
    reply(Reply::ok())
}

/// BROKER_HEARTBEAT (904). A broker that has not registered is answered success all the same.
pub fn heartbeat(routes: &Mutex<Routes>, request: &Command, now: Instant) -> Result<Outcome, Refusal> {
    let header: BrokerHeartbeatRequest = request.header()?;
    routes.lock().heard(&header.cluster_name, &header.broker_addr, now);
    reply(Reply::ok())
}

/// QUERY_DATA_VERSION (322): must the broker register again? Also a sign of life.
pub fn data_version(routes: &Mutex<Routes>, request: &Command, now: Instant) -> Result<Outcome, Refusal> {
    let header: DataVersionRequest = request.header()?;
    let asked: DataVersion =
        json::from_slice(&request.body).map_err(|error| Refusal::system_error(error.to_string()))?;
    let known = {
        let mut routes = routes.lock();
        routes.heard(&header.cluster_name, &header.broker_addr, now);
        routes.data_version(&header.cluster_name, &header.broker_addr).cloned()
    };
    let answer = Reply::ok().header(DataVersionReply { changed: known.as_ref() != Some(&asked) });
    reply(match known {
        Some(known) => answer.json_body(&known),
        None => answer,
    })
}

/// GET_BROKER_MEMBER_GROUP (901).
pub fn member_group(routes: &Mutex<Routes>, request: &Command) -> Result<Outcome, Refusal> {
    let header: BrokerMemberGroupRequest = request.header()?;
    let group = routes.lock().member_group(&header.cluster_name, &header.broker_name);
    // Java forgets to clear the remark that a fresh reply starts with.
    reply(Reply::ok().remark("not set any response code").body(json::to_vec_bare_keys(&group)))
}

/// WIPE_WRITE_PERM_OF_BROKER (205). Without a broker name nothing is wiped, and that is a success.
pub fn wipe_write_permission(routes: &Mutex<Routes>, request: &Command) -> Result<Outcome, Refusal> {
    let broker_name = request.field("brokerName");
    let wipe_topic_count = broker_name.map_or(0, |name| routes.lock().set_writable(&name, false));
    reply(Reply::ok().header(WipeWritePermReply { wipe_topic_count }))
}

/// ADD_WRITE_PERM_OF_BROKER (327).
pub fn add_write_permission(routes: &Mutex<Routes>, request: &Command) -> Result<Outcome, Refusal> {
    let broker_name = request.field("brokerName");
    let add_topic_count = broker_name.map_or(0, |name| routes.lock().set_writable(&name, true));
    reply(Reply::ok().header(AddWritePermReply { add_topic_count }))
}

/// CRC-32 as the header carries it, without the sign bit.
fn checksum(body: &[u8]) -> i32 {
    (crc32fast::hash(body) & 0x7FFF_FFFF) as i32
}

fn topic_table(table: TopicConfigTable, partial: Option<bool>) -> TopicTable {
    let queues = |config: TopicConfig| Queues {
        read: config.read_queue_nums,
        write: config.write_queue_nums,
        perm: config.perm,
        sys_flag: config.topic_sys_flag,
    };
    let mappings = table.topic_queue_mapping_info_map.into_iter().flatten();
    TopicTable {
        version: table.data_version,
        // Java's brokers register a new topic alone.
        partial: partial.unwrap_or(table.topic_config_table.len() == 1),
        topics: table
            .topic_config_table
            .into_iter()
            .map(|(topic, config)| (topic.to_string(), queues(config)))
            .collect(),
        mappings: mappings.map(|(topic, mapping)| (topic.to_string(), mapping)).collect(),
    }
}
