//! What goes when somebody asks for it and not by itself: 329.
//!
//! Java: `AdminBrokerProcessor`.

use ferromq_protocol::Reply;
use ferromq_store::Store;
use tracing::info;

use crate::peer::Origin;

/// DELETE_EXPIRED_COMMITLOG: messages older than `fileReservedTime` go now and not at the hour of `deleteWhen`. Answered before they are gone.
pub(crate) fn delete_expired(store: &Store, origin: &Origin) -> Reply {
    info!(peer = %origin.address, "files of the commit log beyond their time are deleted by hand");
    store.delete_expired();
    Reply::ok()
}
