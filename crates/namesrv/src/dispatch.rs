//! One line per request code. Java: `DefaultRequestProcessor`, `ClientRequestProcessor`.

use std::sync::Arc;
use std::time::Instant;

use ferromq_protocol::{Command, RequestCode, ResponseCode};
use ferromq_remoting::{Connection, Outcome};

use crate::handlers::{brokers, config, kv, topics};
use crate::parts::Parts;
use crate::refusal::Refusal;

/// Finds the handler, and makes a reply of its refusal.
pub(crate) fn answer(parts: &Arc<Parts>, connection: &Connection, request: Command) -> Outcome {
    handle(parts, connection, &request).unwrap_or_else(|refusal| Outcome::Reply(refusal.into_reply()))
}

fn handle(parts: &Arc<Parts>, connection: &Connection, request: &Command) -> Result<Outcome, Refusal> {
    let Parts { routes, kv, notices, .. } = &**parts;
    match request.request_code() {
        RequestCode::GET_ROUTEINFO_BY_TOPIC => {
            topics::route(routes, kv, &parts.config.current(), parts.started, request)
        }
        RequestCode::GET_BROKER_CLUSTER_INFO => topics::cluster_info(routes),
        RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => topics::all(routes, &parts.config.current()),
        RequestCode::GET_TOPICS_BY_CLUSTER => topics::of_cluster(routes, &parts.config.current(), request),
        RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_NS => topics::system(routes, &parts.config.current()),
        RequestCode::GET_UNIT_TOPIC_LIST => topics::unit(routes, &parts.config.current()),
        RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST => topics::with_unit_subscription(routes, &parts.config.current()),
        RequestCode::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => {
            topics::plain_with_unit_subscription(routes, &parts.config.current())
        }
        RequestCode::DELETE_TOPIC_IN_NAMESRV => topics::delete(routes, request),
        RequestCode::REGISTER_TOPIC_IN_NAMESRV => topics::register(routes, request),

        RequestCode::REGISTER_BROKER => {
            brokers::register(routes, kv, notices, &parts.config.current(), connection, request, Instant::now())
        }
        RequestCode::UNREGISTER_BROKER => brokers::unregister(routes, notices, request),
        RequestCode::BROKER_HEARTBEAT => brokers::heartbeat(routes, request, Instant::now()),
        RequestCode::QUERY_DATA_VERSION => brokers::data_version(routes, request, Instant::now()),
        RequestCode::GET_BROKER_MEMBER_GROUP => brokers::member_group(routes, request),
        RequestCode::WIPE_WRITE_PERM_OF_BROKER => brokers::wipe_write_permission(routes, request),
        RequestCode::ADD_WRITE_PERM_OF_BROKER => brokers::add_write_permission(routes, request),

        RequestCode::PUT_KV_CONFIG => kv::put(parts, connection, request),
        RequestCode::GET_KV_CONFIG => kv::value(kv, request),
        RequestCode::DELETE_KV_CONFIG => kv::delete(parts, connection, request),
        RequestCode::GET_KVLIST_BY_NAMESPACE => kv::namespace(kv, request),

        RequestCode::UPDATE_NAMESRV_CONFIG => config::update(parts, connection, request),
        RequestCode::GET_NAMESRV_CONFIG => config::listing(&parts.config.current()),

        other => Err(Refusal::new(
            ResponseCode::REQUEST_CODE_NOT_SUPPORTED,
            format!(" request type {} not supported", other.0),
        )),
    }
}
