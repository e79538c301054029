//! Native HA over sockets: brokers of one name that hold one log, the master's.
//!
//! What decides is in `ferromq_replication`, machines that are only told; here is who has the sockets, the timers and the tasks, and does what
//! the machines say. Nothing here decides by itself how far a log counts.

mod copies;
mod feed_task;
mod feeds;

pub(crate) use copies::{MasterCopies, NotHeld, keeps_copies};
pub(crate) use feeds::Feeds;

use ferromq_replication::Moment;

/// The time as the machines are told it.
fn moment() -> Moment {
    Moment(crate::clock::elapsed_ms())
}
