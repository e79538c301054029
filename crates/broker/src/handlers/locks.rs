//! Queue locks of orderly consumers: LOCK_BATCH_MQ (41), UNLOCK_BATCH_MQ (42). Java: `AdminBrokerProcessor.lockBatchMQ`.
//!
//! Locks are this broker's own: the strict mode that asks the other members of a replica group needs replication first.

use std::time::Instant;

use ferromq_protocol::body::{LockBatchReply, LockBatchRequest};
use ferromq_protocol::{Command, Reply};
use ferromq_remoting::{Connection, Outcome};

use crate::queue_locks::QueueLocks;
use crate::refusal::Refusal;

pub(crate) fn lock(locks: &QueueLocks, connection: &Connection, command: &Command) -> Result<Outcome, Refusal> {
    let LockBatchRequest { client_id, consumer_group, mq_set, .. } = super::json_body(command)?;
    let address = connection.peer_network();
    let lock_ok_mq_set = locks.lock(&consumer_group, &client_id, address, mq_set, Instant::now());
    Ok(Outcome::Reply(Reply::ok().json_body(&LockBatchReply { lock_ok_mq_set })))
}

pub(crate) fn unlock(locks: &QueueLocks, command: &Command) -> Result<Outcome, Refusal> {
    let LockBatchRequest { client_id, consumer_group, mq_set, .. } = super::json_body(command)?;
    locks.unlock(&consumer_group, &client_id, &mq_set);
    Ok(Outcome::Reply(Reply::ok()))
}
