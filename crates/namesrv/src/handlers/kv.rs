//! Key-value configuration requests. Java: `DefaultRequestProcessor`.

use std::sync::Arc;

use ferromq_protocol::body::KvTable;
use ferromq_protocol::header::{KvGetReply, KvKeyRequest, KvNamespaceRequest, KvPutRequest};
use ferromq_protocol::{Command, Reply, ResponseCode};
use ferromq_remoting::{Connection, Outcome};

use super::{off_task, reply};
use crate::kv::{KvConfig, KvError};
use crate::parts::Parts;
use crate::refusal::Refusal;

/// PUT_KV_CONFIG (100). Answered when it is on disk; Java answers success even if the file could not be written.
pub fn put(parts: &Arc<Parts>, connection: &Connection, request: &Command) -> Result<Outcome, Refusal> {
    let put: KvPutRequest = request.header().map_err(|_| Refusal::system_error("namespace or key is null"))?;
    let parts = Arc::clone(parts);
    Ok(off_task(connection, request, move || {
        parts.kv.put(&put.namespace, &put.key, &put.value).map_err(not_changed)?;
        Ok(Reply::ok())
    }))
}

/// DELETE_KV_CONFIG (102). Deleting what is not there is a success.
pub fn delete(parts: &Arc<Parts>, connection: &Connection, request: &Command) -> Result<Outcome, Refusal> {
    let delete: KvKeyRequest = request.header().map_err(|_| Refusal::system_error("namespace or key is null"))?;
    let parts = Arc::clone(parts);
    Ok(off_task(connection, request, move || {
        parts.kv.delete(&delete.namespace, &delete.key).map_err(not_changed)?;
        Ok(Reply::ok())
    }))
}

/// GET_KV_CONFIG (101).
pub fn value(kv: &KvConfig, request: &Command) -> Result<Outcome, Refusal> {
    let (namespace, key) = (request.field("namespace"), request.field("key"));
    let value = namespace.as_deref().zip(key.as_deref()).and_then(|(namespace, key)| kv.value(namespace, key));
    match value {
        Some(value) => reply(Reply::ok().header(KvGetReply { value: Some(value.into()) })),
        None => {
            let (namespace, key) = (namespace.as_deref().unwrap_or("null"), key.as_deref().unwrap_or("null"));
            Err(not_found(format!("No config item, Namespace: {namespace} Key: {key}")).empty_header())
        }
    }
}

/// GET_KVLIST_BY_NAMESPACE (219).
pub fn namespace(kv: &KvConfig, request: &Command) -> Result<Outcome, Refusal> {
    let KvNamespaceRequest { namespace } = request.header()?;
    match kv.namespace(&namespace) {
        Some(table) => reply(Reply::ok().json_body(&KvTable { table: table.into_iter().collect() })),
        None => Err(not_found(format!("No config item, Namespace: {namespace}"))),
    }
}

fn not_found(remark: String) -> Refusal {
    Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark)
}

fn not_changed(error: KvError) -> Refusal {
    tracing::error!(%error, "a change of the key-value configuration is not made");
    Refusal::system_error(error.to_string())
}
