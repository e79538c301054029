//! Queue locks of orderly consumers: LOCK_BATCH_MQ (41), UNLOCK_BATCH_MQ (42). Java: `AdminBrokerProcessor.lockBatchMQ`.
//!
//! Locks are this broker's own: the strict mode that asks the other members of a replica group needs replication first.

use std::time::Instant;

use ferromq_protocol::Reply;
use ferromq_protocol::body::{LockBatchReply, LockBatchRequest};

use crate::peer::Peer;
use crate::queue_locks::QueueLocks;

pub(crate) fn lock(locks: &QueueLocks, peer: Peer, request: LockBatchRequest) -> Reply {
    let LockBatchRequest { client_id, consumer_group, mq_set, .. } = request;
    let lock_ok_mq_set = locks.lock(&consumer_group, &client_id, peer.address, mq_set, Instant::now());
    Reply::ok().json_body(&LockBatchReply { lock_ok_mq_set })
}

pub(crate) fn unlock(locks: &QueueLocks, request: &LockBatchRequest) -> Reply {
    let LockBatchRequest { client_id, consumer_group, mq_set, .. } = request;
    locks.unlock(consumer_group, client_id, mq_set);
    Reply::ok()
}
